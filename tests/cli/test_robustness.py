"""``nip-audio robustness``: the table, the JSON, the picture, and every failing exit."""

from __future__ import annotations

import json

import pytest

from nip_audio import read_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import nccr_scalar
from nip_audio.evaluation.robustness import DEFAULT_NOISE
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.measure import noise_generator


@pytest.fixture
def few(folder):
    """Four of the recordings."""
    for path in sorted(folder.rglob("*.wav"))[3:]:
        path.unlink()
    return folder


def test_ranks_models_of_one_front_end_and_draws_them(run, few, tmp_path):
    models = ("resnet34-libri30", "deep-speaker-libri30")
    arguments = ["robustness", *models, "--data", few, "--draws", 2, "--plot", tmp_path / "b.png"]
    code, out, err = run(*arguments)
    assert code == 0
    assert out.count("resnet34-libri30") == out.count("deep-speaker-libri30") == 2
    assert "NCCR, last tap, 4 files" in out
    assert "the architectures differ" in err
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run(*arguments)
    assert code == 65
    assert "--force" in err
    assert run(*arguments, "--force")[0] == 0


def test_json_has_the_rank_and_every_file(run, few):
    code, out, _ = run(
        "robustness", "resnet34-libri30", "--data", few, "--draws", 2, "--layer", "stem_pool",
        "--noise", "gaussian", "--level", "raw", "--scale", "0.002", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert found["noise"] == "gaussian@raw 0.002"
    assert len(found["files"]) == 4
    ((layer, (row,)),) = found["layers"].items()
    assert (layer, row["layer"], row["rank"], row["p_next"]) == ("stem_pool", "stem_pool", 1, None)
    assert row["mean"]["value"] == pytest.approx(sum(row["nccr"]) / 4, abs=1e-5)


def test_the_number_of_a_file_is_the_papers_scalar(run, few):
    code, out, _ = run(
        "robustness", "resnet34-libri30", "--data", few, "--draws", 3, "--layer", "stem_pool",
        "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    model = load_pretrained("resnet34-libri30").model
    for name, measured in zip(found["files"], found["layers"]["stem_pool"][0]["nccr"], strict=True):
        audio = read_audio(few / name)
        expected = nccr_scalar(
            model,
            Batch(audio.samples[None]),
            layer="stem_pool",
            noise=DEFAULT_NOISE,
            draws=3,
            generator=noise_generator(0, audio.content_sha256),
        )
        assert measured == pytest.approx(expected, abs=1e-6)  # the JSON has six digits


def test_a_bad_file_is_reported_and_exits_with_4(run, few):
    (few / "s0/[bold]broken.wav").write_text("no audio")
    code, out, err = run("robustness", "resnet34-libri30", "--data", few, "--draws", 1)
    assert code == 4
    assert "4 files" in out
    assert "skipped: " in err
    assert "[bold]broken.wav" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resnet34-libri30", "audionet-libri251"], "in their inputs is not the same noise"),
        (["resnet34-libri30", "resnet34-libri30"], "none twice"),
        (["resnet43"], "no model 'resnet43'"),
        (["resnet34-libri30", "--scale", "0"], "scale > 0"),
        (
            ["resnet34-libri30", "--noise", "mask", "--level", "raw"],
            "is at level 'raw', expected 'input'",
        ),
        (["resnet34-libri30", "--layer", "pol"], "layer 'pol' does not exist"),
        (["resnet34-libri30", "--draws", "0"], "NCCR needs at least one of each"),
    ],
)
def test_what_cannot_be_compared_exits_with_65(run, few, arguments, text):
    code, out, err = run("robustness", *arguments, "--data", few)
    assert code == 65
    assert out == ""
    assert text in err


def test_no_audio_exits_with_65(run, tmp_path):
    code, _, err = run("robustness", "resnet34-libri30", "--data", tmp_path)
    assert code == 65
    assert "0 files could be measured" in err


@pytest.mark.parametrize(
    "arguments", [["m"], ["--data", "x"], ["m", "--data", "x", "--noise", "n"]]
)
def test_wrong_usage_exits_with_64(run, arguments):
    assert run("robustness", *arguments)[0] == 64
