"""Make the lessons of a detector: clean windows changed harmlessly, and attacked.

Everything is made from the user's own clean recordings and model, without labels. Attacks push an
embedding away from its own voice or towards that of another clip, or change a predicted label; an
attack that moves the embedding no farther than harmless changes do teaches nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks.objectives import Identification, Objective, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.io import to_16_bits
from nip_audio.audio.resynthesis import can_resynthesize, resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of, seed_of
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.training_attacks import ModelUnderAttack, attack_once
from nip_audio.screening.changes import CHANGES, Kind
from nip_audio.screening.measure import device_of

__all__ = [
    "ATTACKS",
    "PURIFIED",
    "PURIFIED_KIND",
    "AttackLesson",
    "Lesson",
    "attacked_lesson",
    "by_length",
    "distances",
    "harmless_lesson",
    "purified_lesson",
]

PURIFIED = "purified"
"""Name of the lesson of purified clean windows."""

PURIFIED_KIND: Kind = "codec"
"""Its kind of condition. As a kind of its own it would be the smallest of all, and the two most
distant of its windows would set the threshold of every file."""

_BATCH = 16
_THRESHOLD = 0.5  # cosine at which attacks on a voice aim, until the budget is used up
_SHORT_SHARE, _SHORTEST_S = 0.25, 0.5


@dataclass(frozen=True)
class AttackLesson:
    """Attacks of one kind, whose strength is drawn for each batch.

    Attributes:
        method: Name in the registry of attacks; ``score`` is the cheap black-box family of
            ``purifiers.training_attacks``.
        goal: ``accept``: the voice of another clip; ``reject``: away from the own voice.
        eps: Weakest and strongest, drawn on a logarithmic scale.
        settings: Settings of the attack.
        changed: Whether a harmless change is made to the attacked window.
        narrow: Whether the window is first sampled at 8 kHz, and again after the attack.
        share: Share of the windows that are attacked so.
    """

    method: str
    goal: str
    eps: tuple[float, float] = (3e-4, 6e-3)
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False
    narrow: bool = False
    share: float = 1.0

    @property
    def name(self) -> str:
        """Name of the lesson."""
        low, high = self.eps
        what = " then changed" if self.changed else " at 8 kHz" if self.narrow else ""
        aim = {"accept": "towards another voice", "reject": "away from the own voice"}[self.goal]
        return f"{self.method.upper()} of ε {low:g} to {high:g}{what}, {aim}"


_PGD: Mapping[str, Any] = {"steps": 10}

ATTACKS: tuple[AttackLesson, ...] = (
    AttackLesson("pgd", "accept", settings=_PGD),
    AttackLesson("pgd", "reject", settings=_PGD),
    AttackLesson("pgd", "accept", (2e-4, 1e-3), _PGD, share=0.5),
    AttackLesson("fgsm", "accept", (5e-4, 6e-3), share=0.5),
    AttackLesson("fgsm", "reject", (5e-4, 6e-3), share=0.5),
    AttackLesson("mi-fgsm", "accept", settings=_PGD, share=0.5),
    AttackLesson("score", "reject", share=0.5),
    AttackLesson("pgd", "accept", settings=_PGD, changed=True),
    AttackLesson("pgd", "accept", (1e-3, 1e-2), _PGD, narrow=True, share=0.5),
)
"""Attacks that a detector learns from. What is tested with other families says so."""


@dataclass(frozen=True)
class Lesson:
    """Windows in one condition.

    Attributes:
        places: Place of each window's original among the clean windows.
        names: Condition of each in words, with its strength.
        windows: Waveforms (N,), not all of one length.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    windows: tuple[Tensor, ...]


