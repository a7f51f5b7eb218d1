"""Train a guided purifier: attack one's own model, and learn to restore its neuron outputs.

Guided NIP is a trained form of neuron-level inverse perturbation (NIP, Chen et al., arXiv
2112.13060).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError, ResumeError
from nip_audio.purifiers._lessons import CleanResponse, TrainingExamples
from nip_audio.purifiers.defended_model import DefendedModel
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.training_attacks import FAMILIES, ModelUnderAttack, attack_once

__all__ = ["Draw", "GuidedSettings", "Progress", "train_guided"]

Draw = Callable[[torch.Generator], Batch]
"""Function that returns a batch of benign raw items drawn by a generator, always of one shape."""

Progress = Callable[[int, float, float], None]
"""Function called with the step, its loss, and the share of items that keep their prediction."""

_KIND = "guided training"
_RAW, _INPUT = "raw", "input"
_QUANTUM = 2.0**-15  # step of 16-bit audio: attacked waveforms are rounded as in a file
_KEEP = 20  # least number of steps between two checkpoints
_AT_ONCE = 4  # number of batches attacked together if examples are used in more than one step


@dataclass(frozen=True)
class GuidedSettings:
    """Settings of the training of a guided purifier.

    Attributes:
        steps: Number of training steps, one batch each.
        reuse: Number of steps that use an attacked example, on average. With 1, every batch is
            attacked when its step comes; otherwise a few batches are attacked together, and
            their examples are shuffled anew for every reuse.
        lr: Peak learning rate of AdamW; it rises over the first twentieth of the steps and falls
            to 0 along a cosine.
        width: Channels of the network at half resolution.
        benign_share: Share of each batch that is not attacked.
        raw_share: Share of the steps that attack the waveform rather than the spectrogram.
        eps_raw: Weakest and strongest L∞ attack on raw input; ε is drawn log-uniformly.
        eps_input: Weakest and strongest L∞ attack on model input; ε is drawn log-uniformly.
        families: Families of attacks, from ``FAMILIES``; one listed twice is drawn twice as often.
        adaptive_share: Share of the attacked steps whose attack goes through the purifier; ε then
            grows over the first half of the training.
        noise: Standard deviation of white noise added before the network, in units of the model's
            input.
        snr_db: Signal-to-noise ratio of white noise added to raw input; None adds none. An attack
            on model input would bypass this noise, so ``raw_share`` must then be 1.
        influence_weight: Extra weight of a neuron of average influence (NIP, Eq. 2) over a neuron
            without influence.
        decision_weight: Weight of the decision in the loss: of the cosine distance between
            embeddings and, if the model has a head, of the cross-entropy against its prediction
            for the clean input.
        input_weight: Weight of the mean squared difference from the clean input.
        seed: Seed of all random draws of the training.

    Raises:
        InputError: If a setting is out of range.
    """

    steps: int = 900
    reuse: int = 3
    lr: float = 4e-3
    width: int = 24
    benign_share: float = 0.3
    raw_share: float = 0.5
    eps_raw: tuple[float, float] = (3e-4, 6e-3)
    eps_input: tuple[float, float] = (2 / 255, 20 / 255)
    families: tuple[str, ...] = (*["gradient"] * 5, *FAMILIES)
    adaptive_share: float = 0.0
    noise: float = 0.0
    snr_db: float | None = None
    influence_weight: float = 2.0
    decision_weight: float = 1.0
    input_weight: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.families:
            raise InputError(
                f"families are {self.families}, expected at least one of {tuple(FAMILIES)} and no "
                "others"
            )
        shares = (self.benign_share, self.raw_share, self.adaptive_share)
        if not all(0 <= share <= 1 for share in shares) or self.benign_share == 1:
            raise InputError(
                f"benign_share, raw_share and adaptive_share are {shares}, expected 0 to 1, and "
                "benign_share below 1, so that something is attacked"
            )
        if self.steps < 1 or self.reuse < 1 or not self.lr > 0:
            raise InputError(
                f"steps is {self.steps}, reuse is {self.reuse} and lr is {self.lr}, expected ≥ 1, "
                "≥ 1 and > 0"
            )
        if not 0 <= self.noise <= 0.5:
            raise InputError(
                f"noise is {self.noise}, expected 0 to 0.5 in units of the model's input"
            )
        if self.snr_db is not None and self.raw_share != 1:
            raise InputError(
                f"raw_share is {self.raw_share} with noise in raw input, expected 1: an attack "
                "on model input would bypass the noise; set raw_share to 1 or snr_db to None"
            )
        for low, high in (self.eps_raw, self.eps_input):
            if not 0 < low <= high <= 0.5:
                raise InputError(
                    f"attack strengths are {(low, high)}, expected 0 < weakest ≤ strongest ≤ 0.5"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def train_guided(
    model: InstrumentedModel,
    draw: Draw,
    settings: GuidedSettings,
    *,
    layers: Sequence[str],
    model_id: str,
    channels: int = 1,
    seen: Sequence[str] = (),
    start: GuidedNip | None = None,
    checkpoint: Path | None = None,
    progress: Progress = lambda step, loss, kept: None,
) -> GuidedNip:
    """Train a purifier for one model on benign items without labels.

    Every batch is attacked by one of the families, through the model or, in adaptive steps, through
    purifier and model; a share of its items is left benign. The network learns to restore the
    decision and the neuron outputs φ (NIP, Eq. 1) of all ``layers`` to those of the clean input.
    Neurons of high influence (NIP, Eq. 2) have the largest weight.

    Args:
        model: Frozen model in evaluation mode; it is not modified.
        draw: Source of benign raw batches.
        settings: Settings of the training.
        layers: Names of the layers whose neurons are restored.
        model_id: Identity of the model, which the checkpoint is bound to.
        channels: Number of channels of the model's input; 1 if it has no channel axis.
        seen: Content hashes of the items that ``draw`` draws from.
        start: Purifier of the same model to continue from, e.g. to continue a plain training with
            adaptive attacks; None starts from an untrained network.
        checkpoint: File from which an interrupted training is resumed; None writes none.
        progress: Function called after each step.

    Returns:
        The trained purifier, frozen and in evaluation mode.

    Raises:
        InputError: If no layers are given, the decision does not depend on one of them, ``start``
            is of another size, or the loss is not finite.
        GradientError: If the model gives no gradient.
        ResumeError: If the checkpoint belongs to another training.
    """
    if not layers:
        raise InputError(
            "no layers were given, expected at least one name; pass e.g. the model's default taps"
        )
    run = _Training.begin(model, settings, tuple(layers), frozenset(seen), start, channels=channels)
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint, model_id)
    kept_at = run.step
    while run.step < settings.steps:
        for loss, kept in run.round(draw):
            progress(run.step, loss, kept)
        if checkpoint is not None and (run.step - kept_at >= _KEEP or run.step == settings.steps):
            run.keep(checkpoint, model_id)
            kept_at = run.step
    run.net.eval().requires_grad_(False)
    return run.purifier


@dataclass
class _Training:
    """State of a training in progress.

    Attributes:
        model: Model to defend.
        settings: Settings of the training.
        layers: Names of the layers whose neurons are restored.
        purifier: Purifier that holds the network in training.
        optimizer: Optimizer of the network.
        step: Number of steps taken.
    """

    model: InstrumentedModel
    settings: GuidedSettings
    layers: tuple[str, ...]
    purifier: GuidedNip
    optimizer: torch.optim.AdamW
    step: int = 0

    @classmethod
    def begin(
        cls,
        model: InstrumentedModel,
        settings: GuidedSettings,
        layers: tuple[str, ...],
        seen: frozenset[str],
        start: GuidedNip | None,
        *,
        channels: int = 1,
    ) -> _Training:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            net = InverseNet(channels, width=settings.width)
        if start is not None:
            if (start.net.width, start.net.channels) != (settings.width, channels):
                raise InputError(
                    f"the purifier to start from has width {start.net.width} and "
                    f"{start.net.channels} input channels, expected {settings.width} and "
                    f"{channels} as in this training; give both the same"
                )
            net.load_state_dict(start.net.state_dict())
            seen |= start.seen
        weight = next(model.parameters(), None)  # a black box has none
        net.to("cpu" if weight is None else weight.device)
        purifier = GuidedNip(
            net,
            bounds=model.input_bounds,
            noise=settings.noise,
            snr_db=settings.snr_db,
            raw_bounds=model.bounds,
            seen=seen,
            training={
                **settings.to_json(),
                "layers": list(layers),
                "start": None if start is None else start.settings(),
            },
        )
        optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=1e-4)
        return cls(model, settings, layers, purifier, optimizer)

    @property
    def net(self) -> InverseNet:
        """The network that is trained."""
        return self.purifier.net

    def round(self, draw: Draw) -> Iterator[tuple[float, float]]:
        """Attack a few batches, and take the training steps that use them.

        Yields:
            The loss of each step, and the share of its items that keep their prediction.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(_seed_of(settings.seed, self.step))
        batches = 1 if settings.reuse == 1 else _AT_ONCE
        examples = TrainingExamples.join(
            [self._attack(draw(generator), generator) for _ in range(batches)]
        )
        steps = min(batches * settings.reuse, settings.steps - self.step)
        for rows in _deal(len(examples), batches, settings.reuse, generator)[:steps]:
            yield self._learn(examples.rows(rows), generator)

    def _learn(self, examples: TrainingExamples, generator: torch.Generator) -> tuple[float, float]:
        """Take one training step; return its loss and the share of items that keep their class."""
        settings = self.settings
        benign = torch.rand(len(examples), generator=generator) < settings.benign_share
        mask = benign.to(examples.clean.x.device).reshape(-1, *[1] * (examples.clean.x.dim() - 1))
        shown = examples.clean.with_x(torch.where(mask, examples.benign, examples.attacked))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(self.step, settings.steps)
        purified = self.purifier.purify(shown, generator=generator)
        loss, kept = examples.response.loss(
            self.model, purified, decision_weight=settings.decision_weight
        )
        loss = loss + settings.input_weight * (purified.x - examples.clean.x).square().mean()
        if not bool(loss.isfinite()):
            raise InputError(
                f"the loss of step {self.step} is not finite, expected a finite number; lower lr"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach()), float(kept.float().mean())

    def _attack(self, raw: Batch, generator: torch.Generator) -> TrainingExamples:
        """Attack every item of a batch with one family of attacks."""
        settings = self.settings
        raw = raw.with_x(raw.masked())
        with torch.no_grad():
            clean = self.model.to_input(raw)
        response = CleanResponse.of(self.model, clean, self.layers, settings.influence_weight)

        def chance(share: float) -> bool:
            return float(torch.rand(1, generator=generator)) < share

        def choose(names: Sequence[str]) -> str:
            return names[int(torch.randint(len(names), (1,), generator=generator))]

        level = _RAW if chance(settings.raw_share) else _INPUT
        # no known attack sets a few samples of a waveform to full scale: that is an audible click
        families = [f for f in settings.families if not (f == "sparse" and level == _RAW)]
        if not families:
            level, families = _INPUT, list(settings.families)
        family, by_class = choose(families), chance(0.75)
        adaptive = chance(settings.adaptive_share)
        low, high = settings.eps_raw if level == _RAW else settings.eps_input
        if adaptive:  # attacks that are strong from the start always succeed and teach nothing
            high = low * (high / low) ** min(1.0, 2 * (self.step + 1) / settings.steps)
        eps = low * (high / low) ** torch.rand(len(raw), generator=generator)
        batch = raw if level == _RAW else clean
        known = self.model if level == _RAW else self.model.without_front_end()
        if adaptive:
            known = DefendedModel(known, self.purifier, generator=generator)
        victim = ModelUnderAttack(known, batch, response.embeddings, response.predictions)
        with _as_deployed(self.net):
            x = attack_once(victim, family, eps, by_class=by_class, generator=generator)
        if level == _INPUT:
            return TrainingExamples(clean, clean.x, x, response)
        x = (x / _QUANTUM).round() * _QUANTUM
        before = self.purifier.before
        if before is None:
            return TrainingExamples(clean, clean.x, self._input(raw.with_x(x)), response)
        noisy = [before.purify(raw.with_x(r), generator=generator) for r in (raw.x, x)]
        benign, attacked = map(self._input, noisy)
        return TrainingExamples(clean, benign, attacked, response)

    @torch.no_grad()
    def _input(self, raw: Batch) -> Tensor:
        return self.model.to_input(raw).x

    def keep(self, path: Path, model_id: str) -> None:
        """Write a checkpoint."""
        tensors = {f"net.{name}": t for name, t in self.net.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{i}.{name}": t for name, t in moments.items()}
        meta = {
            "step": self.step,
            "training": self.purifier.training,
            "seen": sorted(self.purifier.seen),
        }
        save_state(path, State(_KIND, model_id, tensors, meta), force=True)

    def resume(self, path: Path, model_id: str) -> None:
        """Restore the state from a checkpoint that ``keep`` wrote."""
        state = load_state(path, kind=_KIND, model_id=model_id)
        same = state.meta["training"] == self.purifier.training
        if not same or state.meta["seen"] != sorted(self.purifier.seen):
            raise ResumeError(
                f"checkpoint {path} belongs to a training with other settings or other audio; "
                "delete it to start anew, or repeat the settings that it was started with"
            )
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            owner, key = name.rsplit(".", 1) if name.startswith("moments.") else ("net", name[4:])
            parts.setdefault(owner, {})[key] = tensor
        self.net.load_state_dict(parts.pop("net"))
        moments = {int(owner.removeprefix("moments.")): values for owner, values in parts.items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step = int(state.meta["step"])


@contextmanager
def _as_deployed(net: nn.Module) -> Iterator[None]:
    """Freeze a network in evaluation mode, as it is deployed, and resume training on exit."""
    net.eval().requires_grad_(False)
    try:
        yield
    finally:
        net.train().requires_grad_(True)


def _deal(items: int, hands: int, times: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffle the items into ``hands`` batches, ``times`` times; return the indices of each."""
    return [
        hand
        for _ in range(times)
        for hand in torch.randperm(items, generator=generator).tensor_split(hands)
    ]


def _seed_of(seed: int, step: int) -> int:
    # older than core.seeds, and kept: the shipped purifiers were trained with it
    return (seed * 1_000_003 + step) % 2**63


def _schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear rise, then a cosine down to 0."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
