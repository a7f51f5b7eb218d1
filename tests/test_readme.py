"""What the README says must work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nip_audio.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    own, same, attacked = eval(capsys.readouterr().out)
    assert own == pytest.approx(1.0, abs=0.01)
    assert same > 0.6
    assert attacked < 0.4


def test_every_command_it_names_exists(capsys):
    for command in set(re.findall(r"nip-audio ([\w-]+)", README)) - {"is"}:
        assert main([command, "--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_demo_finds_what_was_done_and_nothing_else(tmp_path):
    """`make demo` as a test: the answer key is the list of flagged files."""
    out = tmp_path / "report"
    assert main(["screen", str(ROOT / "examples/enrolment"), "--out", str(out)]) == 3
    lines = (ROOT / "examples/what_was_done.tsv").read_text(encoding="utf-8").splitlines()
    expected = {line.split("\t")[0] for line in lines}
    records = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    flagged = {
        re.search(r'"id": "([^"]+)"', r)[1] for r in records if '"verdict": "clean"' not in r
    }
    assert flagged == expected
