r"""Prepare VCTK for speaker recognition: SpeechBrain CSV manifests by role.

By default this reads VCTK 0.92's own layout (``wav48_silence_trimmed/pXXX/pXXX_NNN_mic1.flac``
beside ``speaker-info.txt``), whole or in part; ``--utterances`` takes another. Speakers with fewer
than ``--min_utterances`` are left out. Each utterance, or span of one, gets one role: ``train``
fits models and purifiers, ``calibrate`` fits detectors and thresholds, ``test`` fits nothing. The
roles come from a split file, or are drawn by utterance from a seed. The files keep their sample
rate: training and the package resample when they read.

    python vctk_prepare.py /path/to/VCTK-Corpus-0.92 manifests --n_speakers 30
    python vctk_prepare.py /path/to/VCTK-16k manifests --utterances './*/*.flac'
"""

from __future__ import annotations

import argparse
import logging

from nip_audio.training.corpora import prepare_vctk

if __name__ == "__main__":
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("data_folder")
    parser.add_argument("save_folder")
    parser.add_argument("--n_speakers", type=int)
    parser.add_argument("--speakers", nargs="+", default=[])
    parser.add_argument("--utterances", default="wav48_silence_trimmed/*/*_mic1.flac")
    parser.add_argument("--min_utterances", type=int, default=10)
    parser.add_argument("--split_file")
    parser.add_argument("--seed", type=int, default=1234)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_vctk(**vars(parser.parse_args()))
