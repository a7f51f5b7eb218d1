"""The notebook runs as it is, on fewer recordings."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt

import nip_audio

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_notebook_screens_a_folder_and_draws(tmp_path, monkeypatch, capsys):
    for name in ("bruno/bruno-1.flac", "bruno/bruno-2.flac", "bruno/bruno-3.flac",
                 "edith/edith-1.flac", "edith/edith-2.flac"):  # fmt: skip
        path = tmp_path / "examples" / "enrolment" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / "enrolment" / name, path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setattr(nip_audio, "screen", functools.partial(nip_audio.screen, workers=1))
    notebook = json.loads((EXAMPLES / "screen_a_folder.ipynb").read_text(encoding="utf-8"))
    cells = [one for one in notebook["cells"] if one["cell_type"] == "code"]
    assert all(one["outputs"] == [] for one in cells), "clear the outputs: they become untrue"
    space: dict[str, object] = {}
    try:
        for cell in cells:
            exec("".join(cell["source"]), space)  # noqa: S102
        assert len(plt.get_fignums()) == 3
    finally:
        plt.close("all")
    told = capsys.readouterr().out
    assert "{'clean': 5}" in told
    assert "bruno: enrol: 3 usable recordings" in told
    assert "edith: record more: 2 usable recordings" in told
