"""Time the forward pass of each shipped model, and compare it with the duration of the audio.

    python benchmarks/forward_time.py studies/results/forward_time.json

The pass runs from waveform to scores, for one recording and for sixteen at once. The results are
median and quartiles of many runs. Models take turns, so that a busy moment affects all of them.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nip_audio import Batch, list_pretrained, load_pretrained

THREADS = 2
ROUNDS = 30
CASES = ((3.0, 1), (10.0, 1), (3.0, 16))


def main() -> None:
    """Time all models and write the results."""
    torch.set_num_threads(THREADS)
    models = {card.name: load_pretrained(card.directory) for card in list_pretrained()}
    generator = torch.Generator().manual_seed(0)
    times: dict[tuple[str, float, int], list[float]] = {}
    for round_ in range(ROUNDS + 2):
        for duration_s, size in CASES:
            wavs = 0.1 * torch.randn(size, round(duration_s * 16000), generator=generator)
            for name, pretrained in models.items():
                started = time.perf_counter()
                with torch.no_grad():
                    pretrained.model.scores(Batch(wavs))
                if round_ >= 2:  # the first rounds warm up
                    spent = time.perf_counter() - started
                    times.setdefault((name, duration_s, size), []).append(spent)
    rows = []
    for (name, duration_s, size), spent in times.items():
        low, median, high = np.quantile(spent, [0.25, 0.5, 0.75])
        rows.append(
            {
                "model": name,
                "duration_s": duration_s,
                "batch": size,
                "milliseconds": round(1000 * median, 2),
                "quartiles": [round(1000 * low, 2), round(1000 * high, 2)],
                "real_time_factor": round(median / (duration_s * size), 5),
            }
        )
    machine = {"threads": THREADS, "processor": platform.machine(), "torch": torch.__version__}
    results = {"rounds": ROUNDS, **machine, "rows": rows}
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
