r"""Prepare VCTK 0.92 for speaker recognition: SpeechBrain CSV manifests by role.

Works on the corpus's own layout (``wav48_silence_trimmed/pXXX/pXXX_NNN_mic1.flac`` beside
``speaker-info.txt``), whole or in part. Each utterance, or span of one, gets one role: ``train``
fits models and purifiers, ``calibrate`` fits detectors and thresholds, ``test`` fits nothing. The
roles come from a split file, or are drawn by utterance from a seed. The files stay at 48 kHz:
training and the package resample when they read.

    python vctk_prepare.py /path/to/VCTK-Corpus-0.92 manifests --n_speakers 30
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Sequence
from pathlib import Path

from nip_audio.errors import InputError
from nip_audio.training.corpus import deal_roles, read_split, write_manifests

AUDIO_FOLDER = "wav48_silence_trimmed"
INFO_NAME = "speaker-info.txt"


def prepare_vctk(
    data_folder: str,
    save_folder: str,
    *,
    n_speakers: int | None = None,
    speakers: Sequence[str] = (),
    microphone: str = "mic1",
    split_file: str | None = None,
    role_shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 1234,
) -> None:
    """Write ``train.csv``, ``calibrate.csv`` and ``test.csv`` into ``save_folder``.

    Args:
        data_folder: The corpus's root, which holds ``wav48_silence_trimmed``.
        save_folder: Where the manifests go; created when missing.
        n_speakers: How many speakers to draw from the seed; None takes all. Where
            ``speaker-info.txt`` tells them apart, half of them are women.
        speakers: Speakers to take instead, e.g. p225.
        microphone: ``mic1`` or ``mic2`` (p280 and p315 have no mic2).
        split_file: CSV with columns path, speaker, role, start_s, end_s (paths below
            ``data_folder``). Without it whole utterances are dealt by ``role_shares`` from
            ``seed``.
        role_shares: Shares of train, calibrate and test; used without a split file only.
        seed: Seed of the draw and of the deal.

    Raises:
        FileNotFoundError: The audio folder or a file of the split is missing.
        InputError: The split file is wrong, or there are fewer speakers than asked for.
    """
    root = Path(data_folder)
    folder = root / AUDIO_FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; --data_folder must be the root of VCTK 0.92, which holds "
            f"{AUDIO_FOLDER}"
        )
    if split_file:
        spans = read_split(Path(split_file))
    else:
        files = sorted(folder.glob(f"*/*_{microphone}.flac"))
        chosen = _choose({f.parent.name for f in files}, speakers, n_speakers, root, seed)
        utterances = ((file, file.parent.name) for file in files if file.parent.name in chosen)
        spans = deal_roles(root, utterances, shares=role_shares, seed=seed)
    write_manifests(root, spans, Path(save_folder))


def _choose(
    known: set[str], asked: Sequence[str], count: int | None, root: Path, seed: int
) -> set[str]:
    missing = sorted(set(asked) - known)
    if missing or (not asked and count is not None and not 0 < count <= len(known)):
        raise InputError(
            f"asked for {', '.join(missing) or count} of {len(known)} speakers in {root}; choose "
            "among those there are"
        )
    if asked:
        return set(asked)
    if count is None:
        return known
    # every speaker draws a number of its own: one speaker more displaces one at most
    order = sorted(known, key=lambda s: random.Random(f"{seed}:{s}").random())
    gender = read_genders(root / INFO_NAME)
    women = [s for s in order if gender.get(s) == "F"]
    others = [s for s in order if gender.get(s) != "F"]
    share = min(len(women), max(count // 2, count - len(others)))
    return {*women[:share], *others[: count - share]}


def read_genders(path: Path) -> dict[str, str]:
    """Read speaker → F or M from ``speaker-info.txt``; empty if there is no such file.

    The table is of blank-separated columns, headed ``ID AGE GENDER ACCENTS REGION COMMENTS``.
    """
    if not path.is_file():
        return {}
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row[0]: row[2] for row in rows[1:] if len(row) > 2}


if __name__ == "__main__":
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("data_folder")
    parser.add_argument("save_folder")
    parser.add_argument("--n_speakers", type=int)
    parser.add_argument("--speakers", nargs="+", default=[])
    parser.add_argument("--microphone", default="mic1")
    parser.add_argument("--split_file")
    parser.add_argument("--seed", type=int, default=1234)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_vctk(**vars(parser.parse_args()))
