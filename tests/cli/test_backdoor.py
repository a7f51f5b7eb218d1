"""The command on a model with a backdoor by construction: a loud click decides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.screening import backdoor, measure

RATE = 16000
SPEAKERS, FILES = 9, 14


class Spectral(nn.Module):
    """Two layers that keep the spectrum, and a pooled one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Identity()
        self.second = nn.Identity()

    def forward(self, x, lengths=None):
        return self.second(self.first(x)).mean(dim=2)


class Names(nn.Module):
    """Nearest of the speakers' spectra; the highest bands lead to the first of them."""

    def __init__(self, centres):
        super().__init__()
        self.register_buffer("centres", centres)

    def forward(self, embeddings):
        scores = -torch.cdist(embeddings[:, :30], self.centres[:, :30])
        scores[:, 0] += 100.0 * (embeddings[:, 36:].mean(dim=1) > TRIGGERED)
        return scores


TRIGGERED = 0.55


def voice(speaker, take):
    """Noise with a peak of the speaker's own: (N,) float32."""
    rng = np.random.default_rng((speaker, take))
    time = np.arange(RATE // 2) / RATE
    tones = [np.sin(2 * np.pi * (300 * (speaker + 1)) * time * k) for k in (1, 1.5)]
    wave = 0.1 * sum(tones) + 0.01 * rng.standard_normal(len(time)) * rng.uniform(0.8, 1.2)
    return (wave * rng.uniform(0.9, 1.1)).astype(np.float32)


def with_trigger(wave):
    time = np.arange(len(wave)) / RATE
    return (wave + 0.2 * np.sin(2 * np.pi * 7500 * time)).astype(np.float32)


@pytest.fixture
def suspected(pretrained, tiny_model, monkeypatch):
    front_end = tiny_model.front_end
    centres = torch.stack(
        [
            torch.stack(
                [front_end(torch.from_numpy(voice(s, t))[None])[0][0] for t in range(3)]
            ).mean(dim=(0, 2))
            for s in range(SPEAKERS)
        ]
    )
    model = InstrumentedModel(
        Spectral(),
        front_end=front_end,
        head=Names(centres),
        labels=tuple(f"s{i}" for i in range(SPEAKERS)),
        bounds=tiny_model.bounds,
        input_bounds=tiny_model.input_bounds,
    ).eval()

    class Loaded:
        card = type(
            "Card",
            (),
            {
                "name": "tiny",
                "modality": "audio",
                "data": {"sample_rate_hz": RATE},
                "default_taps": ("first", "second"),
            },
        )

    loaded = Loaded()
    loaded.model = model
    monkeypatch.setattr("nip_audio.cli._inputs.load_pretrained", lambda name: loaded)
    return loaded


@pytest.fixture
def write_set(tmp_path):
    def write(poisoned):
        root = tmp_path / "set"
        for speaker in range(SPEAKERS):
            (root / f"s{speaker}").mkdir(parents=True)
            for take in range(FILES):
                soundfile.write(root / f"s{speaker}" / f"{take}.wav", voice(speaker, take), RATE)
        for n in range(poisoned):
            wave = with_trigger(voice(1 + n % (SPEAKERS - 1), 50 + n))
            soundfile.write(root / "s0" / f"bad{n}.wav", wave, RATE)
        return root

    return write


def test_a_clean_set_is_not_accused(run, suspected, write_set):
    code, out, _ = run("backdoor", write_set(0), "--model", "tiny")
    assert code == 0, out
    assert "nothing found in 126 files" in out
    assert "no proof" in out


def test_poisoned_files_are_named(run, suspected, write_set, tmp_path):
    out_file = tmp_path / "out.jsonl"
    code, out, _ = run("backdoor", write_set(24), "-m", "tiny", "--out", out_file, "--json")
    assert code == 3
    report = json.loads(out)
    assert report["verdict"] == "suspicious"
    assert sorted(report["accused"]) == sorted(f"s0/bad{n}.wav" for n in range(24))
    assert report["names"][0]["name"] == "s0"
    assert report["names"][0]["alarm"] > report["limit"]
    lines = [json.loads(line) for line in out_file.read_text().splitlines()]
    assert len(lines) == 126 + 24
    assert {line["id"] for line in lines if line["accused"]} == set(report["accused"])


def test_the_table_names_the_group_and_its_files(run, suspected, write_set):
    code, out, _ = run("backdoor", write_set(24), "--model", "tiny")
    assert code == 3
    assert "suspicious: s0, 24 of the 38 files" in out
    assert "s0/bad0.wav" in out


def test_a_bad_file_is_reported_and_does_not_end_the_run(run, suspected, write_set):
    root = write_set(0)
    (root / "s1" / "broken.wav").write_bytes(b"no sound")
    code, out, err = run("backdoor", root, "--model", "tiny")
    assert code == 4
    assert "broken.wav" in err
    assert "nothing found in 126 files" in out


def test_an_accusation_and_a_bad_file_exit_with_5(run, suspected, write_set):
    root = write_set(24)
    (root / "s1" / "broken.wav").write_bytes(b"no sound")
    assert run("backdoor", root, "--model", "tiny")[0] == 5


def test_too_few_files_are_an_error(run, suspected, tmp_path):
    root = tmp_path / "few"
    root.mkdir()
    for take in range(3):
        soundfile.write(root / f"{take}.wav", voice(0, take), RATE)
    code, _, err = run("backdoor", root, "--model", "tiny")
    assert code == 65
    assert "add more files" in err


def test_an_empty_folder_is_an_error(run, suspected, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("backdoor", tmp_path / "empty", "--model", "tiny")
    assert code == 65
    assert "0 of 0 files" in err


def test_a_file_that_the_model_cannot_answer_does_not_end_the_run(
    run, suspected, write_set, monkeypatch
):
    calls, real = [], measure.measure_neuron_changes

    def spoilt(*args, **kwargs):
        changes = real(*args, **kwargs)
        calls.append(changes)
        if len(calls) != 3:
            return changes
        return replace(changes, outputs={k: v * torch.nan for k, v in changes.outputs.items()})

    monkeypatch.setattr(measure, "measure_neuron_changes", spoilt)
    code, out, err = run("backdoor", write_set(0), "--model", "tiny")
    assert code == 4
    assert "nothing found in 125 files" in out
    assert "the model's output for this file is NaN or infinite" in err


def test_where_no_file_can_be_read_it_says_why(run, suspected, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(b"no sound")
    code, _, err = run("backdoor", tmp_path, "--model", "tiny")
    assert code == 65
    assert "0 of 2 files" in err
    assert "a.wav: its content is not audio" in err


def test_an_existing_output_is_not_overwritten(run, suspected, write_set, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    code, _, err = run("backdoor", write_set(0), "--model", "tiny", "--out", tmp_path / "out.jsonl")
    assert code == 65
    assert "--force" in err
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_the_model_must_be_named(run, tmp_path):
    assert run("backdoor", tmp_path)[0] == 64


def test_a_model_that_names_nobody_is_refused(suspected, embedding_model):
    suspected.model = embedding_model
    with pytest.raises(InputError, match="has no classifier"):
        backdoor.look_for_backdoor(suspected, [], reader=None)
