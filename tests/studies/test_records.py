"""Results are written from dataclasses, and read back strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from nip_audio.core.metrics import Interval
from studies._lib.records import plain, read_record
from studies._lib.tables import each, table


@dataclass(frozen=True)
class Cell:
    name: str
    share: Interval
    settings: Mapping[str, Any] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Study:
    count: int
    cells: Sequence[Cell]
    by_name: Mapping[str, Interval]


SHARE = Interval(1 / 3, 0.25, 0.5)
STUDY = Study(2, (Cell("a", SHARE), Cell("b", SHARE, {"steps": 3}, "late")), {"x": SHARE})


def test_what_is_written_is_read_back():
    written = plain(STUDY)
    share = {"value": 0.33333, "low": 0.25, "high": 0.5}
    assert written["cells"][0] == {"name": "a", "share": share, "settings": {}}
    assert plain(read_record(Study, written)) == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "2"}, "Study.count is a str"),
        ({"cells": [{"name": "a"}]}, "Study.cells has"),
        ({"other": 1}, "Study has"),
        ({"by_name": {"x": 0.5}}, "Study.by_name.x has"),
    ],
)
def test_other_structures_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read_record(Study, {**plain(STUDY), **change})


def test_columns_may_have_one_name():
    columns = {"n": str, **each({1: "plus", 2: " plus"}, lambda key, row: row + key)}
    assert table(columns, [1]) == "| n | plus | plus |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n"
