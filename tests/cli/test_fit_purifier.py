from __future__ import annotations

import json

import pytest

from nip_audio.purifiers.neuron_selecting import NeuronSelecting
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool
from nip_audio.purifiers.sparse_coding import StratifiedSparseCoding
from nip_audio.purifiers.training_attacks import FAMILIES

QUICK = ("--steps", 2, "--crop-s", 0.5, "--batch-size", 2)


def test_a_purifier_is_written_and_bound_to_the_model(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.purifier"
    code, text, _ = run("fit-purifier", clean_folder, "--out", out, *QUICK)
    assert code == 0
    assert "guided purifier for xvector-libri251, fitted to 32 files" in text
    assert len(GuidedNip.load(out, model_id=pretrained.model_id).seen) == 32
    assert list(tmp_path.iterdir()) == [out]  # nothing of the training is left


@pytest.mark.parametrize(("kept", "said"), [(0.1, True), (0.9, False)])
def test_one_that_does_not_defend_is_said_to_be_none(
    run, clean_folder, tmp_path, monkeypatch, kept, said
):
    class Fitted:
        def save(self, path, **kwargs):
            path.write_text("a purifier")

    def fit(*args, progress, **kwargs):
        progress(1, 0.5, kept)
        return Fitted()

    monkeypatch.setattr("nip_audio.workflows.fit.fit_guided", fit)
    code, _, err = run("fit-purifier", clean_folder, "--out", tmp_path / "p", *QUICK)
    assert code == 0
    assert (f"keeps its prediction on only {kept:.0%} of the last" in err) == said


def test_json_and_the_adaptive_training(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.purifier"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, *QUICK, "--adaptive", "--json")
    )
    assert code == 0
    facts = json.loads(text)
    assert (facts["files"], facts["method"]) == (32, "guided")
    assert 0 <= facts["kept"] <= 1
    assert facts["model_id"] == pretrained.model_id
    loaded = GuidedNip.load(out, model_id=pretrained.model_id)
    assert loaded.training["adaptive_share"] > 0


def test_the_published_pool(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.pool"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, "--method", "pool", "--candidates", 12),
        *("--crop-s", 0.5, "--batch-size", 8, "--quorum", 0.3),
    )
    assert code == 0
    assert "pool purifier for xvector-libri251, fitted to 32 files" in text
    pool = NipPool.load(out, model=pretrained.model, model_id=pretrained.model_id)
    assert len(pool.order) == 12
    assert len(pool.seen) == 32


def test_neuron_selecting(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.ns"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, "--method", "ns", "--share", 0.5),
        *("--crop-s", 0.5, "--batch-size", 256),
    )
    assert code == 0
    assert "ns purifier for xvector-libri251, fitted to 32 files" in text
    selection = NeuronSelecting.load(out, model_id=pretrained.model_id)
    assert selection.layers == pretrained.card.default_taps
    assert (selection.share, len(selection.seen)) == (0.5, 32)
    # who is never named keeps all neurons, who is keeps half
    kept = selection.selected["embedding"].double().mean(dim=1)
    assert set(kept.tolist()) == {0.5, 1.0}


def test_sparse_coding(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.stl"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, "--method", "stl"),
        *("--crop-s", 0.5, "--batch-size", 256),
    )
    assert code == 0
    assert "stl purifier for xvector-libri251, fitted to 32 files" in text
    bounds = pretrained.model.input_bounds
    coding = StratifiedSparseCoding.load(out, model_id=pretrained.model_id, bounds=bounds)
    assert (len(coding.dictionary), len(coding.seen)) == (128, 32)


def test_kinds_of_attacks_are_left_out(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.purifier"
    left_out = ("--leave-out", "sparse", "--leave-out", "decision")
    code, _, _ = run("fit-purifier", clean_folder, "--out", out, *QUICK, *left_out)
    assert code == 0
    loaded = GuidedNip.load(out, model_id=pretrained.model_id)
    assert set(loaded.training["families"]) == set(FAMILIES) - {"sparse", "decision"}
    assert loaded.name == "guided + sparse, decision left out"


def test_an_existing_file_is_refused_before_the_training(run, clean_folder, tmp_path):
    out = tmp_path / "my.purifier"
    out.write_text("mine")
    code, _, err = run("fit-purifier", clean_folder, "--out", out, *QUICK)
    assert code == 65
    assert "exists already; pass --force" in err
    assert "training" not in err
    assert out.read_text() == "mine"


def test_bad_files_are_named_and_the_exit_says_so(run, clean_folder, tmp_path, write_sound):
    write_sound("bad/broken.wav").write_bytes(b"RIFF")
    out = tmp_path / "my.purifier"
    code, _, err = run("fit-purifier", clean_folder, tmp_path / "bad", "--out", out, *QUICK)
    assert code == 4
    assert "skipped: " in err
    assert "broken.wav" in err
    assert out.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--steps", 0), "steps is 0"),
        (("--leave-out", "sprase"), "did you mean sparse"),
        ([o for f in FAMILIES for o in ("--leave-out", f)], "leaves no kind of attack"),
        (("--noise", 8), "noise is 8"),
        (("--crop-s", 0), "crop has 0"),
    ],
)
def test_senseless_options_are_refused(run, clean_folder, tmp_path, options, text):
    out = tmp_path / "my.purifier"
    code, _, err = run("fit-purifier", clean_folder, "--out", out, *QUICK, *options)
    assert code == 65
    assert text in err
    assert not out.exists()
