"""Train an x-vector on LibriSpeech with SpeechBrain.

    python train.py hparams/xvector.yaml --data_folder=/path/to/LibriSpeech

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.integrations.training import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from librispeech_prepare import prepare_librispeech


def prepare(hparams: Mapping[str, Any]) -> None:
    """Write the manifests."""
    prepare_librispeech(
        hparams["data_folder"],
        hparams["save_folder"],
        subsets=hparams["subsets"],
        split_file=hparams["split_file"],
        seed=hparams["split_seed"],
    )


if __name__ == "__main__":
    train(sys.argv[1:], prepare)