def harmless_lesson(
    name: str, windows: Sequence[Tensor], *, sample_rate_hz: int, seed: int
) -> Lesson:
    """Change every window by one harmless change, at a strength drawn for each.

    A quarter of the changed windows is cut shorter, so that short recordings are known too.

    Args:
        name: Name of the change, a key of ``CHANGES``.
        windows: Clean waveforms (N,).
        sample_rate_hz: Their sample rate.
        seed: Seed of all draws.
    """
    change = CHANGES[name]
    rng = np.random.default_rng(seed_of(seed, "harmless", name))
    strengths = [change.draw(rng) for _ in windows]
    changed = [
        change.apply(window, sample_rate_hz=sample_rate_hz, strength=strength, rng=rng)
        for window, strength in zip(windows, strengths, strict=True)
    ]
    if name != "none":
        changed = [_shorter(x, rng, sample_rate_hz) for x in changed]
    return Lesson(
        tuple(range(len(windows))),
        tuple(change.name(strength) for strength in strengths),
        tuple(map(to_16_bits, changed)),
    )


@torch.no_grad()
def purified_lesson(
    model: InstrumentedModel, purifier: Purifier, windows: Sequence[Tensor], *, seed: int
) -> Lesson:
    """Purify every window, as a file is purified, so that purified copies are known to be harmless.

    A front end that cannot be inverted gives an empty lesson.

    Args:
        model: Model that the purifier was trained for.
        purifier: Purifier of the model's input.
        windows: Clean waveforms (N,).
        seed: Seed of a random purifier.
    """
    if not can_resynthesize(model.front_end):
        return Lesson((), (), ())
    made = []
    for place, window in enumerate(windows):
        before = model.to_input(Batch(window[None].to(device_of(model))))
        asked = purifier.purify(before, generator=generator_of(seed, PURIFIED, place)).x[0]
        sound = window.to(asked.device)
        made.append(resynthesize(sound, before.x[0], asked, model.front_end).samples.cpu())
    names = (PURIFIED,) * len(windows)
    return Lesson(tuple(range(len(windows))), names, tuple(map(to_16_bits, made)))


def attacked_lesson(
    attack: AttackLesson,
    model: InstrumentedModel,
    windows: Sequence[Tensor],
    *,
    sample_rate_hz: int,
    seed: int,
    least_move: float,
) -> Lesson:
    """Attack windows of a model's clean recordings; what hardly moves the model is left out.

    Args:
        attack: Attack and its strengths.
        model: Model to attack; a prediction by logits is attacked, else the embedding.
        windows: Clean waveforms (N,).
        sample_rate_hz: Their sample rate.
        seed: Seed of all draws.
        least_move: Cosine distance between embeddings below which an attack teaches nothing.
    """
    seed = seed_of(seed, "attacked", attack.name, attack.eps[0])
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(windows))[: max(1, round(attack.share * len(windows)))]
    places: list[int] = []
    found: list[Tensor] = []
    names: list[str] = []
    low, high = attack.eps
    for part in by_length([windows[i] for i in chosen]):
        eps = float(low * (high / low) ** rng.uniform())
        clean = torch.stack([windows[chosen[i]] for i in part])
        if attack.narrow:
            clean = _at_8_khz(clean, sample_rate_hz)
        made = to_16_bits(_attack(model, clean, attack, eps, generator_of(seed, part[0])))
        if attack.narrow:
            made = _at_8_khz(made, sample_rate_hz)
        if attack.changed:
            seeds = rng.integers(2**31, size=len(part)).tolist()
            clean, made = (_all_changed(x, seeds, sample_rate_hz) for x in (clean, made))
        far = distances(model, clean, made).tolist()
        for place, window, moved in zip(part, made, far, strict=True):
            if moved >= least_move:
                places.append(int(chosen[place]))
                found.append(_shorter(window, rng, sample_rate_hz))
                names.append(f"an attack ({attack.method.upper()}, ε {eps:.4f})")
    return Lesson(tuple(places), tuple(names), tuple(found))


