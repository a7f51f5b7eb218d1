"""Corpora for recipes: every utterance gets one role, and SpeechBrain CSV manifests say which.

``train`` fits models and purifiers, ``calibrate`` fits detectors and thresholds, ``test`` fits
nothing. A recipe's prepare script knows the layout of its corpus; what all corpora share is here.
"""

from __future__ import annotations

import csv
import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError

__all__ = [
    "ROLES",
    "Span",
    "deal_roles",
    "read_split",
    "recording_of",
    "write_manifests",
    "write_rirs",
]

logger = logging.getLogger(__name__)

ROLES = ("train", "calibrate", "test")
_SPLIT_COLUMNS = ("path", "speaker", "role")
_MANIFEST_COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")


@dataclass(frozen=True)
class Span:
    """One utterance, or a part of it.

    Attributes:
        path: Below the corpus's root, with forward slashes.
        speaker: Who speaks.
        role: ``train``, ``calibrate`` or ``test``.
        start_s: First second.
        end_s: Last second; infinite for the end of the file.
    """

    path: str
    speaker: str
    role: str
    start_s: float
    end_s: float


def read_split(path: Path) -> list[Span]:
    """Read roles from a CSV with the columns path, speaker and role.

    Without the columns start_s and end_s, each row is a whole file.

    Raises:
        InputError: If a column or a value is missing, a time is no number or a role unknown.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(_SPLIT_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path}: column {', '.join(sorted(missing))} is missing")
        try:
            spans = [
                Span(r["path"], r["speaker"], r["role"], float(start), float(end))
                for r in reader
                for start, end in [(r.get("start_s", "0"), r.get("end_s", "inf"))]
            ]
        except (TypeError, ValueError) as err:  # a short row has None where a time should be
            raise InputError(
                f"{path}, line {reader.line_num}: start_s and end_s must be seconds"
            ) from err
    for span in spans:
        if span.role not in ROLES:
            raise InputError(f"{path}: role {span.role!r}, expected one of {', '.join(ROLES)}")
    return spans


def deal_roles(
    root: Path,
    utterances: Iterable[tuple[Path, str]],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 1234,
) -> list[Span]:
    """Deal whole utterances to roles, speaker by speaker.

    Args:
        root: Root of the corpus.
        utterances: (file, speaker).
        shares: Shares of train, calibrate and test. From three files on each role has at least one.
        seed: Seed of the deal. It is mixed with the name of the speaker: one speaker more does not
            deal the others anew.

    Returns:
        Spans, sorted by path.

    Raises:
        InputError: If a file is no audio.
    """
    by_speaker: dict[str, list[Path]] = defaultdict(list)
    for path, speaker in utterances:
        by_speaker[speaker].append(path)
    spans = []
    for speaker, files in by_speaker.items():
        files.sort()
        random.Random(f"{seed}:{speaker}").shuffle(files)
        first, second = _cuts(len(files), shares)
        for i, file in enumerate(files):
            role = ROLES[0] if i < first else ROLES[1] if i < second else ROLES[2]
            relative = file.relative_to(root).as_posix()
            spans.append(Span(relative, speaker, role, 0.0, _duration_s(file)))
    return sorted(spans, key=lambda s: s.path)


def _duration_s(file: Path) -> float:
    try:
        return float(soundfile.info(file).duration)
    except soundfile.SoundFileError as err:
        raise InputError(
            f"{file} cannot be read as audio ({err}); restore it, or leave it out of the corpus"
        ) from err


def _cuts(files: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Where the roles of one speaker's files begin."""
    first, second = round(shares[0] * files), round((shares[0] + shares[1]) * files)
    if files >= len(ROLES):
        second = min(max(second, 2), files - 1)
        first = min(max(first, 1), second - 1)
    return first, second


def write_manifests(root: Path, spans: Sequence[Span], target: Path) -> None:
    """Write ``train.csv``, ``calibrate.csv`` and ``test.csv`` for SpeechBrain.

    Raises:
        FileNotFoundError: If a file of the spans is missing.
        InputError: If there is no span, or one is empty or not inside its file.
    """
    if not spans:
        raise InputError(f"no utterance found below {root}; check the folder and the split")
    target.mkdir(parents=True, exist_ok=True)
    for role in ROLES:
        rows = [_manifest_row(root, span) for span in spans if span.role == role]
        _write_csv(target / f"{role}.csv", rows, _MANIFEST_COLUMNS)
        logger.info("%s: %d spans", target / f"{role}.csv", len(rows))


def recording_of(root: Path, span: Span) -> Recording:
    """Return what is to be read for a span.

    Raises:
        FileNotFoundError: If its file is missing.
        InputError: If it is empty or not inside its file.
    """
    path = root / span.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is named by the split but missing from the data folder")
    info = soundfile.info(path)
    start = stop = 0
    if 0 <= span.start_s < span.end_s:  # times that are no numbers are neither
        start = round(min(span.start_s * info.samplerate, info.frames))
        stop = round(min(span.end_s * info.samplerate, info.frames))
    if start >= stop:
        raise InputError(f"{path}: span {span.start_s}–{span.end_s} s is empty or not in the file")
    return Recording(f"{Path(span.path).stem}_{start}_{stop}", path, span.speaker, (start, stop))


def _manifest_row(root: Path, span: Span) -> dict[str, object]:
    recording = recording_of(root, span)
    start, stop = recording.span if isinstance(recording.span, tuple) else (0, 0)
    return {
        "ID": recording.id,
        "duration": (stop - start) / soundfile.info(recording.path).samplerate,
        "wav": f"$data_root/{span.path}",
        "start": start,
        "stop": stop,
        "spk_id": span.speaker,
    }


def write_rirs(
    target: Path, *, count: int = 64, sample_rate: int = 16000, seed: int = 1234
) -> None:
    """Write synthetic room impulse responses and ``rirs.csv`` for SpeechBrain's ``AddReverb``.

    Each is a direct path followed by exponentially decaying noise: RT60 uniform in 0.15–0.8 s,
    direct-to-reverberant ratio uniform in 0–15 dB. No measured response is needed.

    Args:
        target: Where ``rirs/*.wav`` and ``rirs.csv`` go.
        count: Number of responses.
        sample_rate: Hz.
        seed: Seed of the responses.
    """
    (target / "rirs").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        rt60_s = rng.uniform(0.15, 0.8)
        time_s = np.arange(int(rt60_s * sample_rate)) / sample_rate
        tail = rng.standard_normal(time_s.size) * 10.0 ** (-3.0 * time_s / rt60_s)
        tail[: int(0.0025 * sample_rate)] = 0.0
        ratio_db = rng.uniform(0.0, 15.0)
        tail *= 10.0 ** (-ratio_db / 20.0) / np.linalg.norm(tail)
        tail[0] = 1.0
        path = target / "rirs" / f"rir{i:03d}.wav"
        soundfile.write(path, (tail / np.abs(tail).max()).astype(np.float32), sample_rate, "FLOAT")
        rows.append(
            {
                "ID": path.stem,
                "duration": float(time_s[-1]),
                "wav": str(path),
                "wav_format": "wav",
                "wav_opts": "",
            }
        )
    _write_csv(target / "rirs.csv", rows, ("ID", "duration", "wav", "wav_format", "wav_opts"))


def _write_csv(path: Path, rows: Iterable[dict[str, object]], columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
