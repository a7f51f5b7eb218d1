"""The published NIP: a pool of inverse perturbations of benign items, and a choice among them.

NIP is neuron-level inverse perturbation (Chen et al., arXiv 2112.13060).
"""

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
"""Sign of the step: ``descent`` subtracts ρ, which raises the front neurons and lowers the tail
neurons; ``paper`` adds it, as Eq. 8 is printed."""

_KIND = "nip pool"
_LEAST_MEAN = 1e-6
# as a share of the largest value: a smaller range is rounding error, which must not be amplified
_LEAST_RANGE = 1e-4


@dataclass(frozen=True)
class PoolSettings:
    """Settings of a pool; the defaults are the paper's, except for ``sign`` and ``influence``.

    Attributes:
        front: Number k1 of front neurons (NIP, Algorithm 1).
        tail: Number k2 of tail neurons (NIP, Algorithm 1).
        sign: Sign of the inverse perturbation. Deviation: it is ``descent``, which the text of the
            paper describes; its Eq. 5, Eq. 6 and Eq. 8 amount to ``paper``, which does the opposite
            and ruins clean input.
        influence: Output that the influence is measured on. Deviation: the paper uses the
            confidence, which saturates.
        quorum: Least share of the benign items in which a neuron of the template must remain; 1 is
            the plain intersection (NIP, Eq. 3). Deviation: with many items of many classes the
            intersection is empty.

    Raises:
        InputError: If a setting is out of range.
    """

    front: int = 5
    tail: int = 5
    sign: Sign = "descent"
    influence: InfluenceOf = "logit"
    quorum: float = 1.0

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_whole("front", self.front, 0, 10_000, usual=5)
        check_whole("tail", self.tail, 0, 10_000, usual=5)
        if self.front + self.tail == 0:
            raise InputError("front and tail are 0, expected at least one neuron; 5 each is usual")
        check_number("quorum", self.quorum, 1e-6, 1.0, usual=1.0)
        for name, kinds in (("sign", Sign), ("influence", InfluenceOf)):
            if getattr(self, name) not in get_args(kinds):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {get_args(kinds)}"
                )


_USUAL = PoolSettings()


