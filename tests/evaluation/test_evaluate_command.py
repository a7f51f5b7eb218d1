from __future__ import annotations

import json
from dataclasses import fields

import pytest

from nip_audio.cli import main
from nip_audio.evaluation.config import AttackPlan, EvaluationConfig, SystemPlan, read_config


def test_writes_everything_and_says_where(write_config, corpus, tmp_path, capsys):
    config = write_config(data={})
    places = ["--data-root", str(corpus), "--data-split", str(corpus / "split.csv")]
    out = tmp_path / "out"
    assert main(["evaluate", str(config), *places, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    names = ["results.json", "tables.md", "cells.csv", "success.png", "success.svg"]
    assert printed.split()[-len(names) :] == [str(out / name) for name in names]
    assert "Are the attacks sound?" in printed  # the tables themselves
    assert "fgsm" in printed.lower()
    assert all((out / name).stat().st_size > 0 for name in names)
    text = (out / "tables.md").read_text()
    for heading in ("# synthetic", "## x", "## Robust accuracy", "## Are the attacks sound?"):
        assert heading in text
    assert main(["evaluate", str(config), *places, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "results.json").read_text())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attacks": [{"attack": "pdg", "eps": [0.1]}]}, "no attack 'pdg'; did you mean pgd"),
        ({"attacks": [{"attack": "jsma"}]}, "jsma cannot work at level 'raw'"),
        ({"defences": ["nip"]}, "defence 'nip' is unknown"),
        ({"systems": {"x": {"model": "nobody", "subset": "voices"}}}, "no model 'nobody'"),
        ({"data": {}}, "no data.root; add it, or pass --data-root"),
    ],
)
def test_refuses_what_makes_no_sense(write_config, tmp_path, capsys, changes, text):
    assert main(["evaluate", str(write_config(**changes)), "--out", str(tmp_path / "o")]) == 65
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o" / "results.json").exists()


def test_detectors_need_calibration_clips(write_config, tmp_path, capsys):
    """Six clean clips give no threshold for a false-positive rate of 1 %."""
    config = write_config(detect=30)
    assert main(["evaluate", str(config), "--out", str(tmp_path / "o")]) == 65
    assert "clean files cannot give a false-positive rate" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_template_has_every_key_and_can_be_read(corpus, tmp_path, capsys):
    path = tmp_path / "first.yaml"
    assert main(["evaluate", str(path), "--init"]) == 0
    assert main(["evaluate", str(path), "--init"]) == 65
    assert "exists already" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--init", "--force"]) == 0
    plan = read_config(path, data_root=corpus, split=corpus / "split.csv")
    assert [system.name for system in plan.systems] == ["resnet34"]
    text = path.read_text(encoding="utf-8")
    every = text.replace("# ", "").split()
    for keys in (SystemPlan, AttackPlan, EvaluationConfig):
        names = {field.name for field in fields(keys)} - {"name", "data_root"}
        assert {f"{name}:" for name in names} <= set(every)


def test_explains_without_running(write_config, tmp_path, capsys):
    transfer = {"attack": "pgd", "eps": [0.001, 0.002], "protocol": "transfer", "source": "x"}
    systems = {
        "x": {"model": "xvector-libri251", "subset": "voices", "enrol": True},
        "y": {"model": "resnet34-libri30"},
    }
    attacks = [transfer, {"attack": "fgsm", "eps": [0.002], "items": 4}]
    config = write_config(
        systems=systems, attacks=attacks, defences=["guided", {"name": "quantization", "bits": 8}]
    )
    assert main(["evaluate", str(config), "--explain"]) == 0
    printed = capsys.readouterr().out
    assert (
        "pgd changes the waveform by ε 0.001, 0.002 of at most 50 clips for y, made on x: the"
        in (printed)
    )
    assert "quantization (bits=8)" in printed
    assert "4 sets of attacked clips" in printed
    assert main(["evaluate", str(config), "--explain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["systems"]["x"]["recordings"] == {"train": 12, "calibrate": 6, "test": 12}
    assert told["systems"]["x"]["speakers"] == "enrolled from role train"
    assert told["cells"] == 4
    assert main(["evaluate", str(config)]) == 65
    assert "got no --out" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_one_system_is_evaluated_and_its_attackers_may_know_another(write_config, tmp_path, capsys):
    own = {"model": "xvector-libri251", "subset": "voices", "enrol": True}
    transfer = {
        "attack": "fgsm",
        "eps": [0.002],
        "items": 2,
        "protocol": "transfer",
        "source": "x",
        "systems": ["y"],
    }
    config = str(write_config(systems={"x": own, "y": own}, attacks=[transfer]))
    out = tmp_path / "out"
    assert main(["evaluate", config, "--out", str(out), "--system", "z"]) == 65
    assert "there is no system 'z'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["evaluate", config, "--out", str(out), "--system", "y"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert list(results["systems"]) == ["y"]
    assert [(cell["system"], cell["source"]) for cell in results["cells"]] == [("y", "x")]
