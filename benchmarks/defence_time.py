"""Time every defence that changes the input beside the forward pass of the model that it defends.

    python benchmarks/defence_time.py studies/results/defence_time.json

The batch has 8 recordings of 3 s. Model and defences take turns, and processor time is counted, so
that other work on the machine matters little. What is fitted is fitted to noise, and networks are
untrained, because neither changes the time.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nip_audio import Batch, load_pretrained
from nip_audio.errors import TemplateEmptyWarning
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.registry import PURIFIERS, make_purifier

MODELS = ("resnet34-libri30", "xvector-libri251")
ROUNDS = 5
BATCH = 8
DURATION_S = 3.0


def defences(name: str, wavs: Batch) -> dict[str, Purifier]:
    """Return every purifier of the registry, by its title."""
    pretrained = load_pretrained(name)
    model = pretrained.model
    features = model.to_input(wavs)
    net = InverseNet().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateEmptyWarning)
        pool = NipPool.fit(
            model,
            [features],
            layer=pretrained.card.default_taps[-2 if model.head is None else -1],
            model_id=pretrained.model_id,
            settings=PoolSettings(quorum=0.9),
        )
    bounds = model.input_bounds
    fitted: dict[str, Purifier] = {
        "guided": GuidedNip(net, bounds=bounds),
        "pool": pool,
        "patch-dictionary": PatchDictionary.fit([features], bounds=bounds, generator=generator),
    }
    settings = {"noise": {"snr_db": 20.0}}
    return {
        entry.title: fitted.get(key) or make_purifier(key, model=model, settings=settings.get(key))
        for key, entry in PURIFIERS.items()
        if key in fitted or not set(entry.required) - set(settings.get(key, ()))
    }


def main() -> None:
    """Time models and defences and write the results."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    wavs = Batch(0.1 * torch.randn(BATCH, round(DURATION_S * 16000), generator=generator))
    rows = []
    for name in MODELS:
        model = load_pretrained(name).model
        features = model.to_input(wavs)
        calls: dict[str, Callable[[], object]] = {"forward": partial(model.embed, wavs)}
        for title, purifier in defences(name, wavs).items():
            given = wavs if purifier.level == "raw" else features
            calls[title] = partial(purifier.purify, given, generator=generator)
        spent = in_turns(calls)
        forward = np.array(spent.pop("forward"))
        rows += [
            {
                "model": name,
                "defence": title,
                "forward_s": round(float(np.median(forward)) / BATCH, 5),
                "defence_s": round(float(np.median(seconds)) / BATCH, 5),
                "ratio": round(float(np.median(np.array(seconds) / forward)), 3),
            }
            for title, seconds in spent.items()
        ]
    results = {
        "rounds": ROUNDS,
        "batch": BATCH,
        "duration_s": DURATION_S,
        "threads": 1,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "rows": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the processor time of each call in each round, after one round to warm up."""
    spent: dict[str, list[float]] = {title: [] for title in calls}
    for round_ in range(ROUNDS + 1):
        for title, call in calls.items():
            started = time.process_time()
            call()
            if round_:
                spent[title].append(time.process_time() - started)
    return spent


if __name__ == "__main__":
    main()
