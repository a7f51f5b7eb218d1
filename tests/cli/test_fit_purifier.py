from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from nip_audio.cli._former import FORMER_OPTIONS, rewrite_former_options
from nip_audio.cli._settings import read_settings
from nip_audio.cli.fit_purifier import Method, settings_of
from nip_audio.purifiers import guided_training
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.training_attacks import FAMILIES
from nip_audio.workflows.clean_data import CROP_S
from nip_audio.workflows.fit import GUIDED_ON_IMAGES
from nip_audio.workflows.fit_settings import FIT_SETTINGS, GuidedFit


def setting(**values: object) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in ("--set", f"{key}={value}"))


QUICK = setting(steps=2, crop_s=0.5, batch_size=2)


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
        *("fit-purifier", clean_folder, "--out", out, *QUICK, *setting(adaptive="true"), "--json")
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
        *("fit-purifier", clean_folder, "--out", out, "--method", "pool"),
        *setting(candidates=12, crop_s=0.5, batch_size=8, quorum=0.3, front=4),
    )
    assert code == 0
    assert "pool purifier for xvector-libri251, fitted to 32 files" in text
    pool = NipPool.load(out, model=pretrained.model, model_id=pretrained.model_id)
    assert len(pool.order) == 12
    assert (pool.pool_settings.quorum, pool.pool_settings.front) == (0.3, 4)
    assert len(pool.seen) == 32


def test_class_neurons(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.neurons"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, "--method", "class-neurons"),
        *setting(share=0.5, crop_s=0.5, batch_size=256),
    )
    assert code == 0
    assert "class-neurons purifier for xvector-libri251, fitted to 32 files" in text
    selection = ClassNeurons.load(out, model_id=pretrained.model_id)
    assert selection.layers == pretrained.card.default_taps
    assert (selection.share, len(selection.seen)) == (0.5, 32)
    # who is never named keeps all neurons, who is keeps half
    kept = selection.selected["embedding"].double().mean(dim=1)
    assert set(kept.tolist()) == {0.5, 1.0}


def test_patch_dictionary(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.patches"
    code, text, _ = run(
        *("fit-purifier", clean_folder, "--out", out, "--method", "patch-dictionary"),
        *setting(atoms=64, crop_s=0.5, batch_size=256),
    )
    assert code == 0
    assert "patch-dictionary purifier for xvector-libri251, fitted to 32 files" in text
    bounds = pretrained.model.input_bounds
    coding = PatchDictionary.load(out, model_id=pretrained.model_id, bounds=bounds)
    assert (len(coding.dictionary), len(coding.seen)) == (64, 32)


def test_kinds_of_attacks_are_left_out(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.purifier"
    left_out = setting(leave_out="sparse,decision")
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
        (setting(steps=0), "steps is 0"),
        (setting(steps="many"), "steps is 'many', expected a whole number; write --set steps=900"),
        (setting(step=2), "guided has no setting step; did you mean steps"),
        (setting(candidates=2), "guided has no setting candidates; known: steps, adaptive"),
        (["--set", "steps"], "--set got 'steps', expected key=value"),
        (setting(steps=2) * 2, "--set got steps twice, expected each key once"),
        (setting(adaptive="perhaps"), "adaptive is 'perhaps', expected true or false"),
        (setting(eps="0.1"), "eps is '0.1', expected 2 numbers joined by commas or none"),
        (setting(eps="0.3,0.1"), "weakest ≤ strongest"),
        (setting(leave_out="sprase"), "did you mean sparse"),
        (setting(leave_out=",".join(FAMILIES)), "leaves no family of attacks"),
        (setting(noise=8), "noise is 8"),
        (setting(crop_s=0), "crop_s is 0.0, expected 0.05 to 3600"),
        (setting(snr_db="nan"), "snr_db is nan, expected -60 to 120"),
        (setting(batch_size=1), "batch_size is 1, expected 2 to 65536"),
        (["--method", "pool", *setting(sign="up")], "sign is 'up', expected paper or descent"),
        (
            ["--method", "class-neurons", "--from", "x"],
            "method class-neurons got x to start from, expected none",
        ),
    ],
)
def test_senseless_settings_are_refused(run, clean_folder, tmp_path, options, text):
    out = tmp_path / "my.purifier"
    code, _, err = run("fit-purifier", clean_folder, "--out", out, *options)
    assert code == 65
    assert text in " ".join(err.split())
    assert not out.exists()


