"""Time what one recording costs a screening, by two calibrations in turn.

    python benchmarks/detector_cost.py FIRST SECOND RECORDINGS [--model NAME] [--rounds 5]

FIRST and SECOND are calibrations of one model, such as a clean-only one and one with attacks. Each
round measures all recordings by both, one after the other, so that a busy machine slows both. Time
includes reading and everything that a record says.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from nip_audio import load_pretrained
from nip_audio.audio.manifest import walk_audio
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.pipeline import Screener


def main() -> None:
    """Print milliseconds a recording by each calibration, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calibrations", nargs=2, type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--model", default="xvector-libri251")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pretrained = load_pretrained(options.model)
    files = list(walk_audio(options.recordings))
    screeners = []
    for path in options.calibrations:
        calibration = Calibration.load(path, model_id=pretrained.model_id)
        plain = Screener.from_pretrained(pretrained, calibration, 0.05)
        screeners.append((plain.measurer, Judge(calibration, 0.05)))
    times: list[list[float]] = [[], []]
    for _ in range(options.rounds + 1):  # the first warms up
        for place, (measurer, judge) in enumerate(screeners):
            started = time.perf_counter()
            for file in files:
                record = judge.judge(measurer(file))
                if record.error is not None:
                    parser.error(f"{file.id} cannot be judged: {record.why[0]}")
            times[place].append((time.perf_counter() - started) / len(files) * 1000)
    first, second = (statistics.median(part[1:]) for part in times)
    sys.stdout.write(
        f"{len(files)} recordings, median of {options.rounds} rounds, one thread\n"
        f"first {first:.1f} ms, second {second:.1f} ms a recording; {first / second:.2f} of it\n"
    )


if __name__ == "__main__":
    main()
