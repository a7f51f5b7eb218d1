from __future__ import annotations

import json

import pytest

from nip_audio.cli import main


def test_writes_everything_and_says_where(write_config, corpus, tmp_path, capsys):
    config = write_config(data={})
    places = ["--data-root", str(corpus), "--data-split", str(corpus / "split.csv")]
    out = tmp_path / "out"
    assert main(["evaluate", str(config), *places, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.split()
    names = ["results.json", "tables.md", "cells.csv", "success.png", "success.svg"]
    assert printed == [str(out / name) for name in names]
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
