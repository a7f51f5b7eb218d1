from __future__ import annotations

import json

import pytest
import soundfile
import torch

from nip_audio import read_audio
from nip_audio.models.enrolment import Enrolment, embed_audio

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


@pytest.fixture
def enrolled(clean_folder, pretrained, enrolment):
    """A recording of an enrolled speaker, its speaker, and its cosine to the enrolled voice."""
    file = next(clean_folder.rglob("*.wav"))
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id)
    voice = torch.nn.functional.normalize(voices.voice(file.parent.name), dim=0)
    score = float(embed_audio(pretrained, read_audio(file).samples) @ voice)
    return file, file.parent.name, score


def test_an_enrolled_speaker_is_identified_or_none_of_them(run, enrolled, enrolment):
    file, speaker, score = enrolled
    given = ("identify", file, *MODEL, "--enrolment", enrolment)
    code, out, _ = run(*given, "--threshold", score - 0.01, "--top", 2, "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert found["speaker"] == speaker
    assert found["candidates"][0]["cosine"] == pytest.approx(score, abs=1e-4)
    assert found["candidates"][0]["cosine"] >= found["candidates"][1]["cosine"]
    assert found["error"] is None
    code, out, _ = run(*given, "--threshold", score + 0.01, "--json")
    assert code == 3
    (found,) = json.loads(out)
    assert found["speaker"] is None
    assert found["candidates"][0]["speaker"] == speaker
    code, out, _ = run(*given, "--threshold", score + 0.01)
    assert code == 3
    assert "none of the" in out
    assert f"cosine {speaker} {score:.3f}" in out


def test_open_set_with_a_file_that_cannot_be_read(run, enrolled, enrolment, tmp_path):
    file, _, score = enrolled
    given = ("identify", tmp_path / "no.wav", file, *MODEL, "--enrolment", enrolment, "--json")
    code, out, _ = run(*given, "--threshold", score - 0.01)
    assert code == 4
    missing, good = json.loads(out)
    assert missing.keys() == {"file", "candidates", "error"}
    assert good["speaker"] is not None
    assert run(*given, "--threshold", 1.01)[0] == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--threshold", "0.4"], "got --threshold without --enrolment"),
        (["--plda", "x"], "got --plda without --enrolment"),
        (["--enrolment", "VOICES", "--threshold", "nan"], "--threshold is nan, expected a finite"),
        (["--enrolment", "none.enrolment", "--threshold", "0.4"], "cannot be read"),
        (["--enrolment", "VOICES", "--plda", "none.plda"], "cannot be read"),
        (
            ["--enrolment", "VOICES", "--threshold", "0.4", "--model", "resnet34-libri30"],
            "was made for model",
        ),
    ],
)
def test_an_open_set_that_makes_no_sense_is_refused(run, two_files, enrolment, options, text):
    words = [enrolment if word == "VOICES" else word for word in options]
    code, _, err = run("identify", two_files[0], *MODEL, *words)
    assert code == 65
    assert text in " ".join(err.split())


def test_images_are_identified_in_a_closed_set_only(run, picture_model, pictures, enrolment):
    code, _, err = run(
        *("identify", pictures / "00.png", "--model", picture_model, "--enrolment", enrolment)
    )
    assert code == 65
    assert "takes images and got --enrolment" in " ".join(err.split())
