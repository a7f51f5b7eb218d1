"""ART, imported when it is needed, and an item's goal in the form in which ART takes it."""

from __future__ import annotations

import logging.config
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nip_audio.attacks.base import System
from nip_audio.core.adapter import Bounds
from nip_audio.errors import MissingDependencyError


def evasion() -> Any:
    """Return ART's module of attacks."""
    try:
        with logging_left_alone():
            import art.attacks.evasion
    except ImportError as err:
        raise MissingDependencyError(
            "this attack needs the Adversarial Robustness Toolbox", extra="attacks"
        ) from err
    return art.attacks.evasion


def classifier(model: nn.Module, *, shape: tuple[int, ...], classes: int, bounds: Bounds) -> Any:
    """Return a module (R, *shape) → (R, classes) as an ART classifier.

    Args:
        model: Without parameters and submodules: ART moves, trains and clears what it can reach.
        shape: Of one row.
        classes: Number of logits.
        bounds: Range of valid values.
    """
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        clip_values=(bounds.low, bounds.high),
        preprocessing=None,
        device_type="cpu",  # of the arrays; the module brings them to the system's own
    )


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Keep ART, which configures logging as it is imported, from closing handlers of others."""
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure


@contextmanager
def seeded_globals(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of Python and NumPy, from which ART draws; restore both.

    Divisions by zero stay silent meanwhile: ART divides by distances and spreads that may be 0.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - ART's own
    seed = int(torch.randint(2**31, (1,), generator=generator))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def margin_of(logits: Tensor, label: Tensor, *, targeted: bool) -> Tensor:
    """Return how far each row's decision has gone the attacker's way: (R,), over 0 is success.

    Args:
        logits: (R, C).
        label: (R,) class to leave or, if ``targeted``, to reach.
        targeted: Which of the two.
    """
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -torch.inf).amax(dim=1)
    return own - others if targeted else others - own


def foiled_or_through(margin: Tensor) -> Tensor:
    """Return margins (R,) as logits (R, 2) of two classes, foiled and through."""
    return torch.stack([-margin, margin], dim=1)


class Spent(Exception):
    """The queries of an item are used up; ART may be anywhere, some of its loops never end."""


class Goal(nn.Module):
    """What the attacker wants of one item, as a classifier, which remembers what served him.

    Its two classes are foiled (0) and through (1), whatever the objective, with the margin's asinh
    as logits: so attacks that know no targets have them too, by leaving class 0, and no loss is
    flat, however sure the system is. ``own_classes`` shows an untargeted goal as the system's own
    classes instead.

    What counts as result is not what ART returns but the best example it asked about: ART forgets
    fooling examples that it passes on its way, and may return what does not fool.

    Args:
        system: Of one item.
        eps: Largest change of an example that counts, the one with the largest margin being best.
            None: any change, the smallest (L2) being best.
        own_classes: See above.

    Attributes:
        shape: Of a row, a spectrogram (F, T) being an image (1, F, T).
        classes: Number of logits.
        bounds: Range of valid values.
        x: (1, *shape) float32, the item.
        own: (1, classes) float32 one-hot, the class to leave.
        found: (1, *S) best example that fools, else the item.
        done: Whether ``found`` fools.
    """

    def __init__(
        self, system: System, *, eps: float | None = None, own_classes: bool = False
    ) -> None:
        """See the class."""
        super().__init__()
        self._system = (system,)  # in a tuple, torch does not take it for a part, nor does ART
        self._eps = eps
        self._own_classes = own_classes and not system.targeted
        # ART asks again and again about the last example and the one before
        self._remembered = lru_cache(maxsize=2)(self._score_bytes)
        self._best = -torch.inf
        clean = system.batch.x
        self.bounds = system.bounds
        self.found = clean
        self.shape = (1, *clean.shape[1:]) if clean.dim() == 3 else tuple(clean.shape[1:])
        self.x: NDArray[np.float32] = clean.reshape(1, *self.shape).float().cpu().numpy().copy()
        self.classes = self(torch.from_numpy(self.x)).shape[1]
        self.own = np.zeros((1, self.classes), dtype=np.float32)
        self.own[0, int(system.label) if self._own_classes else 0] = 1.0

    @property
    def done(self) -> bool:
        """Whether something that fools is found."""
        return self._best > -torch.inf

    def forward(self, x: Tensor) -> Tensor:
        """Score rows (R, *shape): (R, classes) float64.

        Raises:
            Spent: If the queries are used up.
        """
        if x.requires_grad:
            return self._score(x)
        return self._remembered(x.numpy().tobytes(), x.dtype)

    def classifier(self) -> Any:
        """Return itself as an ART classifier."""
        return classifier(self, shape=self.shape, classes=self.classes, bounds=self.bounds)

    def _score_bytes(self, values: bytes, dtype: torch.dtype) -> Tensor:
        x = torch.frombuffer(bytearray(values), dtype=dtype)
        return self._score(x.reshape(-1, *self.shape)).detach()

    def _score(self, x: Tensor) -> Tensor:
        (system,) = self._system
        if system.exhausted:
            raise Spent
        clean = system.batch.x
        x = x.reshape(len(x), *clean.shape[1:]).to(clean)
        logits = system(x) if self._own_classes else system.scores(x)
        margin = margin_of(logits, system.label.expand(len(x)), targeted=system.targeted)
        self._remember(x.detach(), margin.detach(), clean)
        return (logits if self._own_classes else foiled_or_through(margin.asinh())).cpu()

    def _remember(self, x: Tensor, margin: Tensor, clean: Tensor) -> None:
        change = (x - clean).flatten(1)
        if self._eps is None:
            rank, counts = -change.double().norm(dim=1), margin > 0
        else:
            inside = change.abs().amax(dim=1) <= self._eps * (1 + 1e-5) + 1e-7
            rank, counts = margin, (margin > 0) & inside
        best, row = rank.masked_fill(~counts, -torch.inf).max(dim=0)
        if float(best) > self._best:
            self._best = float(best)
            self.found = x[row : row + 1].clone()


def attack_items(
    system: System,
    attack: Callable[[Goal], object],
    *,
    eps: float | None = None,
    own_classes: bool = False,
) -> Tensor:
    """Attack item by item, for ART asks about rows without saying whose they are.

    Args:
        system: Of the batch.
        attack: Lets ART ask a goal; only called for items that are not fooled as they are.
        eps: As of ``Goal``.
        own_classes: As of ``Goal``.

    Returns:
        Like ``system.batch.x``: what fools, within ``eps`` and the bounds, else the item.
    """
    clean = system.batch.x
    x = clean.clone()
    for index in range(len(x)):
        item = system.item(index)
        goal = Goal(item, eps=eps, own_classes=own_classes)
        if not goal.done:
            with suppress(Spent):
                attack(goal)
        x[index, ..., : goal.found.shape[-1]] = goal.found[0]
        system.add_cost(item)
    if eps is not None:  # float32 may have rounded over it
        x = clean + (x - clean).clamp(-eps, eps)
    return system.bounds.clip(x)
