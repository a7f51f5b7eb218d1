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
import logging
from collections.abc import Sequence
from pathlib import Path

from nip_audio.training.corpus import deal_roles, read_split, write_manifests


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
