"""Try the purifier's answer as the witness of an attack, on the examples of ``measure``.

    python -m studies.your_model.witness MODEL --data-folder DATA --work WORK --results OUT.json

A small classifier learns to tell attacked from harmless clips by how the model's guided purifier
answers them (``nip_audio.purifiers.answer``). It is fitted on spans for calibration of the 251
speakers, attacked here, and on the same spans in harmless conditions; its threshold is chosen out
of fold. WORK is the folder in which ``measure`` has kept the attacked test clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import Tensor

from nip_audio import load_pretrained
from nip_audio.attacks.objectives import Goal, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.corpus import read_split
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of, seed_of
from nip_audio.errors import InputError
from nip_audio.evaluation.controls import CONTROLS
from nip_audio.purifiers.answer import measure_answers
from nip_audio.purifiers.nip_guided import GuidedNip
from studies._lib.command import command, run, tell, write_results
from studies._lib.shares import share_of
from studies.your_model.measure import (
    ATTACKS,
    BATCH,
    CROP,
    GOALS,
    RATE,
    RATES,
    SEED,
    choose,
    examples,
    interval_of_auroc,
    kept,
    read,
)

Array = NDArray[np.float64]

FITTED = 90
SHORTEST_S = 1.5
SNRS_DB = (15, 20, 25, 30, 40)
UNIFORM = (0.0005, 0.002, 0.005)
LESSONS: tuple[tuple[str, float, Goal], ...] = (
    ("pgd", 0.0005, "reject"),
    ("pgd", 0.0005, "accept"),
    ("pgd", 0.001, "accept"),
    ("pgd", 0.002, "reject"),
    ("pgd", 0.002, "accept"),
    ("pgd", 0.005, "accept"),
    ("fgsm", 0.002, "reject"),
)
THRESHOLD = 0.5
"""Cosine at which the attacks of the lessons aim."""


def fitting_clips(root: Path) -> Tensor:
    """Read spans for calibration, repeated or cut to one length, (n, CROP)."""
    spans = [
        span
        for span in read_split(root / "split.csv")
        if span.role == "calibrate"
        and span.path.startswith("train-clean-100")
        and span.end_s - span.start_s >= SHORTEST_S
    ]
    step = max(1, len(spans) // FITTED)
    clips = [read(root, span) for span in spans[::step][:FITTED]]
    return torch.stack([clip.repeat(-(-CROP // len(clip)))[:CROP] for clip in clips])


def white(clips: Tensor, snr_db: float) -> Tensor:
    """Add white noise."""
    generator = generator_of(SEED, "white", snr_db)
    rms = clips.square().mean(dim=1, keepdim=True).sqrt() * 10 ** (-snr_db / 20)
    return (clips + rms * torch.randn(clips.shape, generator=generator)).clamp(-1, 1)


def uniform(clips: Tensor, largest: float, *parts: object) -> Tensor:
    """Add uniform noise."""
    generator = generator_of(SEED, "uniform", *parts)
    noise = torch.rand(clips.shape, generator=generator) * 2 - 1
    return (clips + largest * noise).clamp(-1, 1)


def controls(clips: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Change clips harmlessly, by name of the condition."""
    return {
        control.name: torch.stack(
            [
                control.apply(clip, sample_rate_hz=RATE, seed=seed_of(SEED, control.name, place))
                for place, clip in enumerate(clips)
            ]
        )
        for control in CONTROLS
        if names is None or control.name in names
    }