class NipPool(Purifier):
    """Compute x_def = clip(x̂ ± Mean(x̂)·ρ/(Max(ρ) − Min(ρ))), with ρ of the most similar item.

    The class implements NIP, Eq. 1 to Eq. 8 and Algorithms 1 and 2, without any label or clean
    original; the published script, which uses both, is reproduced in the evaluation only. Without
    them the method is hardly better than noise, or worse; it is included so that it can be
    measured.

    Details that the paper leaves open are settled as follows:

    - An index vector I(Ω_r, x) has the order that Algorithm 1 returns, descending influence;
      indices are counted from 1, so that each has a weight.
    - T' is the template in ascending order, followed by zeros.
    - Among equally similar candidates the first fitted one is chosen; with an empty template
      (``TemplateEmptyWarning``) this is always the very first, whatever the input.
    - A candidate comes from an item of one fixed length. It is repeated, or cut from its beginning,
      to the length of the input; Max and Min are those of the whole candidate.
    - Mean(x̂) is taken over the valid frames of the model's own bounded, non-negative input. If it
      is ≈ 0, or if ρ is constant up to rounding, nothing is changed.

    Deviation: the result is clipped to the model's input range, and padding is set to zero. All
    benign items are used; the paper's defender knows their labels and excludes those that the model
    misclassifies.

    The choice has no gradient, so ``differentiable`` is false: an end-to-end attacker treats the
    purifier as the identity (backward pass differentiable approximation, BPDA).

    Args:
        model: Model whose neurons are used: the defended model or, if its inside is unknown, a
            substitute (see ``train_substitute``). It is neither modified nor saved.
        layer: Name of the tapped layer.
        model_id: Identity of that model.
        settings: Settings of the pool.
        rho: (t, *S) candidates, divided by Max(ρ) − Min(ρ).
        order: (t, N) neurons of each candidate by descending influence.
        seen: Content hashes (``Audio.content_sha256``) of everything the pool was fitted on.
        eta: Share η of the fitted candidates that is kept in this pool.

    Raises:
        InputError: If the parts do not fit together, or the model's input can be negative: its mean
            would be ≈ 0, and so would every change.

    Warns:
        TemplateEmptyWarning: If the template holds no neuron.
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
        settings: PoolSettings = _USUAL,
        rho: Tensor,
        order: Tensor,
        seen: Iterable[str] = (),
        eta: float = 1.0,
    ) -> None:
        if rho.dim() < 2 or order.dim() != 2 or len(rho) != len(order) or len(rho) == 0:
            raise InputError(
                f"rho has shape {tuple(rho.shape)} and order {tuple(order.shape)}, expected as "
                "many candidates (t ≥ 1, …) as orders (t, neurons); use NipPool.fit"
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
        settings: PoolSettings = _USUAL,
        seen: Iterable[str] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> Self:
        """Compute one candidate from each benign item (NIP, Eq. 7 and Algorithm 2).

        Args:
            model: Model whose neurons are used, the defended one or a substitute.
            batches: Benign model input, all of one length and without padding.
            layer: Name of the tapped layer; the paper taps the one between trunk and dense head.
            model_id: Identity of the model.
            settings: Settings of the pool.
            seen: Content hashes (``Audio.content_sha256``) of the items.
            progress: Function called with the number of items done.

        Raises:
            InputError: If there are no items, they differ in shape or are padded, or the layer has
                too few neurons or does not depend on the input.
            LayerNotFoundError: If a layer does not exist; the message lists similar names.
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
            raise InputError(
                "got no batches, expected at least one batch of benign model input; pass some"
            )
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
        """``nip-pool`` with k1/k2, layer, sign and all settings that differ from the defaults."""
        used = self.pool_settings
        parts = [f"nip-pool {used.front}/{used.tail} {self.layer} {used.sign}"]
        parts += [used.influence] if used.influence != "logit" else []
        parts += [f"q{used.quorum:g}"] if used.quorum != 1 else []
        parts += [f"η{self.eta:g}"] if self.eta != 1 else []
        return " ".join(parts)

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the pool was fitted on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the settings, and a hash that identifies the candidates."""
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
        """Choose the candidate whose similarity δ is nearest to that of each input (NIP, Eq. 8).

        Args:
            batch: Model input.

        Returns:
            (B,) indices of candidates, on the CPU.

        Raises:
            InputError: If the layer has another number of neurons than when the pool was fitted.
        """
        order = self._neurons.order(batch.with_x(batch.masked()))
        if order.shape[1] != self.order.shape[1]:
            raise InputError(
                f"layer {self.layer!r} has {order.shape[1]} neurons, the pool was fitted on "
                f"{self.order.shape[1]}; use the model that the pool was fitted on"
            )
        asked = similarity(_cut(order, self.pool_settings).remaining, self.template)
        return nearest(self.similarities, asked)

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add the chosen inverse perturbation, scaled by the mean of the input (NIP, Eq. 8).

        Raises:
            InputError: If the input differs from the candidates in shape other than the length.
        """
        if batch.x.shape[1:-1] != self.rho.shape[1:-1]:
            raise InputError(
                f"input has shape {tuple(batch.x.shape)}, expected (items, "
                f"{', '.join(map(str, [*self.rho.shape[1:-1], 'frames']))}); fit a pool on input "
                "of this shape"
            )
        with torch.no_grad():
            x = batch.masked()
            frames = torch.arange(x.shape[-1]) % self.rho.shape[-1]
            rho = self.rho[self.choose(batch)][..., frames].to(x)
            purified = self.bounds.clip(x + self.step(x, batch.lengths) * rho)
            return batch.with_x(batch.with_x(purified).masked())

    def selection(self, chosen: Tensor) -> NeuronSelection:
        """Return the front and tail neurons of chosen candidates: (B,) → (B, k)."""
        return _cut(self.order[chosen], self.pool_settings)

    def step(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the size of the step for each item: ± the mean of its values (NIP, Eq. 8).

        Args:
            values: (B, *S) values to change.
            lengths: (B,) number of valid positions of the last axis; None means all.

        Returns:
            (B, 1, …, 1), broadcastable to ``values``; 0 where the mean is ≈ 0.
        """
        mean = masked_mean(values[:, None], lengths)[:, 0]
        sign = 1.0 if self.pool_settings.sign == "paper" else -1.0
        step = torch.where(mean.abs() > _LEAST_MEAN, sign * mean, torch.zeros_like(mean))
        return step.reshape(-1, *[1] * (values.dim() - 1))

    def with_share(self, eta: float, *, generator: torch.Generator) -> Self:
        """Return a pool of a random share of the candidates, as if fitted on fewer benign items.

        Args:
            eta: Share of the candidates to keep, in (0, 1]; at least one is kept. It equals the
                paper's η if there are as many unknown inputs as candidates.
            generator: Source of randomness for the choice of candidates.
        """
        kept = _draw(len(self.rho), eta, generator)
        return self._with(rho=self.rho[kept], order=self.order[kept], eta=self.eta * eta)

    def with_settings(self, *, sign: Sign | None = None, quorum: float | None = None) -> Self:
        """Return the same pool with another sign or quorum; nothing is fitted anew."""
        changed = replace(
            self.pool_settings,
            sign=self.pool_settings.sign if sign is None else sign,
            quorum=self.pool_settings.quorum if quorum is None else quorum,
        )
        return self._with(settings=changed)

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write the pool atomically, with candidates as 16-bit floats, bound to the model.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
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
        """Load a pool that ``save`` wrote; candidates are read from the file when they are chosen.

        Args:
            path: Path of the file.
            model: Model that the pool was fitted on; its head may differ.
            model_id: Identity of that model; None skips the comparison.
            sign: Sign of the inverse perturbation; None keeps the saved setting.
            quorum: Quorum of the template; None keeps the saved setting.
            eta: Share of the candidates to keep, in (0, 1].
            seed: Seed of the choice of candidates if ``eta`` is below 1.

        Raises:
            StateError: If the file holds no pool, or one of another model or range of input.
            HashMismatchError: If the file was modified after it was saved.
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
            f"the neuron template is empty: no neuron of layer {self.layer!r} remains in "
            f"{self.pool_settings.quorum:.0%} of the {len(self.rho)} benign items, so every "
            "similarity is 0 and the first candidate is added to every input; lower the quorum, "
            f"to {int(most * 100) / 100:g} at most",
            TemplateEmptyWarning,
            stacklevel=3,
        )


