"""Train a ResNet-34 on VCTK, or on LibriSpeech, with SpeechBrain.

    python train.py hparams/resnet34.yaml --data_folder=/path/to/VCTK-Corpus-0.92

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import sys

from nip_audio.training.corpora import prepare
from nip_audio.training.training import train

if __name__ == "__main__":
    train(sys.argv[1:], prepare)
