"""Read manifests entry by entry; the format is detected by file name and content.

* CSV with ``ID``, ``wav``, ``spk_id`` and, optionally, ``start`` and ``stop`` in samples:
  SpeechBrain's (``speechbrain.dataio.dataio.load_data_csv``).
* CSV with ``ID``, ``path``, ``spk`` and, optionally, ``start`` and ``stop`` in seconds:
  3D-Speaker's (``egs/*/local/prepare_data_csv.py``).
* CSV with ``path`` and, optionally, ``speaker``, ``id``, ``start_s``, ``end_s``; JSONL with the
  same names.
* JSON ``{id: {"wav": …, "spk_id": …}}``: SpeechBrain's (``load_data_json``); ``wav`` may be
  ``{"file": …, "start": …, "stop": …}``.
* JSONL of Lhotse cuts (``MonoCut``, lhotse.readthedocs.io, "Cuts"), plain or gzipped.
* JSONL with ``audio_filepath`` and, optionally, ``offset``, ``duration`` and ``label``: NVIDIA
  NeMo's, whose files may end in ``.json``.
* Kaldi's ``wav.scp``, with ``utt2spk`` and ``segments`` beside it (kaldi-asr.org, "Data
  preparation"). Commands are not run.

All but cuts and Kaldi's may have ``channel``, the number of the channel to read, from 1, and tables
also ``condition``, such as a microphone or a line.

A table may be separated by commas, tabs or semicolons, which its header shows.
Nothing is guessed: an entry that fits no format, or several, is an error that names the line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import math
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from nip_audio.audio.archives import ARCHIVE_SUFFIXES
from nip_audio.audio.io import AUDIO_SUFFIXES, Seconds
from nip_audio.audio.names import one_spelling
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError

__all__ = ["Entry", "entries_of"]

_FORMATS = (
    "a .csv, .tsv, .json, .jsonl, .jsonl.gz or Kaldi .scp manifest, or a .zip, .tar or .tar.gz "
    "archive"
)
_MAX_BYTES = 1 << 30
_MAX_JSON_BYTES = 1 << 28  # a JSON file is read at once
_MAX_LINE_BYTES = 1 << 20
_MAX_ROWS = 2_000_000  # the largest public corpora have about a million recordings a manifest
_MAX_EXPANSION, _FREE_BYTES = 100, 1 << 24  # of a gzipped manifest, and what it may hold anyway

_SPEECHBRAIN = ("ID", "wav", "spk_id")
_3D_SPEAKER = ("ID", "path", "spk")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = (",", "\t", ";")
_ARCHIVES = (".tar.bz2", ".tar.xz", ".tar.zst", ".tbz2", ".txz", ".7z", ".rar")
_KALDI = ("utt2spk", "spk2utt", "segments", "text", "utt2dur")
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
        channel: Number of the channel to read, from 1; None if the manifest does not say.
        condition: Recording condition that the manifest names, one word; None if it names none.
    """

    where: str
    id: str
    place: str
    speaker: str | None
    span: Span
    channel: int | None = None
    condition: str | None = None


def entries_of(path: Path) -> Iterator[Entry]:
    """Yield the entries of a manifest.

    Raises:
        InputError: If the manifest cannot be read or has no known format, or an entry is invalid.
    """
    try:
        yield from _entries(path)
    except UnicodeDecodeError as err:
        raise InputError(
            f"{path} is not UTF-8 text (it holds the byte 0x{err.object[err.start]:02x}), as if "
            "saved as Latin-1 or Windows-1252; convert it, for example: iconv -f WINDOWS-1252 -t "
            f"UTF-8 {path.name} > utf8-{path.name}"
        ) from err
    except (OSError, EOFError, csv.Error, zlib.error) as err:
        raise InputError(f"{path} cannot be read as a manifest ({err}); restore it") from err


def _entries(path: Path) -> Iterator[Entry]:
    name = path.name.lower()
    reader: Callable[[Path], Iterator[tuple[str, Callable[[], Entry]]]]
    if name.endswith((".csv", ".tsv")):
        reader = _csv
    elif name.endswith(".scp"):
        reader = _scp
    elif name.endswith((".jsonl", ".jsonl.gz")):
        reader = _jsonl
    elif name.endswith(".json"):
        reader = _json
    else:
        raise InputError(f"{path} {_unknown(path)}")
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


