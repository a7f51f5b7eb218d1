"""Train Deep Speaker on VCTK, or on LibriSpeech, with SpeechBrain.

    python train.py hparams/deep_speaker.yaml --data_folder=/path/to/VCTK-Corpus-0.92

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.integrations.training import train

RECIPES = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(RECIPES / "LibriSpeech"))
sys.path.insert(0, str(RECIPES / "VCTK"))
from librispeech_prepare import prepare_librispeech  # noqa: E402 - found by the lines above
from vctk_prepare import prepare_vctk  # noqa: E402


def prepare(hparams: Mapping[str, Any]) -> None:
    """Write the manifests of the corpus that the YAML names."""
    folders = hparams["data_folder"], hparams["save_folder"]
    split = {"split_file": hparams["split_file"], "seed": hparams["split_seed"]}
    if hparams["corpus"] == "LibriSpeech":
        prepare_librispeech(*folders, subsets=hparams["subsets"], **split)
    elif hparams["corpus"] == "VCTK":
        prepare_vctk(*folders, n_speakers=hparams["n_speakers"], **split)
    else:
        raise ValueError(f"corpus is {hparams['corpus']!r}, expected VCTK or LibriSpeech")


if __name__ == "__main__":
    train(sys.argv[1:], prepare)
