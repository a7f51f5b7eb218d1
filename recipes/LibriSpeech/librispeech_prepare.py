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

from nip_audio.training.corpora import prepare_librispeech

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
