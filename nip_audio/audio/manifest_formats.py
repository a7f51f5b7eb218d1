"""Read manifests entry by entry; the format is detected by file name and content.

* CSV with ``ID``, ``wav``, ``spk_id`` and, optionally, ``start`` and ``stop`` in samples:
  SpeechBrain's (``speechbrain.dataio.dataio.load_data_csv``).
* CSV with ``path`` and, optionally, ``speaker``, ``id``, ``start_s``, ``end_s``; JSONL with the
  same names.
* JSON ``{id: {"wav": …, "spk_id": …}}``: SpeechBrain's (``load_data_json``); ``wav`` may be
  ``{"file": …, "start": …, "stop": …}``.
* JSONL of Lhotse cuts (``MonoCut``, lhotse.readthedocs.io, "Cuts"), plain or gzipped.

Nothing is guessed: an entry that fits no format, or several, is an error that names the line.
"""

from __future__ import annotations

import csv
import gzip
import math
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from nip_audio.audio.io import Seconds
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError

__all__ = ["Entry", "entries_of"]

_FORMATS = "a .csv, .json, .jsonl or .jsonl.gz manifest"
_MAX_BYTES = 1 << 30
_MAX_JSON_BYTES = 1 << 28  # a JSON file is read at once
_MAX_LINE_BYTES = 1 << 20
_MAX_ROWS = 2_000_000  # the largest public corpora have about a million recordings a manifest
_MAX_EXPANSION, _FREE_BYTES = 100, 1 << 24  # of a gzipped manifest, and what it may hold anyway

_SPEECHBRAIN = ("ID", "wav", "spk_id")
_UNCLEAR = ("start", "stop", "end", "offset")

Row = Mapping[str, Any]
Span = tuple[int, int] | Seconds | None


@dataclass(frozen=True)
class Entry:
    """One recording as a manifest describes it.

    Attributes:
        where: Position in the manifest, in words, such as ``line 3``.
        id: Name of the recording.
        place: Path or URL of the file, as written.
        speaker: Name of the speaker; None if the manifest does not say.
        span: Part of the file, in samples or ``Seconds``; None means the whole file.
    """

    where: str
    id: str
    place: str
    speaker: str | None
    span: Span


def entries_of(path: Path) -> Iterator[Entry]:
    """Yield the entries of a manifest.

    Raises:
        InputError: If the manifest cannot be read or has no known format, or an entry is invalid.
    """
    try:
        yield from _entries(path)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as err:
        raise InputError(f"{path} cannot be read as a manifest ({err}); restore it") from err


def _entries(path: Path) -> Iterator[Entry]:
    name = path.name.lower()
    reader: Callable[[Path], Iterator[tuple[str, Callable[[], Entry]]]]
    if name.endswith(".csv"):
        reader = _csv
    elif name.endswith((".jsonl", ".jsonl.gz")):
        reader = _jsonl
    elif name.endswith(".json"):
        reader = _json
    elif not path.exists():
        raise InputError(f"{path} does not exist, expected a folder or {_FORMATS}; check the path")
    else:
        raise InputError(f"{path} has no known format, expected {_FORMATS}; rename or convert it")
    empty = True
    for number, (where, entry) in enumerate(reader(path), start=1):
        empty = False
        if number > _MAX_ROWS:
            raise InputError(
                f"{path}, {where}: it lists more than {_MAX_ROWS:,} recordings, expected at most "
                "as many; split it"
            )
        try:
            yield replace(entry(), where=where)
        except ValueError as err:
            raise InputError(f"{path}, {where}: {err}") from err
    if empty:
        raise InputError(f"{path} has no rows, expected at least one recording; add one")


