"""Train a guided purifier: attack one's own model, and bring its neurons back."""

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
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError, ResumeError
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.training_attacks import FAMILIES, Victim, attack_once

__all__ = ["Draw", "GuidedSettings", "Progress", "train_guided"]

Draw = Callable[[torch.Generator], Batch]
"""Returns a batch of benign raw items, chosen by the generator; every batch has the same shape."""

Progress = Callable[[int, float, float], None]
"""Called with the step, its loss, and the share of its items that are named as unattacked."""

_KIND = "guided training"
_RAW, _INPUT = "raw", "input"
_QUANTUM = 2.0**-15  # a step of 16-bit audio: what is attacked is a file
_KEEP = 20  # steps, at least, from one checkpoint to the next
_AT_ONCE = 4  # batches that are attacked at once, where examples serve more than one step


@dataclass(frozen=True)
class GuidedSettings:
    """How a guided purifier is trained.

    Attributes:
        steps: Batches.
        reuse: How many of them an attacked example is part of, on average. The batches of 1 are
            attacked as they come; otherwise some are attacked at once, and dealt anew.
        lr: Largest learning rate of AdamW; it rises over a twentieth of the steps and falls to 0 by
            a cosine.
        width: Of the network.
        benign_share: Of each batch that is not attacked.
        raw_share: Of the steps in which the waveform is attacked, rather than the spectrogram.
        eps_raw: Weakest and strongest L∞ attack on raw input; drawn log-uniformly.
        eps_input: Likewise on the model's input.
        families: Kinds of attacks, of ``FAMILIES``; one named twice is drawn twice as often.
        adaptive_share: Of the attacked steps in which the attacker goes through the purifier; ε
            then grows over the first half of the steps.
        noise: Standard deviation of white noise before the network, in units of the model's input.
        snr_db: Ratio of raw input to white noise in it; None is no noise. Whoever attacks the
            model's input goes round it, so that ``raw_share`` must be 1.
        influence_weight: How much more an influential neuron counts than one without influence.
        decision_weight: Of the cross-entropy against the model's own unattacked decision, or of the
            angle between embeddings where there is none.
        input_weight: Of the mean squared difference from the unattacked input.
        seed: Of everything random.

    Raises:
        InputError: If a setting makes no sense.
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
        """Check."""
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.families:
            raise InputError(f"families are {self.families}, expected some of {tuple(FAMILIES)}")
        shares = (self.benign_share, self.raw_share, self.adaptive_share)
        if not all(0 <= share <= 1 for share in shares) or self.benign_share == 1:
            raise InputError(
                f"benign_share, raw_share and adaptive_share are {shares}, expected 0 to 1, and "
                "not everything benign"
            )
        if self.steps < 1 or self.reuse < 1 or not self.lr > 0:
            raise InputError(
                f"steps is {self.steps}, reuse {self.reuse} and lr {self.lr}, expected ≥ 1, ≥ 1 "
                "and > 0"
            )
        if not 0 <= self.noise <= 0.5:
            raise InputError(f"noise is {self.noise}, expected 0 to 0.5 in units of the input")
        if self.snr_db is not None and self.raw_share != 1:
            raise InputError(
                f"raw_share is {self.raw_share} with noise in raw input, expected 1: whoever "
                "attacks behind the noise goes round it"
            )
        for low, high in (self.eps_raw, self.eps_input):
            if not 0 < low <= high <= 0.5:
                raise InputError(
                    f"strengths are {(low, high)}, expected 0 < weakest ≤ strongest ≤ 0.5"
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def train_guided(
    model: InstrumentedModel,
    draw: Draw,
    settings: GuidedSettings,
    *,
    layers: Sequence[str],
    model_id: str,
    seen: Sequence[str] = (),
    start: GuidedNip | None = None,
    checkpoint: Path | None = None,
    progress: Progress = lambda step, loss, kept: None,
) -> GuidedNip:
    """Train a purifier for one model on benign audio without labels.

    Every batch is attacked by one of the families, through model or, where adaptive, purifier and
    model; a share of what is attacked is left benign. The network is to bring the neurons' outputs
    φ of all ``layers`` back to those of the unattacked input, the influential ones most (NIP,
    Eq. 2), and the decision.

    Args:
        model: Frozen, in evaluation mode; nothing in it changes.
        draw: Source of benign raw batches.
        settings: How.
        layers: Whose neurons are looked at.
        model_id: Identity of the model, for the checkpoint.
        seen: Content hashes of what ``draw`` draws from.
        start: Purifier of the same model to go on from, e.g. to make one adaptive that already
            knows what speech looks like; None starts from nothing.
        checkpoint: File by which an interrupted training goes on where it was.
        progress: Called after each step.

    Raises:
        InputError: If the model has no front end to work behind, or no layers are given.
        ResumeError: If the checkpoint is of another training.
    """
    if not layers:
        raise InputError("no layers were given, expected some, e.g. the model's default taps")
    run = _Training.start(model, settings, tuple(layers), model_id, frozenset(seen), start)
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint)
    while run.step < settings.steps:
        for loss, kept in run.round(draw):
            progress(run.step, loss, kept)
        if checkpoint is not None and (run.since_kept >= _KEEP or run.step == settings.steps):
            run.keep(checkpoint)
    run.net.eval().requires_grad_(False)
    return run.purifier()


@dataclass
class _Training:
    """A training under way."""

    model: InstrumentedModel
    settings: GuidedSettings
    layers: tuple[str, ...]
    model_id: str
    seen: frozenset[str]
    before: GuidedNip | None
    net: InverseNet
    optimizer: torch.optim.AdamW
    step: int = 0
    since_kept: int = 0

    @classmethod
    def start(
        cls,
        model: InstrumentedModel,
        settings: GuidedSettings,
        layers: tuple[str, ...],
        model_id: str,
        seen: frozenset[str],
        before: GuidedNip | None,
    ) -> _Training:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            net = InverseNet(width=settings.width)
        if before is not None:
            if before.net.width != settings.width:
                raise InputError(
                    f"the purifier to start from is {before.net.width} channels wide, expected "
                    f"{settings.width}, the width of this training; give both the same"
                )
            net.load_state_dict(before.net.state_dict())
            seen |= before.seen
        net.to(next(model.parameters()).device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=1e-4)
        return cls(model, settings, layers, model_id, seen, before, net, optimizer)

    def purifier(self) -> GuidedNip:
        """Return the purifier as it is now, sharing the network."""
        return GuidedNip(
            self.net,
            bounds=self.model.input_bounds,
            noise=self.settings.noise,
            snr_db=self.settings.snr_db,
            raw_bounds=self.model.bounds,
            seen=self.seen,
            training={
                **self.settings.to_json(),
                "layers": list(self.layers),
                "start": None if self.before is None else self.before.settings(),
            },
        )

    def round(self, draw: Draw) -> Iterator[tuple[float, float]]:
        """Attack a few batches and take the steps that they serve for.

        Yields:
            After each step its loss, and the share of its items that are named as unattacked.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(_seed_of(settings.seed, self.step))
        batches = 1 if settings.reuse == 1 else _AT_ONCE
        lessons = _Lessons.join([self._attack(draw(generator), generator) for _ in range(batches)])
        steps = min(batches * settings.reuse, settings.steps - self.step)
        for rows in _deal(len(lessons), batches, settings.reuse, generator)[:steps]:
            yield self._learn(lessons.rows(rows), generator)

    def _learn(self, lessons: _Lessons, generator: torch.Generator) -> tuple[float, float]:
        """Take one step."""
        settings = self.settings
        benign = torch.rand(len(lessons), generator=generator) < settings.benign_share
        mask = benign.to(lessons.clean.x.device).reshape(-1, *[1] * (lessons.clean.x.dim() - 1))
        shown = lessons.clean.with_x(torch.where(mask, lessons.benign, lessons.attacked))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(self.step, settings.steps)
        purified = self.purifier().purify(shown, generator=generator)
        loss, kept = lessons.truth.loss(self.model, purified, settings)
        loss = loss + settings.input_weight * (purified.x - lessons.clean.x).square().mean()
        if not bool(loss.isfinite()):
            raise InputError(f"the loss of step {self.step} is not finite; lower lr")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.since_kept += 1
        return float(loss.detach()), float(kept.float().mean())

    def _attack(self, raw: Batch, generator: torch.Generator) -> _Lessons:
        """Attack every item of a batch by one family."""
        settings = self.settings
        raw = raw.with_x(raw.masked())
        with torch.no_grad():
            clean = self.model.to_input(raw)
        truth = _Truth.of(self.model, clean, self.layers, settings.influence_weight)

        def chance(share: float) -> bool:
            return float(torch.rand(1, generator=generator)) < share

        def choose(names: Sequence[str]) -> str:
            return names[int(torch.randint(len(names), (1,), generator=generator))]

        level = _RAW if chance(settings.raw_share) else _INPUT
        # a waveform with a few samples at full scale is a click, which no known attack makes
        families = [f for f in settings.families if not (f == "sparse" and level == _RAW)]
        if not families:
            level, families = _INPUT, list(settings.families)
        family, by_name = choose(families), chance(0.75)
        adaptive = chance(settings.adaptive_share)
        low, high = settings.eps_raw if level == _RAW else settings.eps_input
        if adaptive:  # strong attacks at once are never withstood, and teach nothing
            high = low * (high / low) ** min(1.0, 2 * (self.step + 1) / settings.steps)
        eps = low * (high / low) ** torch.rand(len(raw), generator=generator)
        batch = raw if level == _RAW else clean
        known = self.model if level == _RAW else self.model.without_front_end()
        if adaptive:
            known = _behind(known, self.purifier(), generator)
        victim = Victim(known, batch, truth.embeddings, truth.named)
        with _as_deployed(self.net):
            x = attack_once(victim, family, eps, by_name=by_name, generator=generator)
        if level == _INPUT:
            return _Lessons(clean, clean.x, x, truth)
        x = (x / _QUANTUM).round() * _QUANTUM
        benign, x = (self._heard(raw.with_x(r), generator) for r in (raw.x, x))
        return _Lessons(clean, benign, x, truth)

    @torch.no_grad()
    def _heard(self, raw: Batch, generator: torch.Generator) -> Tensor:
        """Model input of raw input, with noise in it where there is to be any."""
        before = self.purifier().before
        if before is not None:
            raw = before.purify(raw, generator=generator)
        return self.model.to_input(raw).x

    def keep(self, path: Path) -> None:
        """Write what is needed to go on."""
        tensors = {f"net.{name}": t for name, t in self.net.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{i}.{name}": t for name, t in moments.items()}
        meta = {"step": self.step, "training": self.purifier().training, "seen": sorted(self.seen)}
        save_state(path, State(_KIND, self.model_id, tensors, meta), force=True)
        self.since_kept = 0

    def resume(self, path: Path) -> None:
        """Go on from what ``keep`` wrote."""
        state = load_state(path, kind=_KIND, model_id=self.model_id)
        same = state.meta["training"] == self.purifier().training
        if not same or state.meta["seen"] != sorted(self.seen):
            raise ResumeError(
                f"{path} is of a training with other settings or other audio; delete it to start "
                "anew, or repeat the settings that it was started with"
            )
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            owner, key = name.rsplit(".", 1) if name.startswith("moments.") else ("net", name[4:])
            parts.setdefault(owner, {})[key] = tensor
        self.net.load_state_dict(parts.pop("net"))
        moments = {int(owner.removeprefix("moments.")): values for owner, values in parts.items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step = int(state.meta["step"])


@dataclass(frozen=True)
class _Lessons:
    """Items in pairs of what is shown, benign or attacked, and what is to come of it.

    Attributes:
        clean: Model input.
        benign: The same, as the purifier is shown it: with the noise it stands behind, if any.
        attacked: What an attacker made of it, likewise.
        truth: What the model makes of ``clean``.
    """

    clean: Batch
    benign: Tensor
    attacked: Tensor
    truth: _Truth

    def __len__(self) -> int:
        return len(self.clean)

    @classmethod
    def join(cls, parts: Sequence[_Lessons]) -> _Lessons:
        if len(parts) == 1:
            return parts[0]
        lengths = [p.clean.lengths for p in parts if p.clean.lengths is not None]
        return cls(
            Batch(torch.cat([p.clean.x for p in parts]), torch.cat(lengths) if lengths else None),
            torch.cat([p.benign for p in parts]),
            torch.cat([p.attacked for p in parts]),
            _Truth.join([p.truth for p in parts]),
        )

    def rows(self, rows: Tensor) -> _Lessons:
        lengths = self.clean.lengths
        clean = Batch(self.clean.x[rows], None if lengths is None else lengths[rows])
        return _Lessons(clean, self.benign[rows], self.attacked[rows], self.truth.rows(rows))


@dataclass(frozen=True)
class _Truth:
    """What the model makes of the unattacked items, to which everything is to be brought back.

    Attributes:
        embeddings: (B, D).
        named: (B,) classes; None for a bare embedding model.
        neurons: (B, N) outputs φ, by layer.
        weights: (B, N) how much each neuron counts, by layer.
    """

    embeddings: Tensor
    named: Tensor | None
    neurons: dict[str, Tensor]
    weights: dict[str, Tensor]

    @classmethod
    def of(
        cls, model: InstrumentedModel, clean: Batch, layers: Sequence[str], influence_weight: float
    ) -> _Truth:
        with torch.enable_grad(), model.tap(*layers) as tap:
            x = clean.x.detach().requires_grad_(True)
            embeddings = model.embed_input(clean.with_x(x))
            named = None
            if model.head is None:
                y = (embeddings * nn.functional.normalize(embeddings.detach(), dim=1)).sum(dim=1)
            else:
                logits = model.logits(model.score_embeddings(embeddings))
                named = logits.argmax(dim=1)
                y = logits.gather(1, named[:, None])
            maps = {layer: tap[layer] for layer in layers}
            # one backward pass for the influence of the neurons of all layers
            gradients = torch.autograd.grad(y.sum(), list(maps.values()), allow_unused=True)
        neurons, weights = {}, {}
        for (layer, activation), gradient in zip(maps.items(), gradients, strict=True):
            if gradient is None:
                raise InputError(f"the decision does not depend on layer {layer!r}; leave it out")
            phi = neuron_outputs(activation, model.tap_lengths(layer, clean.lengths)).detach()
            total = gradient if gradient.dim() == 2 else gradient.flatten(2).sum(dim=2)
            influence = (total * phi).abs()
            relative = influence / influence.mean(dim=1, keepdim=True).clamp_min(1e-12)
            neurons[layer] = phi
            weights[layer] = 1 + influence_weight * relative
        return cls(embeddings.detach(), named, neurons, weights)

    @classmethod
    def join(cls, parts: Sequence[_Truth]) -> _Truth:
        named = [p.named for p in parts if p.named is not None]
        layers = parts[0].neurons
        return cls(
            torch.cat([p.embeddings for p in parts]),
            torch.cat(named) if named else None,
            {layer: torch.cat([p.neurons[layer] for p in parts]) for layer in layers},
            {layer: torch.cat([p.weights[layer] for p in parts]) for layer in layers},
        )

    def rows(self, rows: Tensor) -> _Truth:
        return _Truth(
            self.embeddings[rows],
            None if self.named is None else self.named[rows],
            {layer: phi[rows] for layer, phi in self.neurons.items()},
            {layer: weight[rows] for layer, weight in self.weights.items()},
        )

    def loss(
        self, model: InstrumentedModel, purified: Batch, settings: GuidedSettings
    ) -> tuple[Tensor, Tensor]:
        """Return how far purified items are from the truth, and which are named as they were."""
        with model.tap(*self.neurons) as tap:
            embeddings = model.embed_input(purified)
            total = torch.zeros((), device=embeddings.device)
            for layer, phi in self.neurons.items():
                now = neuron_outputs(tap[layer], model.tap_lengths(layer, purified.lengths))
                weight = self.weights[layer]
                wrong = (weight * (now - phi).square()).sum(dim=1)
                total = total + (wrong / (weight * phi.square()).sum(dim=1).clamp_min(1e-6)).mean()
        total = total / len(self.neurons)
        angle = 1 - nn.functional.cosine_similarity(embeddings, self.embeddings)
        if self.named is None:
            return total + settings.decision_weight * 5 * angle.mean(), angle < _SAME_VOICE
        logits = model.logits(model.score_embeddings(embeddings))
        wrong_name = nn.functional.cross_entropy(logits, self.named)
        kept = logits.argmax(dim=1) == self.named
        return total + settings.decision_weight * (wrong_name + angle.mean()), kept


_SAME_VOICE = 0.3  # 1 − cosine below which two embeddings would be taken for one speaker


class _PurifyingFrontEnd(nn.Module):
    """A front end, or none, with the purifier that is being trained behind it."""

    def __init__(
        self, front_end: nn.Module | None, purifier: GuidedNip, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.front_end = front_end
        self.purifier = purifier
        self.generator = generator

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        frames = lengths
        if self.front_end is not None:
            if self.purifier.before is not None:
                x = self.purifier.before.purify(Batch(x, lengths), generator=self.generator).x
            x, frames = self.front_end(x, lengths)
            frames = None if lengths is None else frames
        return self.purifier.purify(Batch(x, frames), generator=self.generator).x, frames


def _behind(
    model: InstrumentedModel, purifier: GuidedNip, generator: torch.Generator
) -> InstrumentedModel:
    """The model as an attacker sees it who knows the purifier as it is now."""
    parts = model.parts()
    parts["front_end"] = _PurifyingFrontEnd(model.front_end, purifier, generator)
    return InstrumentedModel(model.network, **parts).eval()


@contextmanager
def _as_deployed(net: nn.Module) -> Iterator[None]:
    """A network in evaluation mode without gradients for its weights, as an attacker meets it."""
    net.eval().requires_grad_(False)
    try:
        yield
    finally:
        net.train().requires_grad_(True)


def _deal(items: int, hands: int, times: int, generator: torch.Generator) -> list[Tensor]:
    """Deal all items to so many hands, and that so many times over."""
    return [
        hand
        for _ in range(times)
        for hand in torch.randperm(items, generator=generator).tensor_split(hands)
    ]


def _seed_of(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % 2**63


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over a twentieth of the steps, down by a cosine."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
