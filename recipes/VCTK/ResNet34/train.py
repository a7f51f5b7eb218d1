"""Train a ResNet-34 on VCTK, or on LibriSpeech, with SpeechBrain.

    python train.py hparams/resnet34.yaml --data_folder=/path/to/VCTK-Corpus-0.92

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nip_audio.training.training import train

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from prepare import prepare

if __name__ == "__main__":
    train(sys.argv[1:], prepare)
