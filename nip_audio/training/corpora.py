"""Write manifests of LibriSpeech and VCTK from the folders of the corpora.

Each utterance, or span of one, gets one role: ``train`` fits models and purifiers, ``calibrate``
fits detectors and thresholds, ``test`` fits nothing. The roles come from a split file, or are drawn
by utterance from a seed. A part of a corpus is enough.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nip_audio.audio.corpus import deal_roles, read_split, write_manifests
from nip_audio.errors import InputError

__all__ = ["prepare", "prepare_librispeech", "prepare_vctk"]

logger = logging.getLogger(__name__)

_VCTK_UTTERANCES = "wav48_silence_trimmed/*/*_mic1.flac"
_VCTK_INFO = "speaker-info.txt"


def prepare(hparams: Mapping[str, Any]) -> None:
    """Write the manifests of ``hparams["corpus"]``, LibriSpeech or VCTK.

    Raises:
        InputError: If it is another corpus.
    """
    folders = hparams["data_folder"], hparams["save_folder"]
    split = {"split_file": hparams["split_file"], "seed": hparams["split_seed"]}
    if hparams["corpus"] == "LibriSpeech":
        prepare_librispeech(*folders, subsets=hparams["subsets"], **split)
    elif hparams["corpus"] == "VCTK":
        prepare_vctk(
            *folders,
            utterances=hparams["utterances"],
            min_utterances=hparams["min_utterances"],
            n_speakers=hparams["n_speakers"],
            **split,
        )
    else:
        raise InputError(f"corpus is {hparams['corpus']!r}, expected VCTK or LibriSpeech")


def prepare_librispeech(
    data_folder: str,
    save_folder: str,
    *,
    subsets: Sequence[str] = ("train-clean-100",),
    split_file: str | None = None,
    role_shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 1234,
) -> None:
    """Write LibriSpeech's ``train.csv``, ``calibrate.csv`` and ``test.csv``.

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
        InputError: The split file lacks a column, names an unknown role, or nothing is left.
    """
    root = Path(data_folder)
    for subset in subsets:
        if not (root / subset).is_dir():
            raise FileNotFoundError(
                f"{root / subset} is not a folder; --data_folder must be the LibriSpeech root that "
                f"holds {', '.join(subsets)}"
            )
    if split_file:
        spans = [s for s in read_split(Path(split_file)) if s.path.split("/")[0] in subsets]
    else:
        files = [f for s in subsets for f in sorted((root / s).glob("*/*/*.flac"))]
        utterances = ((file, file.parent.parent.name) for file in files)
        spans = deal_roles(root, utterances, shares=role_shares, seed=seed)
    write_manifests(root, spans, Path(save_folder))


def prepare_vctk(
    data_folder: str,
    save_folder: str,
    *,
    utterances: str = _VCTK_UTTERANCES,
    min_utterances: int = 10,
    n_speakers: int | None = None,
    speakers: Sequence[str] = (),
    split_file: str | None = None,
    role_shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 1234,
) -> None:
    """Write VCTK's ``train.csv``, ``calibrate.csv`` and ``test.csv``.

    The files keep their sample rate: training and the package resample when they read.

    Args:
        data_folder: The corpus's root.
        save_folder: Where the manifests go; created when missing.
        utterances: Glob of the utterances below ``data_folder``; the folder that holds a file is
            the speaker. The default is the first microphone of VCTK 0.92. Other layouts:
            ``wav48_silence_trimmed/*/*_mic2.flac`` is the second microphone (p280 and p315 have
            none), ``./*/*.flac`` a folder of pXXX/pXXX_NNN.flac, such as copies at 16 kHz.
        min_utterances: A speaker with fewer utterances is left out, and the log says so: in the
            shares below, ten are the fewest that give each role one without taking it from another.
        n_speakers: Number of speakers to draw from the seed; None takes all. Where
            ``speaker-info.txt`` tells them apart, half of them are women.
        speakers: Speakers to take instead, e.g. p225.
        split_file: CSV with columns path, speaker, role, start_s, end_s (paths below
            ``data_folder``, in any layout). Without it whole utterances are dealt by
            ``role_shares`` from ``seed``. With it nothing is searched or drawn.
        role_shares: Shares of train, calibrate and test; used without a split file only.
        seed: Seed of the draw and of the deal.

    Raises:
        FileNotFoundError: The data folder or a file of the split is missing.
        InputError: The split file is wrong, no file matches ``utterances``, or there are fewer
            speakers than asked for.
    """
    root = Path(data_folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; --data_folder must be VCTK's root")
    if split_file:
        spans = read_split(Path(split_file))
    else:
        files = _find_utterances(root, utterances)
        counts = Counter(f.parent.name for f in files)
        enough = {speaker for speaker, count in counts.items() if count >= min_utterances}
        if few := sorted(counts.keys() - enough):
            logger.info("left out, fewer than %d utterances: %s", min_utterances, ", ".join(few))
        known = f"{len(enough)} speakers with {min_utterances} or more utterances in {root}"
        chosen = _choose_speakers(enough, speakers, n_speakers, root / _VCTK_INFO, seed, known)
        taken = ((file, file.parent.name) for file in files if file.parent.name in chosen)
        spans = deal_roles(root, taken, shares=role_shares, seed=seed)
    write_manifests(root, spans, Path(save_folder))


def _find_utterances(root: Path, pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if len(parts) < 2 or Path(pattern).is_absolute() or ".." in parts:
        raise InputError(
            f"utterances is {pattern!r}, expected a glob below the data folder that has a folder "
            f"for each speaker, such as {_VCTK_UTTERANCES} or ./*/*.flac"
        )
    files = sorted(file for file in root.glob(pattern) if file.is_file())
    if not files:
        raise InputError(
            f"no file in {root} matches {pattern}; VCTK 0.92 is read with "
            f"--utterances={_VCTK_UTTERANCES} (the default), a folder of pXXX/pXXX_NNN.flac with "
            "--utterances='./*/*.flac'"
        )
    return files


def _choose_speakers(
    known: set[str], asked: Sequence[str], count: int | None, info: Path, seed: int, what: str
) -> set[str]:
    missing = sorted(set(asked) - known)
    wrong = count is not None and not 0 < count <= len(known)
    if missing or (not asked and (wrong or not known)):
        wanted = ", ".join(missing) or ("all" if count is None else count)
        raise InputError(
            f"asked for {wanted} of {what}; ask for speakers that it has, or lower min_utterances"
        )
    if asked:
        return set(asked)
    if count is None:
        return known
    # every speaker draws a number of their own, so that a further speaker displaces at most one
    order = sorted(known, key=lambda s: random.Random(f"{seed}:{s}").random())
    gender = _read_genders(info)
    women = [s for s in order if gender.get(s) == "F"]
    others = [s for s in order if gender.get(s) != "F"]
    share = min(len(women), max(count // 2, count - len(others)))
    return {*women[:share], *others[: count - share]}


def _read_genders(path: Path) -> dict[str, str]:
    """Read speaker → F or M from ``speaker-info.txt``; empty if there is no such file.

    The table is of blank-separated columns, headed ``ID AGE GENDER ACCENTS REGION COMMENTS``.
    """
    if not path.is_file():
        return {}
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row[0]: row[2] for row in rows[1:] if len(row) > 2}
