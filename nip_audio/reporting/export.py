"""Write the records of a run as CSV for spreadsheets and as Parquet for data frames."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nip_audio.errors import MissingDependencyError
from nip_audio.reporting.escaping import csv_text
from nip_audio.reporting.files import replacing
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.details import names_of
from nip_audio.screening.records import ScreenRecord

__all__ = ["CSV_NAME", "PARQUET_NAME", "write_csv", "write_parquet"]

CSV_NAME = "results.csv"
PARQUET_NAME = "results.parquet"

_TEXTS = ("id", "speaker", "verdict", "encoding", "sha256")
_NUMBERS = ("distance", "distance_threshold", "p_value", "q_value")
_LISTS = ("changes", "duplicate_of")
_FINDING = ("risk", "why", "remedy")
_ERROR = ("code", "found", "remedy")
_BATCH = 2000


def write_csv(run: ScreenedRun) -> Path:
    """Write results.csv with one line per file, safe to open in a spreadsheet.

    The items of a list are separated by `` | ``. Text is that of results.jsonl, except that
    characters that do not print are escaped and text that looks like a formula is quoted.

    Raises:
        ResumeError: If a line of results.jsonl is not a record, or there are not as many records
            as the summary counts.
        OutputError: If the file cannot be written.
    """
    path = run.folder / CSV_NAME
    with (
        replacing(path) as part,
        # without the byte-order mark, spreadsheets assume another encoding
        part.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        texts, numbers, counts = _columns(run)
        plain = (*texts, *numbers, *counts)
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow((*plain, *_LISTS, "why", "error"))
        writer.writerows(_csv_row(record, plain) for record in run.files())
    return path


def _columns(run: ScreenedRun) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names of the text, number and integer fields of a run's records."""
    details = run.kind.details
    texts, numbers = (*_TEXTS, *names_of(details, str)), (*_NUMBERS, *names_of(details, float))
    return texts, numbers, names_of(details, int)


def _csv_row(record: ScreenRecord, names: Sequence[str]) -> list[Any]:
    plain = record.to_json()
    error = None if record.error is None else record.error["code"]
    lists = [" | ".join(plain[name]) for name in _LISTS]
    row = [*(plain[name] for name in names), *lists]
    return [
        csv_text(cell) if isinstance(cell, str) else cell
        for cell in (*row, " | ".join(record.why), error)
    ]


def write_parquet(run: ScreenedRun) -> Path:
    """Write results.parquet with the fields of results.jsonl, nested lists included.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        ResumeError: If a line of results.jsonl is not a record, or there are not as many records
            as the summary counts.
        OutputError: If the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as err:
        raise MissingDependencyError("Parquet needs pyarrow", extra="parquet") from err
    text = pyarrow.string()

    def of_texts(names: tuple[str, ...]) -> Any:
        return pyarrow.struct([(name, text) for name in names])

    texts, numbers, counts = _columns(run)
    schema = pyarrow.schema(
        [
            *((name, text) for name in texts),
            *((name, pyarrow.float64()) for name in numbers),
            *((name, pyarrow.int64()) for name in counts),
            *((name, pyarrow.list_(text)) for name in _LISTS),
            ("findings", pyarrow.list_(of_texts(_FINDING))),
            ("error", of_texts(_ERROR)),
        ]
    )
    path = run.folder / PARQUET_NAME
    with replacing(path) as part, parquet.ParquetWriter(str(part), schema) as writer:
        for rows in _batches(run):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return path


def _batches(run: ScreenedRun) -> Iterator[list[dict[str, Any]]]:
    records = run.files()
    while batch := list(islice(records, _BATCH)):
        yield [_encodable(record.to_json()) for record in batch]


def _encodable(value: Any) -> Any:
    """Escape bytes of a file name that cannot be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value
