"""Attacks on enrolment, and attackers who do not know the threshold."""

from __future__ import annotations

import json

import pytest
import torch

from nip_audio import read_audio
from nip_audio.models.enrolment import Enrolment, embed_audio

EPS = 0.02


@pytest.fixture
def files(clean_folder):
    """Two recordings of each of the first two speakers."""
    folders = sorted(path for path in clean_folder.iterdir() if path.is_dir())[:2]
    return [sorted(folder.glob("*.wav"))[:2] for folder in folders]


def between(pretrained, first, second) -> float:
    """Cosine of two recordings, read from their files."""
    voices = [embed_audio(pretrained, read_audio(path).samples) for path in (first, second)]
    return float(voices[0] @ voices[1])


def test_the_copy_is_enrolled_and_an_impostors_probe_is_accepted(run, files, pretrained, tmp_path):
    (own, _), (probe, _) = files
    threshold = between(pretrained, own, probe) + 0.02
    code, out, err = run(
        *("attack", own, "--probe", probe, "--goal", "accept", "--threshold", threshold),
        *("--eps", EPS, "--out", tmp_path, "--json"),
    )
    assert code == 0, err
    (done,) = json.loads(out)["written"]
    assert done["fools"]
    assert done["aim"] == f"{probe.name} accepted as the voice enrolled from the copy"
    assert done["score_before"] == pytest.approx(between(pretrained, own, probe), abs=1e-4)
    after = between(pretrained, done["written"], probe)
    assert done["score_after"] == pytest.approx(after, abs=1e-4)
    assert after >= threshold


def test_the_copy_replaces_the_recording_among_those_of_the_speaker(
    run, files, pretrained, enrolment, tmp_path
):
    (own, _), (probe, _) = files
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id)
    speaker = own.parent.name
    heard = embed_audio(pretrained, read_audio(probe).samples)
    # the recording itself is enrolled already, so the score before is that of the enrolled voice
    voice = torch.nn.functional.normalize(voices.voice(speaker), dim=0)
    code, out, err = run(
        *("attack", own, "--probe", probe, "--goal", "accept", "--threshold", 0.9),
        *("--enrolment", enrolment, "--speaker", speaker, "--out", tmp_path / "o", "--json"),
        *("--set", "steps=1"),
    )
    assert code == 0, err
    (done,) = json.loads(out)["written"]
    assert done["aim"] == f"{probe.name} accepted as {speaker}, enrolled with the copy"
    assert done["score_before"] == pytest.approx(float(voice @ heard), abs=1e-4)


def test_the_own_probe_is_rejected(run, files, pretrained, tmp_path):
    (own, probe), _ = files
    threshold = between(pretrained, own, probe) - 0.02
    code, out, err = run(
        *("attack", own, "--probe", probe, "--threshold", threshold, "--eps", EPS),
        *("--out", tmp_path, "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["written"][0]["fools"]


def test_the_threshold_is_estimated_and_its_queries_are_reported(
    run, files, pretrained, enrolment, tmp_path
):
    (own, _), (other, _) = files
    speaker = own.parent.name
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id)
    voice = torch.nn.functional.normalize(voices.voice(speaker), dim=0)
    score = float(embed_audio(pretrained, read_audio(other).samples) @ voice)
    threshold = score + 0.005
    given = ("attack", other, "--enrolment", enrolment, "--speaker", speaker, "--goal", "accept")
    given = (*given, "--threshold", threshold, "--estimate-threshold")
    code, out, err = run(*given, "--out", tmp_path / "a", "--json")
    assert code == 0, err
    found = json.loads(out)
    estimate, (done,) = found["threshold_estimate"], found["written"]
    assert threshold <= estimate["score"] < threshold + 0.1
    assert estimate["recording"] == str(other)
    # one query to score the recording, then 50 for each gradient and one for each step
    assert estimate["queries"] > 51
    assert (estimate["queries"] - 2) % 51 == 0
    assert done["attack"]["threshold_estimate"] == estimate
    assert done["threshold"] == pytest.approx(threshold, abs=1e-6)  # of the judgement: the true one
    code, out, _ = run(*given, "--out", tmp_path / "b")
    assert code == 0
    assert f"as {estimate['score']:.3f} in {estimate['queries']} queries" in " ".join(out.split())


def test_without_an_estimate_the_json_says_so(run, files, tmp_path):
    _, out, _ = run(
        "attack", files[0][0], "--threshold", 0.5, "--set", "steps=1", "--out", tmp_path, "--json"
    )
    assert json.loads(out)["threshold_estimate"] is None


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--estimate-threshold"], 65, "the goal is reject, expected accept"),
        (
            ["--goal", "accept", "-e", "VOICES", "-s", "OWN", "--estimate-threshold"],
            65,
            "of 1 recordings 0 are rejected",
        ),
        (["--target", "84", "--estimate-threshold"], 65, "expected accept"),
        (["--goal", "accept"], 65, "pass --enrolment and --speaker, or --probe"),
        (["--probe", "PROBE", "--target", "84"], 65, "excludes a target label"),
        (["--probe", "PROBE", "--goal", "misidentify"], 65, "excludes a target label"),
        (["--probe", "none.wav"], 65, "none.wav: it does not exist"),
        (["--probe", "PROBE", "-s", "OWN"], 65, "belong together"),
        (["--probe", "PROBE", "-e", "VOICES", "-s", "nobody"], 65, "'nobody' is not enrolled"),
    ],
)
def test_what_cannot_be_attacked_is_refused(run, files, enrolment, tmp_path, options, code, text):
    (own, probe), _ = files
    places = {"VOICES": enrolment, "OWN": own.parent.name, "PROBE": probe}
    words = [places.get(word, word) for word in options]
    found, _, err = run("attack", own, "--threshold", 0.3, "--out", tmp_path / "o", *words)
    assert found == code
    assert text in " ".join(err.split())
    assert not list(tmp_path.glob("o/*"))


def test_images_are_not_enrolled(run, picture_model, pictures, tmp_path):
    given = ("attack", pictures / "00.png", "--model", picture_model, "--out", tmp_path / "o")
    for option in (("--probe", pictures / "01.png"), ("--estimate-threshold",)):
        code, _, err = run(*given, *option)
        assert code == 65
        assert f"takes images and got {option[0]}" in " ".join(err.split())