def _draw(count: int, eta: float, generator: torch.Generator) -> Tensor:
    """Draw the indices of a share of ``count`` candidates, at least one, in ascending order."""
    check_number("eta", eta, 1e-6, 1.0, usual=1.0)
    kept = max(1, round(eta * count))
    return torch.randperm(count, generator=generator)[:kept].sort().values


def _cut(order: Tensor, settings: PoolSettings) -> NeuronSelection:
    """Split orders of neurons into front, remaining and tail (NIP, Definition 3)."""
    # negative ranks stand in for the influence: the first neuron gets the highest value
    return select_neurons(-order.long().argsort(dim=1), front=settings.front, tail=settings.tail)


def _by_range(rho: Tensor) -> Tensor:
    """Return ρ/(Max(ρ) − Min(ρ)) for each item; zero if ρ is constant up to rounding."""
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
            "the mean would be ≈ 0, and NIP, Eq. 8, multiplies by it; use a model whose input is "
            "a spectrogram in (0, 1)"
        )


def _require_shape(batch: Batch, like: Tensor) -> None:
    padded = batch.lengths is not None and int(batch.lengths.min()) < batch.x.shape[-1]
    if padded or batch.x.shape[1:] != like.shape[1:]:
        raise InputError(
            f"benign items are {'padded' if padded else tuple(batch.x.shape[1:])}, expected "
            f"unpadded items of shape {tuple(like.shape[1:])}; crop all to one length"
        )
