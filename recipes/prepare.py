"""Write the manifests of the corpus that a recipe's YAML names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "LibriSpeech"), str(HERE / "VCTK")]
from librispeech_prepare import prepare_librispeech  # noqa: E402 - found by the lines above
from vctk_prepare import prepare_vctk  # noqa: E402


def prepare(hparams: Mapping[str, Any]) -> None:
    """Prepare ``hparams["corpus"]``, LibriSpeech or VCTK.

    Raises:
        ValueError: For another one.
    """
    folders = hparams["data_folder"], hparams["save_folder"]
    split = {"split_file": hparams["split_file"], "seed": hparams["split_seed"]}
    if hparams["corpus"] == "LibriSpeech":
        prepare_librispeech(*folders, subsets=hparams["subsets"], **split)
    elif hparams["corpus"] == "VCTK":
        prepare_vctk(*folders, n_speakers=hparams["n_speakers"], **split)
    else:
        raise ValueError(f"corpus is {hparams['corpus']!r}, expected VCTK or LibriSpeech")