def _unknown(path: Path) -> str:
    """Return what is wrong with a file of no known format, and what to do."""
    name = path.name.lower()
    if not path.exists():
        return f"does not exist, expected a folder or {_FORMATS}; check the path"
    if name.endswith(ARCHIVE_SUFFIXES):
        return "is an archive, expected a manifest; pass it where a folder is taken"
    if name.endswith(_ARCHIVES):
        return (
            f"is an archive of a kind that is not read, expected {', '.join(ARCHIVE_SUFFIXES)}; "
            "pack it again, or unpack it and pass the folder"
        )
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return (
            f"is a single recording, expected a folder or {_FORMATS}; pass the folder that holds "
            "it, or use nip-audio detect for single files"
        )
    if name in _KALDI:
        return "is a file of a Kaldi folder, expected its wav.scp; pass the wav.scp beside it"
    return f"has no known format, expected {_FORMATS}; rename or convert it"


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
    with path.open(newline="", encoding=_encoding(path)) as file:
        delimiter = _delimiter(file.readline(_MAX_LINE_BYTES))
        file.seek(0)
        rows = csv.DictReader(file, skipinitialspace=True, strict=True, delimiter=delimiter)
        columns = rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
        make = _csv_kind(path, columns)
        for row in rows:
            yield f"line {rows.line_num}", lambda row=row: _in_condition(make, _whole_row(row))  # type: ignore[misc]


def _in_condition(make: Callable[[Row], Entry], row: Row) -> Entry:
    return replace(make(row), condition=row.get("condition") or None)


def _encoding(path: Path) -> str:
    """Return the encoding of a text: UTF-16 or UTF-8 if it begins with their mark, else UTF-8."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(_UTF16):
        return "utf-16"
    if b"\0" in head:
        raise InputError(
            f"{path} holds zero bytes, expected text in UTF-8; if it is UTF-16, convert it, for "
            f"example: iconv -f UTF-16LE -t UTF-8 {path.name} > utf8-{path.name}"
        )
    return "utf-8-sig"


def _delimiter(header: str) -> str:
    """Return what separates the columns of a header, a comma if no known columns show it."""
    for delimiter in _DELIMITERS:
        (row,) = csv.reader([header], skipinitialspace=True, delimiter=delimiter)
        columns = {name.strip() for name in row}
        if "path" in columns or set(_SPEECHBRAIN) <= columns:
            return delimiter
    return ","


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
    if set(_3D_SPEAKER) <= set(columns) and "wav" not in columns:
        return _3d_speaker_row
    if "path" in columns and not set(_SPEECHBRAIN) & set(columns):
        return _plain
    missing = [c for c in _SPEECHBRAIN if c not in columns]
    problem = (
        f"lacks column {', '.join(missing)}" if missing else "mixes the columns of two formats"
    )
    raise InputError(
        f"{path} {problem}; expected SpeechBrain's columns ID, wav, spk_id (optional: start, stop "
        "in samples), 3D-Speaker's ID, path, spk, or path (optional: speaker, id, start_s, end_s)"
    )


def _whole_row(row: dict[str | None, Any]) -> Row:
    if None in row:
        raise ValueError("it has more columns than the header; quote values that contain a comma")
    if None in row.values():
        raise ValueError("it has fewer columns than the header; add the missing values")
    return {str(name): value for name, value in row.items()}


def _speechbrain_row(row: Row) -> Entry:
    span = _samples(row.get("start"), row.get("stop"))
    return Entry(
        "", _text(row, "ID"), _text(row, "wav"), _speaker(row, "spk_id"), span, _channel(row)
    )


def _3d_speaker_row(row: Row) -> Entry:
    start, stop = _number(row, "start"), _number(row, "stop")
    span = None if start is None and stop is None else Seconds(start or 0.0, stop)
    return Entry(
        "", _text(row, "ID"), _text(row, "path"), _speaker(row, "spk"), span, _channel(row)
    )


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
    return Entry("", name, place, _speaker(row, "speaker"), span, _channel(row))


# --- JSON ---


def _json(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    with _opened(path, _MAX_JSON_BYTES) as file:
        if _is_row(file.readline(_MAX_LINE_BYTES)):  # NeMo's lines of JSON end in .json
            yield from _jsonl(path)
            return
        file.seek(0)
        try:
            data = load_json(file.read())
        except UnicodeDecodeError:
            raise
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
        "",
        _text({"id": name}, "id"),
        _text({"wav": wav}, "wav"),
        _speaker(row, "spk_id"),
        span,
        _channel(part),
    )


def _is_row(line: bytes) -> bool:
    """Tell whether a line is a whole recording of a JSONL manifest."""
    try:
        _jsonl_kind(load_json(line))
    except ValueError:
        return False
    return True


def _jsonl(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    with _opened(path) as file:
        if file.read(2) in _UTF16:
            raise InputError(
                f"{path} is UTF-16, expected UTF-8; convert it, for example: iconv -f UTF-16 -t "
                f"UTF-8 {path.name} > utf8-{path.name}"
            )
        file.seek(0)
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
            except UnicodeDecodeError:
                raise
            except ValueError as err:
                raise InputError(f"{path}, {where}: {err}") from err
            make = made
            yield where, lambda row=row, make=made: make(row)  # type: ignore[misc]


def _jsonl_kind(row: Any) -> Callable[[Row], Entry]:
    if isinstance(row, dict):
        kinds = {
            _plain: "path" in row,
            _cut: "recording" in row or "supervisions" in row,
            _nemo: "audio_filepath" in row,
        }
        found = [make for make, fits in kinds.items() if fits]
        if len(found) == 1:
            return found[0]
    raise ValueError(
        'it describes no recording, expected an object with "path" (optional: speaker, id, '
        'start_s, end_s), a Lhotse cut, or NeMo\'s "audio_filepath"'
    )


# --- NeMo ---


def _nemo(row: Row) -> Entry:
    place = _text(row, "audio_filepath")
    start, duration = _number(row, "offset") or 0.0, _number(row, "duration")
    speaker = next((_speaker(row, key) for key in ("speaker", "label") if row.get(key)), None)
    if duration is None:
        part = Seconds(start) if start else None
        return Entry("", place, place, speaker, part, _channel(row))
    name = place if start == 0 else f"{place}@{start:g}+{duration:g}"
    return Entry("", name, place, speaker, Seconds(start, start + duration), _channel(row))


# --- Kaldi ---


def _scp(path: Path) -> Iterator[tuple[str, Callable[[], Entry]]]:
    speakers = dict(_fields(path.with_name("utt2spk"))) if _beside(path, "utt2spk") else {}
    places = ((where, name, rest) for where, (name, rest) in _numbered(path))
    if not _beside(path, "segments"):
        for where, name, rest in places:
            yield where, lambda n=name, r=rest: _kaldi(n, r, speakers.get(n))  # type: ignore[misc]
        return
    recordings = {name: rest for _, name, rest in places}
    segments = path.with_name("segments")
    for where, (name, rest) in _numbered(segments):
        yield (
            f"{segments.name}, {where}",
            lambda n=name, r=rest: _segment(n, r, recordings, speakers.get(n)),  # type: ignore[misc]
        )


def _beside(path: Path, name: str) -> bool:
    return path.with_name(name).is_file()


def _fields(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the first field of each line, and what follows it."""
    with _opened(path) as file:
        while line := file.readline(_MAX_LINE_BYTES):
            name, _, rest = line.decode("utf-8").strip().partition(" ")
            if name:
                yield name, rest.strip()