def lesson(model: InstrumentedModel, clips: Tensor, method: str, eps: float, goal: Goal) -> Tensor:
    """Attack clips away from their own voice, or towards that of another clip."""
    with torch.no_grad():
        voices = torch.cat([model.embed(Batch(part)) for part in torch.split(clips, BATCH)])
    claimed = voices.roll(1, 0) if goal == "accept" else voices
    attack = make_attack(method, eps=eps, settings={"steps": 10} if method == "pgd" else {})
    done = []
    for start in range(0, len(clips), BATCH):
        objective = Verification(
            model,
            claimed[start : start + BATCH],
            threshold=THRESHOLD,
            goal=goal,
            self_reference=goal == "reject",
        )
        generator = generator_of(SEED, "lesson", method, eps, goal, start)
        found = attack(objective, Batch(clips[start : start + BATCH]), generator=generator)
        done.append((found.batch.x * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15)
    return torch.cat(done)


def main() -> None:
    """Fit the witness, and judge the test clips by it."""
    parser = command(__doc__, "model", needed=("data-folder", "results", "work"))
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    model, work = pretrained.model, Path(options.work)
    path = pretrained.card.purifier_path
    if path is None:
        raise InputError(f"{options.model} has no purifier; write one into it: fit-purifier --out")
    purifier = GuidedNip.load(path, model_id=pretrained.model_id)

    def answers(name: str, clips: Tensor) -> Array:
        def make() -> Tensor:
            tell(f"answers, {name}")
            generator = generator_of(SEED, "answers", name)
            rows = [
                measure_answers(model, purifier, Batch(part), generator=generator)
                for part in torch.split(clips, BATCH)
            ]
            return torch.from_numpy(np.concatenate(rows))

        return np.asarray(kept(work / f"answer-{name}.pt", make).numpy())

    clean = fitting_clips(options.data_folder)
    harmless = {"clean": clean}
    harmless |= {f"white {snr}": white(clean, snr) for snr in SNRS_DB}
    harmless |= {f"uniform {size}": uniform(clean, size, size) for size in UNIFORM}
    harmless |= controls(clean, ("MP3", "10 dB quieter"))
    rows = [answers(f"fit-{name}", clips) for name, clips in harmless.items()]
    for method, eps, goal in LESSONS:
        name = f"{method}-{eps}-{goal}"
        attacked = kept(
            work / f"lesson-{name}.pt",
            partial(lesson, model, clean, method, eps, goal),
        )
        rows.append(answers(f"fit-{name}", attacked))
    labels = np.repeat([0] * len(harmless) + [1] * len(LESSONS), len(clean))
    groups = np.tile(np.arange(len(clean)), len(rows))
    classifier = GradientBoostingClassifier(
        n_estimators=200, max_depth=3, subsample=0.7, random_state=SEED
    )
    fitted = np.concatenate(rows)
    scores = cross_val_predict(
        classifier, fitted, labels, groups=groups, cv=GroupKFold(5), method="decision_function"
    )
    limits = {rate: float(np.quantile(scores[labels == 0], 1 - rate)) for rate in RATES}
    classifier.fit(fitted, labels)
    clips = choose(model, options.data_folder, options.data_folder / "split.csv")

    def flagged(values: Array, owners: Sequence[int]) -> dict[str, Any]:
        return {
            f"{rate:g}": share_of(values > limit, list(owners), seed=SEED)
            for rate, limit in limits.items()
        }

    tested: Mapping[str, Tensor] = controls(clips.samples) | {
        "uniform noise, ±.002": uniform(clips.samples, 0.002, "test")
    }
    judged = {
        name: classifier.decision_function(answers(f"test-{name}", changed))
        for name, changed in tested.items()
    }
    found: dict[str, Any] = {"fitted": len(clean), "attacks": {}, "benign": {}}
    found["benign"] = {name: flagged(values, clips.speakers) for name, values in judged.items()}
    for goal in GOALS:
        for name in ATTACKS:
            places, attacked, success = examples(pretrained, clips, goal, name, work)
            if success.sum() < 5:
                continue
            values = classifier.decision_function(answers(f"test-{goal}-{name}", attacked))[success]
            owners = np.array(places)[success]
            found["attacks"][f"{goal}, {name}"] = {
                "succeed": int(success.sum()),
                "auroc": interval_of_auroc(values, judged["unchanged"], owners),
                "auroc_uniform": interval_of_auroc(values, judged["uniform noise, ±.002"], owners),
                "flagged": flagged(values, [clips.speakers[i] for i in owners]),
            }
    write_results(options.results, found)


if __name__ == "__main__":
    run(main)
