"""The protocol of all attacks: system under attack, promises, and costs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nip_audio.attacks.objectives import Objective
from nip_audio.attacks.start import derived_generator, first_step, rows_to_move
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import AttackError, InputError

__all__ = ["LARGEST_SENSIBLE_EPS", "Attack", "AttackResult", "Norm", "System", "require_eps"]

Norm = Literal["linf", "l2", "l0", "minimum", "other"]
"""Bound of the change: ε on every value, ε on the Euclidean norm, the number of changed values,
none (the attack minimises the change), or another one."""

LARGEST_SENSIBLE_EPS = 0.5
"""Largest ε accepted. At half of full scale the speech is inaudible, so a larger ε is in the wrong
unit."""

_SUREST = 30.0  # gap between the best two logits that a softmax in float64 still resolves well


def require_eps(eps: float) -> None:
    """Refuse an ε that is out of range.

    Raises:
        AttackError: If ``eps`` is not in (0, ``LARGEST_SENSIBLE_EPS``].
    """
    if not 0 < eps <= LARGEST_SENSIBLE_EPS:
        raise AttackError(
            f"eps is {eps}, expected more than 0 and at most {LARGEST_SENSIBLE_EPS} in units of "
            "the input (a waveform's full scale is 1; 8/255 is 0.0314, 0.002 is usual)"
        )


@dataclass(frozen=True)
class AttackResult:
    """Adversarial examples, the size of their changes, and their costs.

    Attributes:
        batch: Adversarial examples; padding is zero.
        succeeded: (B,) bool, whether the system's decision on the example is what the attacker
            wants.
        linf: (B,) largest absolute change of a value, in units of the input.
        l2: (B,) Euclidean norm of the change, in units of the input.
        l0: (B,) number of changed values.
        snr_db: (B,) signal-to-perturbation ratio over the valid samples, in dB.
        queries: Mean number of inputs scored per item, including those of gradients.
        gradients: Mean number of inputs differentiated per item.
        seconds: Wall-clock time of the batch, in seconds.
    """

    batch: Batch
    succeeded: Tensor
    linf: Tensor
    l2: Tensor
    l0: Tensor
    snr_db: Tensor
    queries: float
    gradients: float
    seconds: float


class System(nn.Module):
    """The objective as attacks see it: a function from tensors to logits that counts its queries.

    Values in the padding are ignored. Where the softmax saturates to machine precision, as with the
    log-likelihood ratios of PLDA (probabilistic linear discriminant analysis), the logits are
    scaled down: the decision stays the same, and a gradient remains (Carlini & Wagner 2016 on
    defensive distillation).

    Attributes:
        objective: Decision under attack, with frozen weights and in evaluation mode.
        batch: Clean items, masked.
        bounds: Range of valid values.
        queries: Number of inputs scored so far.
        gradients: Number of inputs scored in an autograd graph so far.
        max_queries: Largest mean number of queries per item. Further queries cost nothing and
            always answer "attack failed", so the attack keeps what it found before. None for no
            limit.
    """

    def __init__(
        self, objective: Objective, batch: Batch, *, max_queries: int | None = None
    ) -> None:
        super().__init__()
        self.objective = objective
        self.batch = batch.with_x(batch.masked().detach())
        self.bounds: Bounds = objective.model.bounds
        self.max_queries = max_queries
        self.queries = 0
        self.gradients = 0
        self._classes = 2

    @property
    def label(self) -> Tensor:
        """Class to leave or, if ``targeted``, to reach: (B,)."""
        return self.objective.label

    @property
    def targeted(self) -> bool:
        """Whether ``label`` is to be reached."""
        return self.objective.targeted

    @property
    def exhausted(self) -> bool:
        """Whether the queries are used up."""
        limit = self.max_queries
        return limit is not None and self.queries >= limit * len(self.batch)

    def scores(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Return the logits of the system, without scaling.

        Args:
            x: (R, *S) values in bounds.
            rows: Index of the item that each row is a variant of. If None, the rows are all items
                in order, or any number of variants of a single item.

        Returns:
            (R, C) float64 logits.

        Raises:
            InputError: If ``rows`` is missing although there are several items.
        """
        # logits are float64, and some libraries turn the examples into float64 too
        batch, objective = self._variants(x.to(self.batch.x.dtype), rows)
        if self.exhausted:
            return self._not_fooled(objective, len(x))
        self._count(x)
        logits = objective.logits(batch.with_x(batch.masked())).double()
        self._classes = logits.shape[1]
        return logits

    def forward(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Return logits scaled down where a softmax of them would saturate: (R, C) float64."""
        logits = self.scores(x, rows)
        if logits.shape[1] < 2:
            return logits
        best = logits.detach().topk(2, dim=1).values
        return logits / ((best[:, :1] - best[:, 1:]) / _SUREST).clamp_min(1.0)

    def embed(self, x: Tensor) -> Tensor:
        """Embed one variant of every item, in order: (B, D). Counts as one query each."""
        self._count(x)
        batch = self.batch.with_x(x)
        return self.objective.model.embed(batch.with_x(batch.masked()))

    @torch.no_grad()
    def fooled(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Tell for which variants the attack succeeds: (R,) bool. Costs one query each."""
        hit: Tensor = self(x, rows).argmax(dim=1) == self._variants(x, rows)[1].label
        return hit if self.targeted else ~hit

    def item(self, index: int) -> System:
        """Return the system of one item without its padding; it has its own counters."""
        return System(
            self.objective.select([index]), self.batch.item(index), max_queries=self.max_queries
        )

    def part(self, rows: list[int]) -> System:
        """Return the system of some items; it has its own counters."""
        lengths = None if self.batch.lengths is None else self.batch.lengths[rows]
        return System(
            self.objective.select(rows),
            Batch(self.batch.x[rows], lengths),
            max_queries=self.max_queries,
        )

    def add_cost(self, other: System) -> None:
        """Add the counters of another system, of some of the items, to these."""
        self.queries += other.queries
        self.gradients += other.gradients

    def _count(self, x: Tensor) -> None:
        self.queries += len(x)
        if x.requires_grad and torch.is_grad_enabled():
            self.gradients += len(x)

    def _variants(self, x: Tensor, rows: Sequence[int] | None) -> tuple[Batch, Objective]:
        if rows is None:
            if len(x) == len(self.batch):
                return self.batch.with_x(x), self.objective
            if len(self.batch) > 1:
                raise InputError(
                    f"got {len(x)} rows for {len(self.batch)} items, expected one row per item; "
                    "pass rows, or attack item by item"
                )
            rows = [0] * len(x)
        lengths = None if self.batch.lengths is None else self.batch.lengths[list(rows)]
        return Batch(x, lengths), self.objective.select(rows)

    def _not_fooled(self, objective: Objective, count: int) -> Tensor:
        label = objective.label.expand(count)
        wrong = (label + 1) % self._classes if self.targeted else label
        return nn.functional.one_hot(wrong, self._classes).double() * _SUREST


@dataclass(frozen=True)
class Attack(ABC):
    """One attack with its settings; frozen, so one object serves any number of batches.

    A subclass sets the class attributes and implements ``_run``. ``__call__`` is not overridden: it
    freezes the weights, switches to evaluation mode and seeds the global generators, runs the
    attack, restores all of these, checks the promises (ε, bounds, no NaN), and reports norms and
    costs.

    An attack whose first step follows the gradient at the input fails where that gradient is zero,
    for example where a recording is compared with itself and the cosine is at its maximum. There it
    starts from a small random step within its ε; FGSM (fast gradient sign method) becomes R+FGSM
    (Tramèr et al. 2018). See ``start.rows_to_move``.

    Attributes:
        white_box: Whether the attack needs gradients.
        norm: Bound of the change.
        shared: Whether all items of a batch get the same change.
    """

    white_box: ClassVar[bool]
    norm: ClassVar[Norm]
    shared: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the registry."""

    @property
    def limit(self) -> float | None:
        """Largest change of a value that the attack promises; None if it promises none."""
        return None

    @property
    def query_limit(self) -> int | None:
        """Largest mean number of queries per item; None for no limit."""
        return None

    @property
    def starts_at_input(self) -> bool:
        """Whether the first step follows the gradient at the input, not at a random point."""
        return False

    def settings(self) -> dict[str, Any]:
        """Return the name and all settings that the result depends on, as plain JSON values."""
        return {"name": self.name, **asdict(self)}

    @abstractmethod
    def _run(self, system: System, *, generator: torch.Generator) -> Tensor:
        """Return the examples, shaped like ``system.batch.x``; the padding is ignored."""

    def _first_step(
        self, batch: Batch, bounds: Bounds, generator: torch.Generator
    ) -> tuple[Attack, Tensor]:
        """Take a random step off inputs without gradient; return the attack left and its start."""
        return first_step(self, batch, bounds, generator)

    def __call__(
        self, objective: Objective, batch: Batch, *, generator: torch.Generator
    ) -> AttackResult:
        """Attack every item of a batch.

        Args:
            objective: System under attack, and the goal. Weights, gradients and mode are restored.
            batch: Clean items, with values within the model's bounds; padding stays zero.
            generator: Source of all randomness. The global generators are restored.

        Raises:
            AttackError: If a white-box attack gets no gradient from the system, or if the result
                exceeds ε or the bounds.
            MissingDependencyError: If the attack's library is not installed.
        """
        started = time.perf_counter()
        with torch.enable_grad(), _borrowed(objective, generator):
            system = System(objective, batch, max_queries=self.query_limit)
            clean = system.batch.x
            rows = rows_to_move(self, system, generator)
            x = clean.clone()
            if len(rows) < len(batch):
                x = self._run(system, generator=generator).detach().to(clean.dtype)
            if rows:
                x[rows] = self._run_moved(system, rows, generator)
            adversarial = batch.with_x(batch.with_x(x).masked())
            self._keep_promise(adversarial.x, clean, system.bounds)
            # inside the block, in evaluation mode: training mode would update batch statistics
            succeeded = objective.succeeded(adversarial)
        delta = (adversarial.x - clean).flatten(1)
        l2 = delta.norm(dim=1)
        return AttackResult(
            batch=adversarial,
            succeeded=succeeded,
            linf=delta.abs().amax(dim=1),
            l2=l2,
            l0=(delta != 0).sum(dim=1),
            snr_db=20 * torch.log10(clean.flatten(1).norm(dim=1) / l2.clamp_min(1e-12)),
            queries=system.queries / len(batch),
            gradients=system.gradients / len(batch),
            seconds=time.perf_counter() - started,
        )

    def _run_moved(self, system: System, rows: list[int], generator: torch.Generator) -> Tensor:
        """Attack some items from a start that is a random step away from them: (R, *S)."""
        lengths = None if system.batch.lengths is None else system.batch.lengths[rows]
        clean = Batch(system.batch.x[rows], lengths)
        every = len(rows) == len(system.batch)
        objective = system.objective if every else system.objective.select(rows)
        attack, start = self._first_step(clean, system.bounds, derived_generator(generator))
        moved = System(objective, clean.with_x(start), max_queries=self.query_limit)
        x = attack._run(moved, generator=generator).detach().to(start.dtype)
        system.add_cost(moved)
        # where the attack did not move from its start, the item is returned unchanged
        x = clean.with_x(x).masked()
        idle = (x == start).flatten(1).all(dim=1)
        if bool(idle.any()):
            idle &= ~objective.succeeded(clean.with_x(x))
        return torch.where(idle.reshape(-1, *[1] * (x.dim() - 1)), clean.x, x)

    def _keep_promise(self, x: Tensor, clean: Tensor, bounds: Bounds) -> None:
        if x.shape != clean.shape or not bool(x.isfinite().all()):
            raise AttackError(
                f"{self.name} returned shape {tuple(x.shape)} with values that are not finite, "
                f"expected finite values of shape {tuple(clean.shape)}; report this as a defect"
            )
        worst = float((x - clean).abs().max())
        if self.limit is not None and worst > self.limit * (1 + 1e-4) + 1e-7:
            raise AttackError(
                f"{self.name} changed a value by {worst:.3g}, more than eps = {self.limit}; report "
                "this as a defect"
            )
        if float(x.min()) < bounds.low or float(x.max()) > bounds.high:
            raise AttackError(
                f"{self.name} left the bounds [{bounds.low}, {bounds.high}]; report this as a "
                "defect"
            )


@contextmanager
def _borrowed(objective: Objective, generator: torch.Generator) -> Iterator[None]:
    """Freeze the weights and seed torch's global generator, which libraries use; restore both."""
    trainable = [p for p in objective.parameters() if p.requires_grad]
    modes = {module: module.training for module in objective.modules()}
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            objective.eval()
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, mode in modes.items():
                module.training = mode
