"""Train a network on GTSRB and write a model directory that ``load_pretrained`` reads.

    python train.py NAME.yaml --data_folder=/path/to/folder

The training is the plain loop of ``nip_audio.training.image_training``; the YAML has all options.
"""

from __future__ import annotations

import sys

from nip_audio.training.image_publishing import run_recipe

if __name__ == "__main__":
    print(run_recipe(sys.argv[1:]))
