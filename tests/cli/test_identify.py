from __future__ import annotations

import json

import pytest
import soundfile

MODEL = ("--model", "xvector-libri251")


@pytest.fixture
def two_files(voice, tmp_path):
    paths = []
    for speaker in range(2):
        paths.append(tmp_path / f"[b]{speaker}.wav")
        soundfile.write(paths[-1], voice(speaker, 0), 16000)
    return paths


def test_ranks_the_models_speakers_for_each_file(run, two_files, pretrained):
    code, out, _ = run("identify", *two_files, *MODEL, "--top", 2, "--json")
    assert code == 0
    first, second = json.loads(out)
    assert [first["file"], second["file"]] == [str(path) for path in two_files]
    assert first["error"] is None
    best, other = first["candidates"]
    assert best["score"] >= other["score"]
    assert best["speaker"] in pretrained.card.labels
    text = run("identify", *two_files, *MODEL)[1]
    assert f"{two_files[0]}: {best['speaker']} {best['posterior']:.0%}" in text


def test_a_bad_file_does_not_end_the_run(run, two_files, tmp_path):
    code, out, err = run("identify", tmp_path / "no.wav", two_files[0], *MODEL, "--json")
    assert code == 4
    missing, good = json.loads(out)
    assert missing["error"]["code"] == "missing"
    assert missing["candidates"] == []
    assert len(good["candidates"]) == 3
    assert "no.wav" in err


def test_needs_a_model_and_a_sensible_number(run, two_files):
    assert run("identify", two_files[0])[0] == 64
    assert run("identify", two_files[0], *MODEL, "--top", 0)[0] == 64