@contextmanager
def _opened(path: Path, most: int = _MAX_BYTES) -> Iterator[IO[bytes]]:
    """Open a manifest after checking that it is a file of bounded size."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a file, expected {_FORMATS}; check the path")
    if status.st_size > most:
        raise InputError(f"{path} has {status.st_size} bytes, expected at most {most}; split it")
    zipped = path.name.lower().endswith(".gz")
    with cast("IO[bytes]", gzip.open(path)) if zipped else path.open("rb") as file:
        yield file


# --- CSV ---


def _csv(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    with _opened(path):
        pass
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        columns = list(rows.fieldnames or [])
        make = _csv_kind(path, columns)
        for row in rows:
            yield f"line {rows.line_num}", lambda row=row: make(_whole_row(row))  # type: ignore[misc]


def _csv_kind(path: Path, columns: list[str]) -> Callable[[Row], Entry]:
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise InputError(f"{path}, line 1: column {', '.join(twice)} occurs twice; remove one")
    if not columns:
        raise InputError(
            f"{path} has no rows, expected a header and at least one recording; add them"
        )
    if set(_SPEECHBRAIN) <= set(columns) and "path" not in columns:
        return _speechbrain_row
    if "path" in columns and not set(_SPEECHBRAIN) & set(columns):
        return _plain
    missing = [c for c in _SPEECHBRAIN if c not in columns]
    problem = (
        f"lacks column {', '.join(missing)}" if missing else "mixes the columns of two formats"
    )
    raise InputError(
        f"{path} {problem}; expected SpeechBrain's columns ID, wav, spk_id (optional: start, stop "
        "in samples), or path (optional: speaker, id, start_s, end_s)"
    )


def _whole_row(row: dict[str | None, Any]) -> Row:
    if None in row:
        raise ValueError("it has more columns than the header; quote values that contain a comma")
    if None in row.values():
        raise ValueError("it has fewer columns than the header; add the missing values")
    return {str(name): value for name, value in row.items()}


def _speechbrain_row(row: Row) -> Entry:
    span = _samples(row.get("start"), row.get("stop"))
    return Entry("", _text(row, "ID"), _text(row, "wav"), _speaker(row, "spk_id"), span)


def _samples(start: Any, stop: Any) -> tuple[int, int] | None:
    if start in (None, "") and stop in (None, ""):
        return None
    try:
        if isinstance(start, float) or isinstance(stop, float):
            raise ValueError("not a whole number")
        return int(start), int(stop)
    except (TypeError, ValueError) as err:
        raise ValueError(
            f"start and stop are {start!r} and {stop!r}, expected whole numbers of samples; "
            "correct them"
        ) from err


# --- the columns path, speaker, …, in CSV and JSONL ---


def _plain(row: Row) -> Entry:
    unclear = [name for name in _UNCLEAR if name in row]
    if unclear:
        raise ValueError(f"{unclear[0]!r} has no unit; use start_s and end_s, in seconds")
    start, end = _number(row, "start_s"), _number(row, "end_s")
    span = None if start is None and end is None else Seconds(start or 0.0, end)
    place = _text(row, "path")
    name = _text(row, "id") if row.get("id") not in (None, "") else place
    return Entry("", name, place, _speaker(row, "speaker"), span)


# --- JSON ---


def _json(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    with _opened(path, _MAX_JSON_BYTES) as file:
        try:
            data = load_json(file.read())
        except ValueError as err:
            raise InputError(f"{path} is not valid JSON ({err}); correct it") from err
    if not isinstance(data, dict):
        raise InputError(
            f'{path} holds a {type(data).__name__}, expected SpeechBrain\'s {{id: {{"wav": …, '
            '"spk_id": …}}; for one object per line, name the file .jsonl'
        )
    for name, row in data.items():
        yield f"entry {name!r}", lambda name=name, row=row: _speechbrain_object(name, row)  # type: ignore[misc]


def _speechbrain_object(name: str, row: Any) -> Entry:
    if not isinstance(row, dict) or "wav" not in row or "spk_id" not in row:
        raise ValueError(
            'expected {"wav": …, "spk_id": …}; add them, with null for an unknown speaker'
        )
    wav, part = row["wav"], row
    if isinstance(wav, dict):
        part = wav
        if "file" not in wav:
            raise ValueError('a wav object needs "file"; name one file')
        wav = wav["file"]
    span = _samples(part.get("start"), part.get("stop"))
    return Entry(
        "", _text({"id": name}, "id"), _text({"wav": wav}, "wav"), _speaker(row, "spk_id"), span
    )


def _jsonl(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    with _opened(path) as file:
        make: Callable[[Row], Entry] | None = None
        total, number = 0, 0
        most = min(_MAX_BYTES, max(_FREE_BYTES, _MAX_EXPANSION * path.stat().st_size))
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            total += len(line)
            if len(line) > _MAX_LINE_BYTES or total > most:
                raise InputError(
                    f"{path}, line {number}: the line is longer than {_MAX_LINE_BYTES} bytes, or "
                    f"the file holds more than {most}; split it"
                )
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                row = load_json(line)
                made = _jsonl_kind(row)
                if make is not None and make is not made:
                    raise ValueError("it has another format than the lines above; split the file")
            except ValueError as err:
                raise InputError(f"{path}, {where}: {err}") from err
            make = made
            yield where, lambda row=row, make=made: make(row)  # type: ignore[misc]


def _jsonl_kind(row: Any) -> Callable[[Row], Entry]:
    if isinstance(row, dict):
        plain, cut = "path" in row, "recording" in row or "supervisions" in row
        if plain != cut:
            return _plain if plain else _cut
    raise ValueError(
        'it describes no recording, expected an object with "path" (optional: speaker, id, '
        "start_s, end_s), or a Lhotse cut"
    )


# --- Lhotse ---


def _cut(row: Row) -> Entry:
    kind = row.get("type", "MonoCut")
    if kind != "MonoCut":
        raise ValueError(
            f"the cut is a {kind!r}, expected MonoCut; save it as one channel of one file"
        )
    recording = row.get("recording")
    if not isinstance(recording, dict) or not isinstance(recording.get("sources"), list):
        raise ValueError("the cut has no recording with sources; save cuts with their recordings")
    if recording.get("transforms"):
        raise ValueError(
            "the recording has transforms, which are not applied; save the result as a file"
        )
    sources = recording["sources"]
    if len(sources) != 1 or not isinstance(sources[0], dict):
        raise ValueError(
            f"the recording has {len(sources)} sources, expected 1; merge them into one file"
        )
    source = sources[0]
    if source.get("type") not in ("file", "url"):
        raise ValueError(
            f"the source is a {source.get('type')!r}, expected file or url; commands are not run "
            "and archives not unpacked, so save the recordings as files"
        )
    channels = source.get("channels", [0])
    if not isinstance(channels, list) or len(channels) != 1:
        raise ValueError(f"the file has channels {channels!r}, expected one; save it as mono")
    start, duration = _number(row, "start") or 0.0, _number(row, "duration")
    if duration is None:
        raise ValueError("the cut has no duration; add it")
    whole = start == 0 and duration == recording.get("duration")
    return Entry(
        "",
        _text(row, "id"),
        _text(source, "source"),
        _cut_speaker(row.get("supervisions")),
        None if whole else Seconds(start, start + duration),
    )


def _cut_speaker(supervisions: Any) -> str | None:
    if supervisions is None:
        return None
    if not isinstance(supervisions, list) or not all(isinstance(s, dict) for s in supervisions):
        raise ValueError("supervisions must be a list of objects; correct it")
    speakers = {_speaker(supervision, "speaker") for supervision in supervisions}
    if len(speakers) > 1:
        raise ValueError(f"the cut has {len(speakers)} speakers, expected one; split it by speaker")
    return next(iter(speakers), None)


# --- values ---


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}, expected text; fill it in")
    return value


def _speaker(row: Row, name: str) -> str | None:
    return None if row.get(name) in (None, "") else _text(row, name)


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {value!r}, expected seconds ≥ 0; correct it")
    return number