def by_length(windows: Sequence[Tensor], most: int = _BATCH) -> Iterator[list[int]]:
    """Yield the places of windows of one length, at most ``most`` at a time."""
    order = sorted(range(len(windows)), key=lambda i: (len(windows[i]), i))
    part: list[int] = []
    for i in order:
        if part and (len(windows[i]) != len(windows[part[0]]) or len(part) == most):
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _attack(
    model: InstrumentedModel,
    clean: Tensor,
    lesson: AttackLesson,
    eps: float,
    generator: torch.Generator,
) -> Tensor:
    batch = Batch(clean)
    with torch.no_grad():
        embeddings = model.embed(batch)
        classes = None
        if model.head is not None and model.output_kind == "logits":
            classes = model.score_embeddings(embeddings).argmax(dim=1)
    if lesson.method == "score":
        victim = ModelUnderAttack(model, batch, embeddings, classes)
        strengths = torch.full((len(clean),), eps)
        return attack_once(
            victim, "score", strengths, by_class=classes is not None, generator=generator
        )
    attack = make_attack(lesson.method, eps=eps, settings=dict(lesson.settings))
    objective = _objective(model, embeddings, classes, lesson.goal, generator)
    return attack(objective, batch, generator=generator).batch.x


def _objective(
    model: InstrumentedModel,
    embeddings: Tensor,
    classes: Tensor | None,
    goal: str,
    generator: torch.Generator,
) -> Objective:
    """Aim at the prediction of a model that has one, and at the voice of any other."""
    towards = goal == "accept" and len(embeddings) > 1
    if classes is not None:
        count = len(model.labels)
        if not towards or count < 2:
            return Identification(model, classes)
        step = torch.randint(1, count, classes.shape, generator=generator)
        return Identification(model, (classes + step) % count, targeted=True)
    claimed = embeddings.roll(1, 0) if towards else embeddings
    return Verification(
        model,
        claimed,
        threshold=_THRESHOLD,
        goal="accept" if towards else "reject",
        self_reference=not towards,
    )


_AFTER_ATTACK: tuple[str, ...] = ("white", "uniform", "mp3", "opus", "gain", "low-pass", "room")


def _at_8_khz(windows: Tensor, sample_rate_hz: int) -> Tensor:
    """Leave what a recording at 8 kHz holds; nothing is drawn."""
    change, rng = CHANGES["8 kHz"], np.random.default_rng(0)
    changed = [
        change.apply(x, sample_rate_hz=sample_rate_hz, strength=0.0, rng=rng) for x in windows
    ]
    return to_16_bits(torch.stack(changed))


def _all_changed(windows: Tensor, seeds: Sequence[int], sample_rate_hz: int) -> Tensor:
    changed = [_changed(x, seed, sample_rate_hz) for x, seed in zip(windows, seeds, strict=True)]
    return torch.stack(changed)


def _changed(x: Tensor, seed: int, sample_rate_hz: int) -> Tensor:
    """Make a harmless change, the same for every window with one seed."""
    rng = np.random.default_rng(seed)
    change = CHANGES[_AFTER_ATTACK[rng.integers(len(_AFTER_ATTACK))]]
    strength = change.draw(rng)
    return to_16_bits(change.apply(x, sample_rate_hz=sample_rate_hz, strength=strength, rng=rng))


def _shorter(x: Tensor, rng: np.random.Generator, sample_rate_hz: int) -> Tensor:
    """Cut a quarter of the windows to a drawn length."""
    least = round(_SHORTEST_S * sample_rate_hz)
    if rng.uniform() >= _SHORT_SHARE or len(x) <= least:
        return x
    # few lengths, so that windows of one length make batches
    size = int(least + (len(x) - least) * rng.integers(5) / 5)
    start = int(rng.integers(len(x) - size + 1))
    return x[start : start + size]


@torch.no_grad()
def distances(model: InstrumentedModel, clean: Tensor, changed: Tensor) -> Tensor:
    """Return the cosine distance between the embeddings of clean and changed windows, (B,)."""
    before, after = model.embed(Batch(clean)), model.embed(Batch(changed))
    return 1 - torch.cosine_similarity(before, after, dim=1)
