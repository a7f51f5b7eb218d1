"""The cases of the hardening study are what they say, and its checks can fail."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from studies._lib.pages import RESULTS_FOLDER
from studies.hardening.cases import CASES, RATE, SPEAKERS, Case, Outcome, Speech


@pytest.fixture(scope="module")
def speech() -> Speech:
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(3 * RATE).clip(-3, 3) for _ in range(2 * SPEAKERS)]
    return Speech(clips, [0.9 * clip for clip in clips[:4]])


def outcome(folder, verdict: str, heard_s: float = 0.5, exit_code: int = 0) -> Outcome:
    record = {"verdict": verdict, "findings": [], "duration_s": heard_s, "speaker": "x"}
    return Outcome(folder, exit_code, [record], "")


ROOT = Path(__file__).parents[2]


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    kinds = json.loads((RESULTS_FOLDER / "hardening_kinds.json").read_text(encoding="utf-8"))
    named = [name.partition("::") for row in kinds for name in row["tests"]]
    assert all(row["tests"] for row in kinds)
    missing = [n for path, _, n in named if n and n not in functions_of(path)]
    assert missing == []
    assert [path for path, _, _ in named if not (ROOT / path).is_file()] == []


def test_titles_differ():
    assert len({case.title for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_case_is_made_and_its_check_can_fail(case: Case, speech: Speech, tmp_path):
    case.make(tmp_path, speech)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    wrong = [outcome(tmp_path, "clean"), outcome(tmp_path, "adversarial", 9, 3)]
    (tmp_path / "RAN").touch()
    nothing = Outcome(tmp_path, 65, [], "")
    assert not all(case.is_right(one) for one in [*wrong, nothing])
    assert not case.is_right(nothing) or "exit code" in case.right


def test_a_header_may_say_less_than_the_file_holds(speech, tmp_path):
    case = next(case for case in CASES if case.title == "FLAC, stated length halved")
    case.make(tmp_path, speech)
    (path,) = tmp_path.iterdir()
    assert sf.info(path).frames == len(speech.clean[0]) // 2
    assert case.is_right(outcome(tmp_path, "clean", 3.0))
    assert case.is_right(outcome(tmp_path, "error", 0.0, 4))
    assert not case.is_right(outcome(tmp_path, "clean", 1.5))