def _numbered(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    return ((f"line {number}", fields) for number, fields in enumerate(_fields(path), start=1))


def _kaldi(name: str, place: str, speaker: str | None) -> Entry:
    if not place:
        raise ValueError(f"{name!r} has no file, expected a name and a path; add it")
    if place.endswith("|") or place.startswith("|"):
        raise ValueError(
            f"{name!r} is the output of a command, which is not run; save it as a file, and name "
            "the file here"
        )
    if re.search(r"\.ark:\d+$", place):
        raise ValueError(f"{name!r} lies in an archive, which is not unpacked; save it as a file")
    return Entry("", name, place, speaker, None)


def _segment(name: str, rest: str, recordings: Mapping[str, str], speaker: str | None) -> Entry:
    recording, *times = rest.split()
    if recording not in recordings or len(times) != 2:
        raise ValueError(
            f"got {rest!r} for {name!r}, expected a recording of wav.scp, its start and its end in "
            "seconds; correct it"
        )
    stop = None if times[1].startswith("-1") else _number({"end": times[1]}, "end")
    span = Seconds(_number({"start": times[0]}, "start") or 0.0, stop)
    return replace(_kaldi(name, recordings[recording], speaker), span=span)


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
    if not isinstance(channels, list) or not channels:
        raise ValueError(f"the file has channels {channels!r}, expected a list; correct it")
    if len(channels) > 1 and row.get("channel") not in channels:
        raise ValueError(
            f"the cut is of channel {row.get('channel')!r}, expected one of the file's channels "
            f"{channels!r}; correct it"
        )
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
        channels.index(row["channel"]) + 1 if len(channels) > 1 else None,
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
    """Return a speaker, whose name is compared in one Unicode form and without outer spaces."""
    if row.get(name) in (None, ""):
        return None
    return one_spelling(_text(row, name)) or None


def _channel(row: Row) -> int | None:
    value = row.get("channel")
    if value is None or value == "":
        return None
    number = str(value)
    if isinstance(value, bool) or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise ValueError(f"channel is {value!r}, expected a number from 1 on; correct it")
    return int(number)


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
