"""Model mutation: the share of slightly changed models that change their prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import Baseline, require_at_least
from nip_audio.errors import CalibrationError, InputError, StateError

__all__ = ["LabelChangeRate", "Mutant"]

Array = NDArray[np.float64]

Mutant = Mapping[str, tuple[Tensor, Tensor]]
"""Changes of a mutant by name of the weight tensor: (K,) flat indices and (K,) added values."""

_PATIENCE = 10  # number of mutants rejected in a row, after which the rate is halved


class LabelChangeRate(Baseline):
    """Share of mutated models with another prediction than the model (Wang et al., ICSE 2019).

    Mutants are made by Gaussian fuzzing: normal noise with the standard deviation of the tensor is
    added to a random share ``rate`` of its weights. They are made once, in ``fit``, and stored as
    differences. As in the paper, a mutant must remain accurate: its prediction must equal the
    model's for at least ``accuracy`` of the clean items.

    Deviation: the paper sets the rate by hand for each model; here it is halved whenever ten
    mutants in a row are not accurate enough, and ``rate_`` holds the final value. The paper decides
    by a sequential test, which saves evaluations of mutants; here all mutants are evaluated, and
    the rate of changed predictions is the score. Only weights of at least two axes are mutated, in
    network and head; the voices of enrolled speakers are not weights.

    Args:
        mutants: Number of mutants to keep.
        rate: Initial share of the weights to change.
        accuracy: Least share of clean items for which a mutant must agree with the model.
        judges: Largest number of clean items on which agreement is checked.

    Attributes:
        mutants_: Accepted mutants.
        rate_: Share of the weights that the last mutant changes.

    Raises:
        InputError: If a setting is out of range.
    """

    source = "Wang et al., ICSE 2019: label change rate, Gaussian fuzzing"

    mutants_: tuple[Mutant, ...]
    rate_: float

    def __init__(
        self, *, mutants: int = 20, rate: float = 0.05, accuracy: float = 0.9, judges: int = 50
    ) -> None:
        require_at_least("mutants", mutants, 1)
        require_at_least("judges", judges, 1)
        if not (0 < rate <= 1 and 0 < accuracy <= 1):
            raise InputError(f"rate is {rate} and accuracy {accuracy}, expected shares in (0, 1]")
        self.name = f"model mutation, {mutants} mutants"
        self.mutants = mutants
        self.rate = rate
        self.accuracy = accuracy
        self.judges = judges

    @property
    def passes(self) -> float:
        """One for the item and one per mutant."""
        return 1 + self.mutants

    def settings(self) -> dict[str, Any]:
        """Return the settings by which mutants are made and accepted."""
        return {
            "name": self.name,
            "mutants": self.mutants,
            "rate": self.rate,
            "accuracy": self.accuracy,
            "judges": self.judges,
        }

    def suspicion(self, rows: Array) -> Array:
        """Return the share of mutants that change the prediction."""
        return np.asarray(rows[:, 0])

    def _learn(
        self, model: InstrumentedModel, clean: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self._require_items(len(clean), 2)
        order = torch.randperm(len(clean), generator=generator)[: self.judges].tolist()
        judges = [clean[i] for i in order]
        named = [int(model.scores(item)[0].argmax()) for item in judges]
        kept: list[Mutant] = []
        rate, refused = self.rate, 0
        while len(kept) < self.mutants:
            mutant = _mutate(model, rate, generator)
            if self._accurate(model, mutant, judges, named):
                kept.append(mutant)
                refused = 0
                continue
            refused += 1
            if refused == _PATIENCE:
                rate, refused = rate / 2, 0
                if rate < 1e-6:
                    raise CalibrationError(
                        f"no mutant agrees with the model on {self.accuracy:g} of the clean items; "
                        "lower accuracy"
                    )
        self.mutants_, self.rate_ = tuple(kept), rate

    def _accurate(
        self,
        model: InstrumentedModel,
        mutant: Mutant,
        judges: Sequence[Batch],
        named: Sequence[int],
    ) -> bool:
        """Return whether a mutant agrees often enough, stopping once it no longer can."""
        weights = _weights_of(model, mutant)
        allowed = int(len(judges) * (1 - self.accuracy) + 1e-9)
        wrong = 0
        for item, own in zip(judges, named, strict=True):
            wrong += _name(model, weights, item) != own
            if wrong > allowed:
                return False
        return True

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        self._require_fitted("mutants_")
        own = int(model.scores(item)[0].argmax())
        changed = [_name(model, _weights_of(model, m), item) != own for m in self.mutants_]
        return np.array([np.mean(changed)])


def _name(model: InstrumentedModel, weights: dict[str, Tensor], item: Batch) -> int:
    scores: Tensor = functional_call(model, weights, (item,))
    return int(scores[0].argmax())


def _mutate(model: InstrumentedModel, rate: float, generator: torch.Generator) -> Mutant:
    mutant = {}
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        where = (torch.rand(weight.numel(), generator=generator) < rate).nonzero()[:, 0]
        noise = torch.randn(len(where), generator=generator)
        mutant[name] = (where, noise * float(weight.detach().std(correction=0)))
    return mutant


def _weights_of(model: InstrumentedModel, mutant: Mutant) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    weights = {}
    for name, (where, change) in mutant.items():
        if name not in own or where.numel() and int(where.max()) >= own[name].numel():
            raise StateError(
                f"mutants were made of a model with weights {name}, which this model does not have "
                "or has in another size; fit to this model"
            )
        flat = own[name].detach().flatten().clone()
        flat[where.to(flat.device)] += change.to(flat)
        weights[name] = flat.reshape(own[name].shape)
    return weights
