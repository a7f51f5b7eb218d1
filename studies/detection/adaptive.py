"""Attack score and detector together, as somebody does who knows everything but the noise drawn.

    python -m studies.detection.adaptive MODEL --data-folder DATA --work WORK --results RESULTS.json

PGD goes through the model's score and, window by window, through the purifier's response and the
network that judges it; every step draws the detector's noise anew. An attack counts if the written
file reaches the goal and is not flagged.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nip_audio import load_pretrained
from nip_audio.attacks.objectives import Guarded
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.io import to_16_bits
from nip_audio.audio.windows import sound_of
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of
from nip_audio.purifiers.response import response_with_graph
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.probes import Place
from nip_audio.screening.response import ResponseDetector, scaled_tensor
from studies._lib.command import add_result, command, run, tell
from studies.detection.examples import RATE, SEED, Examples
from studies.detection.measure import RATES, Judging, share

EPS = (0.0005, 0.001, 0.002)
STEPS = 100
STEP_SHARE = 0.05
CLIPS = 20
UNIT = {"cosine": 20.0, "logits": 1.0}
"""Log-odds of an attack that weigh as much as a cosine, or a logit, of 1."""


class ResponseEvidence(nn.Module):
    """Log-odds of an attack of the worst window of one recording, in the autograd graph.

    Args:
        model: Model under attack.
        detector: Detector that the attacker knows.
        sound: (N,) which samples belong to windows; noise of an attack hardly changes that.
        generator: Source of the noise, which is not the detector's.
    """

    def __init__(
        self,
        model: InstrumentedModel,
        detector: ResponseDetector,
        sound: Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.model = model if detector.probe.names else model.without_head()
        self.detector = detector
        self.places = sound.nonzero()[:, 0]
        self.windows = -(-len(self.places) // round(detector.probe.window_s * RATE))
        self.generator = generator

    def forward(self, batch: Batch) -> Tensor:
        """Compute the log-odds of (1, N) samples: (1,)."""
        whole = batch.x[0, self.places]
        size = len(whole) // self.windows
        starts = np.linspace(0, len(whole) - size, self.windows).round().astype(int).tolist()
        windows = torch.stack([whole[start : start + size] for start in starts])
        probe = self.detector.probe
        rows = response_with_graph(
            self.model, probe.purifier, Batch(windows), probe.config, generator=self.generator
        )
        length = rows.new_full((len(rows), 1), float(np.log(size)))
        scaled = scaled_tensor(torch.cat([rows, length], dim=1)).double()
        return self.detector.network.distance_of(scaled).amax()[None]


def attack(
    examples: Examples, detector: ResponseDetector, row: int, goal: str, eps: float
) -> Tensor:
    """Attack one clip, (N,)."""
    model = examples.pretrained.model
    clip = examples.clips[0][row]
    sound = torch.from_numpy(sound_of(clip, RATE))
    generator = generator_of(SEED, "adaptive", row, goal, eps)
    evidence = ResponseEvidence(model, detector, sound, generator)
    distance = detector.threshold(RATES[0], Place(windows=evidence.windows))
    guarded = Guarded(
        examples.objective(goal, [row]),
        evidence,
        threshold=float(np.log(np.expm1(distance))),
        scale=UNIT["logits" if examples.closed else "cosine"],
    )
    known = make_attack("pgd", eps=eps, settings={"steps": STEPS, "step_share": STEP_SHARE})
    return to_16_bits(known(guarded, Batch(clip[None]), generator=generator).batch.x[0])


def main() -> None:
    """Attack the detector of one model."""
    parser = command(__doc__, "model", needed=("data-folder", "results", "work"))
    options = parser.parse_args()
    pretrained = load_pretrained(str(options.model))
    examples = Examples(pretrained, options.data_folder, options.work)
    calibration = Calibration.of(pretrained)
    detector = calibration.detector
    if not isinstance(detector, ResponseDetector):
        raise SystemExit("the calibration is clean-only, expected one made with attacks")
    judging = Judging(examples, calibration)
    found: dict[str, Any] = {"steps": STEPS, "clips": CLIPS, "eps": list(EPS), "cells": {}}
    goal = examples.goals[1]
    rows = examples.attackable(goal)[:CLIPS]
    for eps in EPS:
        path = examples.work / f"adaptive {eps:g}, {goal}, {calibration.fingerprint[:12]}.pt"
        started = time.monotonic()
        if not path.exists():
            made = [attack(examples, detector, row, goal, eps) for row in rows]
            torch.save(torch.stack(made), path)
        samples = torch.load(path, weights_only=True)  # noqa: TID251 - this study wrote it
        success = examples.succeeds(goal, rows, samples)
        judged = judging(f"adaptive, ε {eps:g}", list(samples))
        owners = [examples.clips[1][row] for row in rows]
        unnoticed = success & ~judged.flagged[RATES[0]] & ~judged.outside
        found["cells"][f"{goal}, ε {eps:g}"] = {
            "clips": len(rows),
            "succeed": int(success.sum()),
            "unnoticed": share(unnoticed, owners),
            "unnoticed_count": int(unnoticed.sum()),
        }
        tell(f"ε {eps:g}: {found['cells']} in {time.monotonic() - started:.0f} s")
    add_result(options.results, [pretrained.card.name, "adaptive"], found)


if __name__ == "__main__":
    run(main)
