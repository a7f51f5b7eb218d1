"""The published NIP: a pool of inverse perturbations of benign items, and a choice among them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, masked_mean
from nip_audio.core.influence import InfluenceOf, NeuronSelection, select_neurons
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError, StateError, TemplateEmptyWarning
from nip_audio.purifiers._checks import check_number, check_whole
from nip_audio.purifiers._nip_matching import nearest, share_remaining, similarity, template_of
from nip_audio.purifiers._nip_neurons import Neurons
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["NipPool", "PoolSettings", "Sign"]

Sign = Literal["paper", "descent"]
"""``paper`` adds ρ as Eq. 8 is printed, ``descent`` subtracts it: front up, tail down."""

_KIND = "nip pool"
_LEAST_MEAN = 1e-6
# of the largest value: what varies less is constant but for rounding, and would be blown up
_LEAST_RANGE = 1e-4


@dataclass(frozen=True)
class PoolSettings:
    """How a pool is made and used; the defaults are the paper's but for ``influence``.

    Attributes:
        front: k1.
        tail: k2.
        sign: Of the inverse perturbation. Deviation: the paper's text wants ``descent``, its Eq. 5,
            6 and 8 do ``paper``.
        influence: What the influence is on. Deviation: the paper takes the confidence, which
            saturates.
        quorum: Share of the benign items in which a neuron must be a remaining one to be in the
            template; 1 is the plain intersection (Eq. 3). Deviation: with many items of many
            classes that is empty.

    Raises:
        InputError: If a setting makes no sense.
    """

    front: int = 5
    tail: int = 5
    sign: Sign = "paper"
    influence: InfluenceOf = "logit"
    quorum: float = 1.0

    def __post_init__(self) -> None:
        """Check."""
        check_whole("front", self.front, 0, 10_000, usual=5)
        check_whole("tail", self.tail, 0, 10_000, usual=5)
        if self.front + self.tail == 0:
            raise InputError("front and tail are 0, expected one neuron or more; 5 each is usual")
        check_number("quorum", self.quorum, 1e-6, 1.0, usual=1.0)
        for name, kinds in (("sign", Sign), ("influence", InfluenceOf)):
            if getattr(self, name) not in get_args(kinds):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {get_args(kinds)}"
                )


_PAPER = PoolSettings()


class NipPool(Purifier):
    """x_def = clip(x̂ ± Mean(x̂)·ρ/(Max(ρ) − Min(ρ))), ρ of the most similar benign item.

    NIP, Eq. 1–8 and Algorithms 1 and 2, without a label or a clean original anywhere: those of the
    published script are the evaluation's business. Used like this it is hardly better than
    noise, or worse; it is here to be measured.

    What the paper leaves open is decided so:

    - An index vector I(Ω_r, x) is in the order that Algorithm 1 returns, by descending influence;
      indices count from 1, so that none weighs nothing.
    - T' is the template in ascending order, then zeros.
    - Among equally similar candidates the first that was fitted is taken; with an empty template
      (``TemplateEmptyWarning``) that is the first of all, whatever the input.
    - A candidate comes from an item of one fixed length. It is repeated or cut from its beginning
      to the length of the input; Max and Min are those of the whole candidate.
    - Mean(x̂) is that of the valid frames, in the model's own bounded, non-negative input; where it
      is ≈ 0, or ρ constant but for rounding, nothing is changed.

    Deviation: the result is clipped to the model's input range, and padding set to zero. Benign
    items are taken as they are, where the paper's defender knows labels and leaves out those that
    the model gets wrong.

    The choice has no gradient. ``differentiable`` is false: who attacks end to end takes the whole
    for the identity (BPDA).

    Args:
        model: Whose neurons are looked at: the defended model, or where its inside is unknown a
            substitute (``train_substitute``). Nothing in it changes, and it is never stored.
        layer: Name of the tapped layer.
        model_id: Identity of that model.
        settings: How.
        rho: (t, *S) candidates, divided by Max(ρ) − Min(ρ).
        order: (t, N) their neurons by descending influence.
        seen: ``Audio.content_sha256`` of everything it was fitted on.
        eta: Share of the fitted candidates that these are.

    Raises:
        InputError: If the parts do not fit together, or the model's input can be negative: its mean
            would be ≈ 0, and with it every change.

    Warns:
        TemplateEmptyWarning: If no neuron is in the template.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(
        self,
        model: InstrumentedModel,
        *,
        layer: str,
        model_id: str,
        settings: PoolSettings = _PAPER,
        rho: Tensor,
        order: Tensor,
        seen: Iterable[str] = (),
        eta: float = 1.0,
    ) -> None:
        """See the class."""
        if rho.dim() < 2 or order.dim() != 2 or len(rho) != len(order) or len(rho) == 0:
            raise InputError(
                f"rho is {tuple(rho.shape)} and order {tuple(order.shape)}, expected as many "
                "candidates (t ≥ 1, …) as orders (t, neurons); use NipPool.fit"
            )
        _require_non_negative(model)
        self.model = model
        self.layer = layer
        self.model_id = model_id
        self.pool_settings = settings
        self.bounds = model.input_bounds
        self.eta = eta
        self.rho = rho
        self.order = order
        self._seen = frozenset(seen)
        self._neurons = Neurons(model, layer, settings.influence)
        remaining = _cut(order, settings).remaining
        self.template = template_of(remaining, neurons=order.shape[1], quorum=settings.quorum)
        self.similarities = similarity(remaining, self.template)
        if len(self.template) == 0:
            self._warn_of_empty_template(remaining)

    @classmethod
    def fit(
        cls,
        model: InstrumentedModel,
        batches: Iterable[Batch],
        *,
        layer: str,
        model_id: str,
        settings: PoolSettings = _PAPER,
        seen: Iterable[str] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> Self:
        """Make a candidate of each benign item (NIP, Algorithm 2).

        Args:
            model: See the class.
            batches: Benign model input, all of one length and without padding.
            layer: Name of the tapped layer; the paper takes the one between trunk and dense head.
            model_id: Identity of the model.
            settings: How.
            seen: ``Audio.content_sha256`` of the items.
            progress: Called with the number of items done.

        Raises:
            InputError: If there are no items, they differ in shape or are padded, or the layer has
                too few neurons or does not depend on the input.
            LayerNotFoundError: With near matches.
        """
        _require_non_negative(model)
        neurons = Neurons(model, layer, settings.influence)
        orders: list[Tensor] = []
        candidates: list[Tensor] = []
        done = 0
        for batch in batches:
            _require_shape(batch, candidates[0] if candidates else batch.x)
            order = neurons.order(batch)
            chosen = _cut(order, settings)
            rho = neurons.gradient(batch, front=chosen.front, tail=chosen.tail)
            orders.append(order.int())
            candidates.append(_by_range(rho).cpu())
            done += len(batch)
            progress(done)
        if not candidates:
            raise InputError("got no batches, expected benign model input; give it some")
        return cls(
            model,
            layer=layer,
            model_id=model_id,
            settings=settings,
            rho=torch.cat(candidates),
            order=torch.cat(orders),
            seen=seen,
        )

    @property
    def name(self) -> str:
        """``nip-pool`` with k1/k2 and the layer, and what differs from the paper's settings."""
        used = self.pool_settings
        parts = [f"nip-pool {used.front}/{used.tail} {self.layer}"]
        parts += [used.sign] if used.sign != "paper" else []
        parts += [used.influence] if used.influence != "logit" else []
        parts += [f"q{used.quorum:g}"] if used.quorum != 1 else []
        parts += [f"η{self.eta:g}"] if self.eta != 1 else []
        return " ".join(parts)

    @property
    def seen(self) -> frozenset[str]:
        """What it was fitted on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the settings, and what tells the candidates from others."""
        order = self.order.int().contiguous().numpy()
        return {
            "name": "nip-pool",
            "layer": self.layer,
            **asdict(self.pool_settings),
            "eta": self.eta,
            "candidates": len(self.rho),
            "shape": list(self.rho.shape[1:]),
            "template": len(self.template),
            "order_sha256": hashlib.sha256(order.data).hexdigest(),
        }

    def choose(self, batch: Batch) -> Tensor:
        """Return the index of each input's candidate, the one of nearest δ: (B,), on the CPU.

        Args:
            batch: Model input.

        Raises:
            InputError: If the layer has another number of neurons than when the pool was fitted.
        """
        order = self._neurons.order(batch.with_x(batch.masked()))
        if order.shape[1] != self.order.shape[1]:
            raise InputError(
                f"layer {self.layer!r} has {order.shape[1]} neurons, the pool was fitted on "
                f"{self.order.shape[1]}; pass the model that it was fitted on"
            )
        asked = similarity(_cut(order, self.pool_settings).remaining, self.template)
        return nearest(self.similarities, asked)

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add the chosen inverse perturbation, as strong as the input is (NIP, Eq. 8).

        Raises:
            InputError: If the input's shape is not that of the candidates, but for the length.
        """
        if batch.x.shape[1:-1] != self.rho.shape[1:-1]:
            raise InputError(
                f"input is {tuple(batch.x.shape)}, expected (items, "
                f"{', '.join(map(str, [*self.rho.shape[1:-1], 'frames']))}); fit a pool on such "
                "input"
            )
        with torch.no_grad():
            x = batch.masked()
            frames = torch.arange(x.shape[-1]) % self.rho.shape[-1]
            rho = self.rho[self.choose(batch)][..., frames].to(x)
            purified = self.bounds.clip(x + self.step(x, batch.lengths) * rho)
            return batch.with_x(batch.with_x(purified).masked())

    def selection(self, chosen: Tensor) -> NeuronSelection:
        """Return the neurons from which chosen candidates were made: (B,) → (B, k)."""
        return _cut(self.order[chosen], self.pool_settings)

    def step(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Return ± Mean of what is changed, item by item, 0 where it is ≈ 0: (B, *S) → (B, 1…).

        Args:
            values: (B, *S).
            lengths: (B,) valid positions of the last axis; None means all.
        """
        mean = masked_mean(values[:, None], lengths)[:, 0]
        sign = 1.0 if self.pool_settings.sign == "paper" else -1.0
        step = torch.where(mean.abs() > _LEAST_MEAN, sign * mean, torch.zeros_like(mean))
        return step.reshape(-1, *[1] * (values.dim() - 1))

    def with_share(self, eta: float, *, generator: torch.Generator) -> Self:
        """Return a pool of some of the candidates, as if no other benign items had been known.

        Args:
            eta: Share in (0, 1]; at least one stays. The paper's η where there are as many unknown
                inputs as candidates.
            generator: Draws which.
        """
        kept = _draw(len(self.rho), eta, generator)
        return self._with(rho=self.rho[kept], order=self.order[kept], eta=self.eta * eta)

    def with_settings(self, *, sign: Sign | None = None, quorum: float | None = None) -> Self:
        """Return the same pool, used otherwise; nothing is fitted anew."""
        changed = replace(
            self.pool_settings,
            sign=self.pool_settings.sign if sign is None else sign,
            quorum=self.pool_settings.quorum if quorum is None else quorum,
        )
        return self._with(settings=changed)

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write atomically, the candidates as 16-bit floats, bound to the model's identity.

        Raises:
            OutputError: As ``save_state``.
        """
        meta = {
            "layer": self.layer,
            "settings": asdict(self.pool_settings),
            "bounds": [self.bounds.low, self.bounds.high],
            "eta": self.eta,
            "seen": sorted(self.seen),
        }
        tensors = {"rho": self.rho.half(), "order": self.order.int()}
        save_state(Path(path), State(_KIND, self.model_id, tensors, meta), force=force)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        model: InstrumentedModel,
        model_id: str | None = None,
        sign: Sign | None = None,
        quorum: float | None = None,
        eta: float = 1.0,
        seed: int = 0,
    ) -> Self:
        """Read what ``save`` wrote; the candidates stay in the file until they are chosen.

        Args:
            path: The file.
            model: The model it was fitted on; its head need not be the same.
            model_id: Identity of that model; None skips the comparison.
            sign: As ``with_settings``.
            quorum: Likewise.
            eta: As ``with_share``.
            seed: Draws the share.

        Raises:
            StateError: If it is no pool, or of another model or range of input.
            HashMismatchError: If the file was changed.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        bounds = [model.input_bounds.low, model.input_bounds.high]
        if state.meta["bounds"] != bounds:
            raise StateError(
                f"{path} was fitted on input in {state.meta['bounds']}, this model's is in "
                f"{bounds}; fit a new one"
            )
        settings = dict(state.meta["settings"])
        settings |= {} if sign is None else {"sign": sign}
        settings |= {} if quorum is None else {"quorum": quorum}
        rho, order = state.tensors["rho"], state.tensors["order"]
        if eta != 1:
            kept = _draw(len(rho), eta, torch.Generator().manual_seed(seed))
            rho, order = rho[kept], order[kept]
        return cls(
            model,
            layer=state.meta["layer"],
            model_id=state.model_id,
            settings=PoolSettings(**settings),
            rho=rho,
            order=order,
            seen=state.meta["seen"],
            eta=state.meta["eta"] * eta,
        )

    def _with(self, **changed: Any) -> Self:
        parts = {
            "layer": self.layer,
            "model_id": self.model_id,
            "settings": self.pool_settings,
            "rho": self.rho,
            "order": self.order,
            "seen": self.seen,
            "eta": self.eta,
        }
        return type(self)(self.model, **{**parts, **changed})

    def _warn_of_empty_template(self, remaining: Tensor) -> None:
        most = float(share_remaining(remaining, neurons=self.order.shape[1]).max())
        warnings.warn(
            f"the neuron template is empty: no neuron of layer {self.layer!r} is a remaining one "
            f"in {self.pool_settings.quorum:.0%} of the {len(self.rho)} benign items, so every "
            "similarity is 0 and the first candidate is added to whatever comes; lower the quorum, "
            f"to {int(most * 100) / 100:g} at most",
            TemplateEmptyWarning,
            stacklevel=3,
        )


def _draw(count: int, eta: float, generator: torch.Generator) -> Tensor:
    """Indices of a share of so many candidates, at least one, ascending."""
    check_number("eta", eta, 1e-6, 1.0, usual=1.0)
    kept = max(1, round(eta * count))
    return torch.randperm(count, generator=generator)[:kept].sort().values


def _cut(order: Tensor, settings: PoolSettings) -> NeuronSelection:
    """Front, remaining and tail neurons of known orders (NIP, Definition 3)."""
    # ranks for influence: the first place is the highest
    return select_neurons(-order.long().argsort(dim=1), front=settings.front, tail=settings.tail)


def _by_range(rho: Tensor) -> Tensor:
    """ρ/(Max(ρ) − Min(ρ)), item by item; zero where ρ is constant but for rounding."""
    flat = rho.flatten(1)
    span = flat.amax(dim=1) - flat.amin(dim=1)
    varies = span > _LEAST_RANGE * flat.abs().amax(dim=1)
    scale = torch.where(varies, torch.where(varies, span, 1.0).reciprocal(), 0.0)
    return rho * scale.reshape(-1, *[1] * (rho.dim() - 1)).to(rho)


def _require_non_negative(model: InstrumentedModel) -> None:
    bounds = model.input_bounds
    if bounds.low < 0:
        raise InputError(
            f"model input is in ({bounds.low:g}, {bounds.high:g}), expected no negative values: "
            "its mean would be ≈ 0, and Eq. 8 multiplies by it; use a model of spectrograms in "
            "(0, 1)"
        )


def _require_shape(batch: Batch, like: Tensor) -> None:
    padded = batch.lengths is not None and int(batch.lengths.min()) < batch.x.shape[-1]
    if padded or batch.x.shape[1:] != like.shape[1:]:
        raise InputError(
            f"benign items are {'padded' if padded else tuple(batch.x.shape[1:])}, expected all "
            f"whole and {tuple(like.shape[1:])}; crop them to one length"
        )
