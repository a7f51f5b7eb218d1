"""`make demo` as a test: what is found is held against the answer key."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo():
    path = ROOT / "examples/check_demo.py"
    spec = importlib.util.spec_from_file_location("check_demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_findings_agree_with_the_answer_key(demo, tmp_path, capfd):
    assert demo.main([str(tmp_path / "report")]) == 0
    assert (
        "The findings agree with the answer key; 16 other files are clean" in capfd.readouterr().out
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, "a.flac: attacked. Found: nothing"),
        ({"a.flac": "duplicate"}, "a.flac: attacked. Found: duplicate"),
        ({"a.flac": "adversarial", "b.flac": "damaged"}, "b.flac: nothing. Found: damaged"),
    ],
)
def test_any_difference_fails(demo, found, told, capsys):
    key = {"a.flac": ("adversarial", "attacked")}
    assert not demo.agree(key, found)
    assert told in capsys.readouterr().out


def test_what_agrees_passes(demo):
    assert demo.agree({"a.flac": ("adversarial", "attacked")}, {"a.flac": "adversarial"})
