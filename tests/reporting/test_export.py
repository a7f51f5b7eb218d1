"""Tables for other programs: everything is in them, and nothing in them is computed."""

from __future__ import annotations

import csv
import sys

import pytest

from nip_audio.errors import MissingDependencyError, ResumeError
from nip_audio.reporting.export import write_csv, write_parquet
from nip_audio.screening.records import ScreenRecord

FAILED = ScreenRecord(
    "broken.wav", None, "error", error={"code": "damaged", "found": "it ends early", "remedy": "-"}
)


def rows_of(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_a_file_with_its_numbers(write_run, record_of):
    alone = record_of("a.wav", None, 1.25, consistency=-0.5, duplicate_of=("b.wav", "c.wav"))
    flagged, failed = rows_of(write_csv(write_run([alone, FAILED])))
    assert float(flagged["distance"]) == 1.25
    assert float(flagged["consistency"]) == -0.5
    assert flagged["duplicate_of"] == "b.wav | c.wav"
    assert flagged["speaker"] == ""
    assert (failed["verdict"], failed["error"]) == ("error", "damaged")
    assert failed["why"].startswith("it ends early")
    assert failed["distance"] == ""


def test_no_cell_is_a_formula(write_run, hostile_records):
    rows = rows_of(write_csv(write_run(hostile_records)))
    assert len(rows) == len(hostile_records)
    for row in rows:
        for name in ("id", "speaker", "why"):
            assert row[name][0] not in "=+-@\t\r"
            assert row[name].isprintable()
    assert "'=HYPERLINK(1).wav/=HYPERLINK(1).wav" in {row["id"] for row in rows}


def test_parquet_has_lists_and_findings_as_such(write_run, hostile_names, hostile_records):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run = write_run([*hostile_records, FAILED])
    table = parquet.read_table(write_parquet(run))
    assert table.num_rows == len(hostile_records) + 1
    rows = table.to_pylist()
    assert rows[0]["id"] == f"{hostile_names[0]}/{hostile_names[0]}"
    assert rows[0]["changes"] == ["resampled"]
    assert rows[0]["findings"][0]["risk"] == "adversarial"
    assert rows[-1]["error"]["code"] == "damaged"
    assert rows[-1]["distance"] is None


def test_parquet_says_what_it_needs(write_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"\[parquet\]"):
        write_parquet(write_run([FAILED]))


def test_tables_of_an_unfinished_run_are_not_written(write_run):
    run = write_run([FAILED])
    (run.folder / "results.jsonl").write_text(FAILED.to_line() + "\n" + FAILED.to_line() + "\n")
    with pytest.raises(ResumeError, match="wait for the run to end, or screen"):
        write_csv(run)
    assert sorted(p.name for p in run.folder.glob("*.csv*")) == []
    assert sorted(p.name for p in run.folder.glob(".*")) == []
