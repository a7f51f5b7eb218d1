"""The cases of the hardening study are what they say, and its checks can fail."""

import numpy as np
import pytest
import soundfile as sf

from studies.hardening.cases import CASES, RATE, SPEAKERS, Case, Outcome, Speech


@pytest.fixture(scope="module")
def speech() -> Speech:
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(3 * RATE).clip(-3, 3) for _ in range(2 * SPEAKERS)]
    return Speech(clips, [0.9 * clip for clip in clips[:4]])


def outcome(folder, verdict: str, heard_s: float = 0.5, exit_code: int = 0) -> Outcome:
    record = {"verdict": verdict, "findings": [], "duration_s": heard_s, "speaker": "x"}
    return Outcome(folder, exit_code, [record], "")


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
