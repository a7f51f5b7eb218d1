"""Train an ECAPA-TDNN on LibriSpeech with SpeechBrain.

    python train.py hparams/ecapa.yaml --data_folder=/path/to/LibriSpeech

An interrupted run continues from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import sys

from nip_audio.training.corpora import prepare
from nip_audio.training.training import train

if __name__ == "__main__":
    train(sys.argv[1:], prepare)
