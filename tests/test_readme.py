"""What the README says must work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nip_audio.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_prints_what_stands_below_it(capsys, monkeypatch, tmp_path):
    (code, told) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)[0]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    number = re.compile(r"-?\d+\.\d\d")
    printed = capsys.readouterr().out
    assert number.sub("#", printed) == number.sub("#", told)
    found, expected = ([float(n) for n in number.findall(text)] for text in (printed, told))
    # two digits are shown, and an embedding goes through some 20 layers of float32
    assert found == pytest.approx(expected, abs=0.011)
    assert (tmp_path / "alba-3-purified.wav").is_file()


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_every_command_it_names_exists(capsys):
    for command in set(re.findall(r"nip-audio ([\w-]+)", README)) - {"is"}:
        assert main([command, "--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
