r"""Prepare LibriSpeech for speaker recognition: SpeechBrain CSV manifests by role.

Works on the corpus's own layout (``<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<n>.flac``),
whole or in part. Each utterance, or span of one, gets one role: ``train`` fits models and
purifiers, ``calibrate`` fits detectors and thresholds, ``test`` fits nothing. The roles come from
a split file, or are drawn by utterance from a seed.

    python librispeech_prepare.py /path/to/LibriSpeech strangers --subsets test-clean \
        --split_file split.csv
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

logger = logging.getLogger(__name__)

ROLES = ("train", "calibrate", "test")
SPLIT_COLUMNS = ("path", "speaker", "role", "start_s", "end_s")


@dataclass(frozen=True)
class Span:
    """One utterance, or a part of it."""

    path: str
    speaker: str
    role: str
    start_s: float
    end_s: float


def prepare_librispeech(
    data_folder: str,
    save_folder: str,
    *,
    subsets: Sequence[str] = ("train-clean-100",),
    split_file: str | None = None,
    role_shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 1234,
) -> None:
    """Write ``train.csv``, ``calibrate.csv`` and ``test.csv`` into ``save_folder``.

    Args:
        data_folder: Folder that holds the subset folders (LibriSpeech's root).
        save_folder: Where the manifests go; created when missing.
        subsets: Subset folders to use.
        split_file: CSV with columns path, speaker, role, start_s, end_s (paths below
            ``data_folder``). Without it whole utterances are dealt by ``role_shares`` from
            ``seed``.
        role_shares: Shares of train, calibrate and test; used without a split file only.
        seed: Seed of the deal.

    Raises:
        FileNotFoundError: A subset folder or a file of the split is missing.
        ValueError: The split file lacks a column, names an unknown role, or nothing is left.
    """
    root = Path(data_folder)
    for subset in subsets:
        if not (root / subset).is_dir():
            raise FileNotFoundError(
                f"{root / subset} is not a folder; --data_folder must be the LibriSpeech root that "
                f"holds {', '.join(subsets)}"
            )
    if split_file:
        spans = [s for s in _read_split(Path(split_file)) if s.path.split("/")[0] in subsets]
    else:
        spans = _deal_roles(root, subsets, role_shares, seed)
    if not spans:
        raise ValueError(f"no utterance of {', '.join(subsets)} found; check the split file")
    target = Path(save_folder)
    target.mkdir(parents=True, exist_ok=True)
    for role in ROLES:
        rows = [_manifest_row(root, span) for span in spans if span.role == role]
        _write_csv(target / f"{role}.csv", rows)
        logger.info("%s: %d spans", target / f"{role}.csv", len(rows))


def prepare_rirs(
    save_folder: str, *, count: int = 64, sample_rate: int = 16000, seed: int = 1234
) -> None:
    """Write synthetic room impulse responses and ``rirs.csv`` for SpeechBrain's ``AddReverb``.

    Each is a direct path followed by exponentially decaying noise: RT60 uniform in 0.15–0.8 s,
    direct-to-reverberant ratio uniform in 0–15 dB. No measured response is needed.

    Args:
        save_folder: Where ``rirs/*.wav`` and ``rirs.csv`` go.
        count: Number of responses.
        sample_rate: Hz.
        seed: Seed of the responses.
    """
    target = Path(save_folder)
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
                "duration": time_s[-1],
                "wav": str(path),
                "wav_format": "wav",
                "wav_opts": "",
            }
        )
    _write_csv(target / "rirs.csv", rows)


def _read_split(path: Path) -> list[Span]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(SPLIT_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: column {', '.join(sorted(missing))} is missing")
        spans = [
            Span(r["path"], r["speaker"], r["role"], float(r["start_s"]), float(r["end_s"]))
            for r in reader
        ]
    for span in spans:
        if span.role not in ROLES:
            raise ValueError(f"{path}: role {span.role!r}, expected one of {', '.join(ROLES)}")
    return spans


def _deal_roles(
    root: Path, subsets: Iterable[str], shares: tuple[float, float, float], seed: int
) -> list[Span]:
    spans = []
    for subset in subsets:
        for speaker in sorted(p for p in (root / subset).iterdir() if p.is_dir()):
            files = sorted(speaker.glob("*/*.flac"))
            # seeded by the speaker too: adding one speaker does not deal the others anew
            random.Random(f"{seed}:{speaker.name}").shuffle(files)
            first, second = _cuts(len(files), shares)
            for i, file in enumerate(files):
                role = ROLES[0] if i < first else ROLES[1] if i < second else ROLES[2]
                relative = file.relative_to(root).as_posix()
                spans.append(Span(relative, speaker.name, role, 0.0, soundfile.info(file).duration))
    return sorted(spans, key=lambda s: s.path)


def _cuts(files: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Where the roles of one speaker's files begin; from three files on each role has one."""
    first, second = round(shares[0] * files), round((shares[0] + shares[1]) * files)
    if files >= len(ROLES):
        second = min(max(second, 2), files - 1)
        first = min(max(first, 1), second - 1)
    return first, second


def _manifest_row(root: Path, span: Span) -> dict[str, object]:
    path = root / span.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is named by the split but missing from --data_folder")
    info = soundfile.info(path)
    start = round(span.start_s * info.samplerate)
    stop = min(round(span.end_s * info.samplerate), info.frames)
    if stop <= start:
        raise ValueError(
            f"{path}: span {span.start_s}–{span.end_s} s is empty or past the file's end"
        )
    return {
        "ID": f"{Path(span.path).stem}_{start}_{stop}",
        "duration": (stop - start) / info.samplerate,
        "wav": f"$data_root/{span.path}",
        "start": start,
        "stop": stop,
        "spk_id": span.speaker,
    }


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    columns = list(rows[0]) if rows else ["ID", "duration", "wav", "start", "stop", "spk_id"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file, to record which split a model was trained on."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


if __name__ == "__main__":
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("data_folder")
    parser.add_argument("save_folder")
    parser.add_argument("--subsets", nargs="+", default=["train-clean-100"])
    parser.add_argument("--split_file")
    parser.add_argument("--seed", type=int, default=1234)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_librispeech(**vars(parser.parse_args()))
