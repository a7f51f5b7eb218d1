"""Which findings need a person: new ones, of the verdicts asked for, and not accepted."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from nip_audio.errors import InputError
from nip_audio.screening.records import Finding, ScreenRecord, Verdict
from nip_audio.screening.review import (
    Acceptance,
    read_accepted,
    read_known,
    review,
    verdicts_of,
    write_known,
)

TODAY = datetime.date(2027, 3, 1)
A, B = "a" * 64, "b" * 64


def record(name: str, *verdicts: Verdict, sha256: str | None = A) -> ScreenRecord:
    if verdicts == ("error",):
        error = {"code": "empty", "found": "", "remedy": ""}
        return ScreenRecord(name, "s", "error", error=error, sha256=None)
    found = (Finding.of(verdict, "odd") for verdict in verdicts)
    return ScreenRecord(name, "s", "clean", sha256=sha256).with_findings(*found)


def accept(name: str, *verdicts: Verdict, sha256: str = A, days: int = 0) -> Acceptance:
    return Acceptance(name, sha256, verdicts, "heard", TODAY + datetime.timedelta(days))


def ids(records: list[ScreenRecord]) -> list[str]:
    return [one.id for one in records]


def test_what_is_not_clean_is_open():
    found = review([record("a"), record("b", "adversarial"), record("c", "error")])
    assert ids(found.open) == ["b", "c"]
    assert (found.flagged, found.failed) == (1, 1)


def test_verdicts_that_were_not_asked_for_are_counted():
    records = [record("a", "adversarial"), record("b", "duplicate"), record("c", "error")]
    found = review(records, verdicts=verdicts_of("duplicate, error"))
    assert (ids(found.open), found.left_out) == (["b", "c"], 1)
    assert (found.flagged, found.failed) == (1, 1)


def test_an_acceptance_holds_until_its_last_day():
    records = [record("a", "inconsistent")]
    today = review(records, accepted=[accept("a", "inconsistent")], today=TODAY)
    assert (today.open, today.flagged) == ([], 0)
    assert today.to_json()["accepted"] == [
        {"id": "a", "sha256": A, "verdict": "inconsistent", "reason": "heard"}
        | {"until": "2027-03-01"}
    ]
    known = frozenset({("a", A, "inconsistent")})
    late = review(
        records, accepted=[accept("a", "inconsistent", days=-1)], known=known, today=TODAY
    )
    assert ids(late.open) == ids(late.expired) == ["a"]  # though it was told before


@pytest.mark.parametrize(
    "other",
    [
        record("a", "inconsistent", sha256=B),  # another content
        record("b", "inconsistent"),  # another place, such as another speaker's folder
        record("a", "adversarial"),
        record("a", "adversarial", "inconsistent"),
        record("a", "inconsistent", "damaged"),  # something else is found in it
        record("a", "inconsistent", sha256=None),
    ],
)
def test_an_acceptance_holds_for_nothing_else(other):
    found = review([other], accepted=[accept("a", "inconsistent")], today=TODAY)
    assert (ids(found.open), found.accepted) == ([other.id], [])


def test_what_was_told_is_not_told_again(tmp_path):
    path = tmp_path / "known.json"
    assert read_known(path) == frozenset()
    first = [record("a", "damaged"), record("b", "adversarial"), record("c", "error")]
    write_known(path, review(first, verdicts=("damaged", "error")))
    again = [*first, record("d", "damaged"), record("a", "damaged", sha256=B)]
    found = review(again, known=read_known(path))
    assert [(one.id, one.sha256) for one in found.open] == [("b", A), ("d", A), ("a", B)]
    assert ids(found.known) == ["a", "c"]
    write_known(path, found)
    assert review(again, known=read_known(path)).open == []


def test_a_damaged_list_of_what_was_told_is_an_error(tmp_path):
    for text in ("[", '[["a"]]', "{}x", "3"):
        (tmp_path / "known.json").write_text(text)
        with pytest.raises(InputError, match="known.json is damaged .*; delete it"):
            read_known(tmp_path / "known.json")


def test_unknown_verdicts_are_refused():
    assert verdicts_of("error,adversarial") == ("adversarial", "error")
    for text in ("adversial", "clean", "", " , "):
        with pytest.raises(InputError, match="expected some of adversarial, poisoned"):
            verdicts_of(text)


GOOD = {
    "id": '"a"',
    "sha256": f'"{A}"',
    "verdicts": '["damaged"]',
    "reason": '"fine"',
    "until": "2027-03-01",
}


def write(tmp_path: Path, **changes: str) -> Path:
    path = tmp_path / "accepted.toml"
    rows = (f"{k} = {v}" for k, v in (GOOD | changes).items() if v)
    path.write_text("[[accepted]]\n" + "\n".join(rows) + "\n")
    return path


def test_acceptances_are_read(tmp_path):
    assert read_accepted(write(tmp_path)) == (Acceptance("a", A, ("damaged",), "fine", TODAY),)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reason": ""}, "acceptance 1 has id, sha256, until, verdicts, expected id, sha256"),
        ({"reason": '" "'}, "has no reason"),
        ({"sha256": '"abc"'}, "expected the 64 digits"),
        ({"verdicts": '"damaged"'}, "expected a list of adversarial"),
        ({"verdicts": '["clean"]'}, "expected a list of adversarial"),
        ({"verdicts": "[]"}, "expected a list of adversarial"),
        ({"until": '"2027-03-01"'}, "expected a date such as 2027-03-31, without quotes"),
        ({"until": "2027-03-01T00:00:00"}, "expected a date"),
        ({"id": "3"}, "has the id 3"),
        ({"who": '"me"'}, "has id, reason, sha256, until, verdicts, who, expected"),
        ({"reason": '"'}, "cannot be read as TOML"),
    ],
)
def test_incomplete_acceptances_are_errors(tmp_path, changes, match):
    with pytest.raises(InputError, match=match):
        read_accepted(write(tmp_path, **changes))


def test_acceptances_do_not_lie_with_what_is_screened(tmp_path):
    path = write(tmp_path)
    with pytest.raises(InputError, match="lies in the folder that is screened"):
        read_accepted(path, outside=tmp_path)
    assert read_accepted(path, outside=tmp_path / "voices")
    (tmp_path / "link.toml").symlink_to(path)
    with pytest.raises(InputError, match="lies in the folder that is screened"):
        read_accepted(tmp_path / "link.toml", outside=tmp_path)
    with pytest.raises(InputError, match="is no file of at most"):
        read_accepted(tmp_path)
    path.write_text("[accepted]\n")
    with pytest.raises(InputError, match=r"expected tables named \[\[accepted\]\]"):
        read_accepted(path)