def test_options_of_an_earlier_version_still_work(run, clean_folder, tmp_path, pretrained):
    out = tmp_path / "my.purifier"
    code, text, err = run(
        *("fit-purifier", clean_folder, "--out", out, "--steps=1", "--steps", 2, "--crop-s", 0.5),
        *("--batch-size", 2, "--snr-db", 15, "--adaptive", "--eps", 0.01, 0.05, "--json"),
        *("--input-weight", 3, "--noise", 0.01),
    )
    assert code == 0
    json.loads(text)
    assert "are options of version 0.1 and will be removed in the next version; write" in err
    assert "--set steps=2 --set crop_s=0.5" in err
    assert "--set adaptive=true --set eps=0.01,0.05" in err
    training = GuidedNip.load(out, model_id=pretrained.model_id).training
    assert (training["steps"], training["snr_db"], training["noise"]) == (2, 15.0, 0.01)
    assert (training["eps_input"], training["input_weight"]) == ([0.01, 0.05], 3.0)
    assert training["adaptive_share"] > 0


def test_every_former_option_is_a_setting():
    for name, option in FORMER_OPTIONS["fit-purifier"].items():
        methods = [m for m in Method if option.setting in {s.name for s in settings_of(m)}]
        assert methods, name
    given = ["x", "--leave-out", "sparse", "--leave-out=score", "--", "--steps", "2"]
    kept, (notice,) = rewrite_former_options("fit-purifier", given)
    assert kept == ["--set", "leave_out=sparse,score", "x", "--", "--steps", "2"]
    assert "--leave-out is an option of version 0.1" in notice
    assert rewrite_former_options("detect", ["--steps", "2"]) == (["--steps", "2"], [])


def test_an_interrupted_training_is_resumed_with_either_form_of_the_settings(
    run, clean_folder, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole.purifier", tmp_path / "parts.purifier"
    chosen = setting(steps=24, crop_s=0.3, batch_size=2)
    assert run("fit-purifier", clean_folder, "--out", whole, *chosen)[0] == 0

    def stop(self, path, model_id):
        keep(self, path, model_id)
        raise KeyboardInterrupt

    keep = guided_training._Training.keep
    with monkeypatch.context() as patched:
        patched.setattr(guided_training._Training, "keep", stop)
        assert run("fit-purifier", clean_folder, "--out", parts, *chosen)[0] == 130
    assert not parts.exists()
    assert (tmp_path / "parts.purifier.partial").exists()
    former = ("--steps", 24, "--crop-s", 0.3, "--batch-size", 2)
    code, _, err = run("fit-purifier", clean_folder, "--out", parts, "--steps", 25, *former[2:])
    assert code == 65
    assert "partial" in err
    assert run("fit-purifier", clean_folder, "--out", parts, *former)[0] == 0
    first, second = (GuidedNip.load(path) for path in (whole, parts))
    for name, value in first.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == [parts.name, whole.name]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--show-settings"], ("Settings of guided", "snr_db", "batch_size", "adaptive")),
        (["--show-settings", "--method", "pool"], ("Settings of pool", "quorum", "0.9", "descent")),
        (["--method", "patch-dictionary", "--show-settings"], ("patches_per_item", "200")),
    ],
)
def test_settings_are_listed(run, arguments, named):
    code, out, _ = run("fit-purifier", *arguments)
    assert code == 0
    assert [name for name in named if name not in out] == []


def test_what_the_descriptions_say_of_defaults_is_true():
    text = {one.name: one.text for one in settings_of(Method.GUIDED)}
    defaults = (GuidedSettings(), GUIDED_ON_IMAGES)
    shown = [tuple(f"{round(eps * 255)}/255" for eps in one.eps_input) for one in defaults]
    assert "none means {} and {}, for images {} and {}.".format(*shown[0], *shown[1]) in text["eps"]
    weights = [f"{one.input_weight:g}" for one in defaults]
    assert "none means {}, for images {}.".format(*weights) in text["input_weight"]
    assert f"none means {CROP_S:g} s" in text["crop_s"]
    assert [name for name in FAMILIES if name not in text["leave_out"]] == []
    assert GuidedFit(adaptive=True).training(GuidedSettings(), seed=0).adaptive_share == 0.75


@pytest.mark.parametrize("method", Method)
def test_every_setting_is_described_and_its_default_can_be_given(method):
    kind = FIT_SETTINGS[method]
    settings = settings_of(method)
    assert {one.name for one in settings} == {field.name for field in dataclasses.fields(kind)}
    assert all(one.text.endswith(".") for one in settings)
    given = [f"{one.name}={one.shown_default}" for one in settings]
    assert kind(**read_settings(given, settings, method)) == kind()
