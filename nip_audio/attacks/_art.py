"""Run attacks of the Adversarial Robustness Toolbox (ART) on a system under attack.

ART is imported when it is needed. ``ItemGoal`` presents the attacker's goal for one item as a
classifier that ART understands.
"""

from __future__ import annotations

import logging.config
import math
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
    """Return ART's module of evasion attacks.

    Raises:
        MissingDependencyError: If ART is not installed.
    """
    try:
        with preserved_logging():
            import art.attacks.evasion
    except ImportError as err:
        raise MissingDependencyError(
            "this attack needs the Adversarial Robustness Toolbox", extra="attacks"
        ) from err
    return art.attacks.evasion


def classifier(model: nn.Module, *, shape: tuple[int, ...], classes: int, bounds: Bounds) -> Any:
    """Return a module (R, *shape) → (R, classes) as an ART classifier.

    Args:
        model: Module without parameters and submodules, because ART moves, trains and clears
            whatever it can reach.
        shape: Shape of one row.
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
        device_type="cpu",  # device of the arrays; the module moves them to the system's
    )


@contextmanager
def preserved_logging() -> Iterator[None]:
    """Stop ART, which configures logging on import, from closing the handlers of others."""
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure


@contextmanager
def seeded_globals(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of Python and NumPy, from which ART draws; restore both.

    NumPy's warnings of divisions by zero are off meanwhile: ART divides by distances that may be 0.
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
    """Return the attacker's margin of each row, (R,); the attack succeeds where it is positive.

    Args:
        logits: (R, C) logits.
        label: (R,) class to leave or, if ``targeted``, to reach.
        targeted: Whether ``label`` is to be reached.
    """
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -torch.inf).amax(dim=1)
    return own - others if targeted else others - own


def failed_or_succeeded(margin: Tensor) -> Tensor:
    """Turn margins (R,) into logits (R, 2) of two classes: attack failed, attack succeeded."""
    return torch.stack([-margin, margin], dim=1)


class QueriesExhausted(Exception):
    """The queries of an item are used up. Raised because some loops of ART never end."""


class ItemGoal(nn.Module):
    """The attacker's goal for one item, as a classifier that remembers the best example.

    Whatever the objective, it has two classes, attack failed (0) and attack succeeded (1), whose
    logits are the asinh of the attacker's margin. Attacks that cannot be targeted reach a target by
    leaving class 0, and no loss is flat, however confident the system is. With ``own_classes``, an
    untargeted goal is shown as the classes of the system instead.

    The result is the best example that ART queried, not the one it returns: ART forgets successful
    examples along the way, and may return one that fails.

    Args:
        system: System under attack, with a batch of one item.
        eps: Largest change that counts; the example with the largest margin is best. If None, any
            change counts, and the example with the smallest change (L2) is best.
        own_classes: Whether an untargeted goal is shown as the classes of the system.
        folded: Whether a waveform (N,) is shown as an image of about √N rows, filled up with zeros.

    Attributes:
        shape: Shape of a row; a spectrogram (F, T) becomes an image (1, F, T).
        classes: Number of logits.
        bounds: Range of valid values.
        x: (1, *shape) float32, the item.
        own: (1, classes) float32 one-hot, the class to leave.
        found: (1, *S) best successful example, or the item if there is none.
        done: Whether ``found`` is a successful example.
    """

    def __init__(
        self,
        system: System,
        *,
        eps: float | None = None,
        own_classes: bool = False,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self._system = (system,)  # in a tuple, so that neither torch nor ART registers it as a part
        self._eps = eps
        self._own_classes = own_classes and not system.targeted
        # ART repeatedly queries the last two examples
        self._remembered = lru_cache(maxsize=2)(self._score_bytes)
        self._best = -torch.inf
        clean = system.batch.x
        self.bounds = system.bounds
        self.found = clean
        self.shape = (1, *clean.shape[1:]) if clean.dim() == 3 else tuple(clean.shape[1:])
        shown = clean
        if folded and clean.dim() == 2:
            columns = math.isqrt(clean.shape[1] - 1) + 1
            shown = nn.functional.pad(clean, (0, -clean.shape[1] % columns))
            self.shape = (1, shown.shape[1] // columns, columns)
        self.x: NDArray[np.float32] = shown.reshape(1, *self.shape).float().cpu().numpy().copy()
        self.classes = self(torch.from_numpy(self.x)).shape[1]
        self.own = np.zeros((1, self.classes), dtype=np.float32)
        self.own[0, int(system.label) if self._own_classes else 0] = 1.0

    @property
    def done(self) -> bool:
        """Whether a successful example was found."""
        return self._best > -torch.inf

    def forward(self, x: Tensor) -> Tensor:
        """Score rows (R, *shape): (R, classes) float64.

        Raises:
            QueriesExhausted: If the queries are used up.
        """
        if x.requires_grad:
            return self._score(x)
        return self._remembered(x.numpy().tobytes(), x.dtype)

    def classifier(self) -> Any:
        """Return this goal as an ART classifier."""
        return classifier(self, shape=self.shape, classes=self.classes, bounds=self.bounds)

    def _score_bytes(self, values: bytes, dtype: torch.dtype) -> Tensor:
        x = torch.frombuffer(bytearray(values), dtype=dtype)
        return self._score(x.reshape(-1, *self.shape)).detach()

    def _score(self, x: Tensor) -> Tensor:
        (system,) = self._system
        if system.exhausted:
            raise QueriesExhausted
        clean = system.batch.x
        x = x.flatten(1)[:, : clean[0].numel()].reshape(len(x), *clean.shape[1:]).to(clean)
        logits = system(x) if self._own_classes else system.scores(x)
        margin = margin_of(logits, system.label.expand(len(x)), targeted=system.targeted)
        self._remember(x.detach(), margin.detach(), clean)
        return (logits if self._own_classes else failed_or_succeeded(margin.asinh())).cpu()

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
    attack: Callable[[ItemGoal], object],
    *,
    eps: float | None = None,
    own_classes: bool = False,
    folded: bool = False,
) -> Tensor:
    """Attack item by item, because ART does not say which item a row belongs to.

    Args:
        system: System under attack, with the whole batch.
        attack: Function that runs ART on a goal; called for items on which the unchanged input
            does not succeed yet.
        eps: Largest change that counts, see ``ItemGoal``; None for any change.
        own_classes: Whether an untargeted goal is shown as the classes of the system.
        folded: Whether waveforms are shown as images, see ``ItemGoal``.

    Returns:
        Examples shaped like ``system.batch.x``, within ``eps`` and the bounds; an item without a
        successful example is returned unchanged.
    """
    clean = system.batch.x
    x = clean.clone()
    for index in range(len(x)):
        item = system.item(index)
        goal = ItemGoal(item, eps=eps, own_classes=own_classes, folded=folded)
        if not goal.done:
            with suppress(QueriesExhausted):
                attack(goal)
        x[index, ..., : goal.found.shape[-1]] = goal.found[0]
        system.add_cost(item)
    if eps is not None:  # rounding to float32 may have exceeded it
        x = clean + (x - clean).clamp(-eps, eps)
    return system.bounds.clip(x)
