"""Time a guided purifier beside the model that it defends, in the shipped and in the paper's size.

    python benchmarks/purifier_time.py studies/results/purifier_time.json

The batch has 32 recordings of 3 s. The model's forward pass runs from waveform to embedding; the
purifier runs on the spectrogram in between. The two take turns, so that a busy moment affects both.
The purifier's network is untrained, because weights do not change the time.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nip_audio import Batch, list_pretrained, load_pretrained
from nip_audio.audio.features import LogMel
from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.models.deep_speaker import DeepSpeaker
from nip_audio.models.resnet34 import ResNet34
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip

THREADS = 1
ROUNDS = 7
BATCH = 32
DURATION_S = 3.0


def main() -> None:
    """Time models and purifiers and write the results."""
    torch.set_num_threads(THREADS)
    models = {card.name: load_pretrained(card.directory).model for card in list_pretrained()}
    for name, network in (
        ("ResNet34", ResNet34()),
        ("Deep Speaker", DeepSpeaker(n_mels=64)),
    ):
        models[f"{name}, paper size"] = InstrumentedModel(
            network,
            front_end=LogMel(sample_rate_hz=16000, n_mels=64, low_db=-60.0, high_db=40.0),
            bounds=Bounds(-1.0, 1.0),
            input_bounds=Bounds(0.0, 1.0),
        ).eval()
    generator = torch.Generator().manual_seed(0)
    wavs = Batch(0.1 * torch.randn(BATCH, round(DURATION_S * 16000), generator=generator))
    rows = []
    for name, model in models.items():
        net = InverseNet().eval().requires_grad_(False)
        purifier = GuidedNip(net, bounds=model.input_bounds)
        with torch.no_grad():
            features = model.to_input(wavs)
            forward, purify = in_turns(
                lambda model=model: model.embed(wavs),
                lambda p=purifier, x=features: p.purify(x, generator=generator),
            )
        rows.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in model.network.parameters()),
                "forward_s": round(float(np.median(forward)), 4),
                "purify_s": round(float(np.median(purify)), 4),
                "ratio": round(float(np.median(np.array(purify) / np.array(forward))), 3),
                "ratio_quartiles": [
                    round(float(q), 3)
                    for q in np.quantile(np.array(purify) / np.array(forward), [0.25, 0.75])
                ],
            }
        )
    results = {
        "rounds": ROUNDS,
        "batch": BATCH,
        "duration_s": DURATION_S,
        "threads": THREADS,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "purifier_parameters": sum(p.numel() for p in InverseNet().parameters()),
        "rows": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


def in_turns(*calls: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of each call in each round, after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for round_ in range(ROUNDS + 1):
        for call, spent in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if round_:
                spent.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
