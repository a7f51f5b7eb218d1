"""Train a substitute for a remote model, as neuron-level inverse perturbation (NIP) needs it.

NIP computes gradients at neurons, which a remote model does not expose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number, check_whole

__all__ = ["train_substitute"]


def train_substitute(
    substitute: InstrumentedModel,
    answer: Callable[[Batch], Tensor],
    batches: Iterable[Batch],
    *,
    epochs: int = 10,
    lr: float = 1e-3,
    holdout: float = 0.2,
    classes: int | None = None,
    generator: torch.Generator,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> float:
    """Train a model on the predictions of a remote classifier (NIP, Sec. 3.1).

    A ``NipPool`` is then fitted on the substitute and applied to the input of the remote model.
    Only predictions are used: no scores, no true labels. Each item is queried once.

    Args:
        substitute: Untrained model with a head that returns logits; it is trained in place and left
            in evaluation mode.
        answer: Function that returns the remote model's predictions for a batch, (B,) integers.
        batches: Raw input of the substitute, which the remote model must accept too; at least two
            batches. To train on model input, pass ``substitute.without_front_end()``.
        epochs: Number of passes over the training batches.
        lr: Learning rate of Adam.
        holdout: Share of the batches that is held out from training; at least one batch is.
        classes: Number of classes of the remote model; None if it is unknown.
        generator: Source of randomness for the choice of held-out batches, the order of batches,
            and random layers such as dropout.
        progress: Function called after each epoch with its number, from 1, and its mean loss.

    Returns:
        Share of the held-out items for which both models predict the same class.

    Raises:
        InputError: If there are too few batches, a prediction is not a class of the substitute,
            the numbers of classes differ, the substitute has no head or no trainable weights, or
            the loss is not finite.
    """
    check_whole("epochs", epochs, 1, 100_000, usual=10)
    check_number("lr", lr, 1e-9, 10.0, usual=1e-3)
    check_number("holdout", holdout, 0.0, 0.9, usual=0.2)
    asked = list(batches)
    if len(asked) < 2:
        raise InputError(
            f"got {len(asked)} batches, expected two or more, for training and for comparison; "
            "pass more items, or smaller batches"
        )
    weights = [p for p in substitute.parameters() if p.requires_grad]
    if not weights:
        raise InputError("the substitute has no weights to train; unfreeze some")
    own = _count_classes(substitute, asked[0], classes)
    known = [(batch, _labels(answer, batch, own)) for batch in asked]
    order = torch.randperm(len(known), generator=generator).tolist()
    held = min(max(1, round(holdout * len(known))), len(known) - 1)
    optimizer = torch.optim.Adam(weights, lr=lr)
    try:
        with _drawing_from(generator, weights[0].device):
            for epoch in range(1, epochs + 1):
                shuffled = torch.randperm(len(known) - held, generator=generator).tolist()
                loss = _epoch(substitute, optimizer, [known[order[held + i]] for i in shuffled])
                progress(epoch, loss)
    finally:
        substitute.eval()
    return _agreement(substitute, [known[i] for i in order[:held]])


def _labels(answer: Callable[[Batch], Tensor], batch: Batch, classes: int) -> Tensor:
    labels = answer(batch)
    if labels.shape != (len(batch),) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"predictions are {tuple(labels.shape)} of {labels.dtype}, expected ({len(batch)},) "
            "integers; return the index of each item's class"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"predictions range from {low} to {high}, expected 0 to {classes - 1}, the classes of "
            "the substitute; give its head as many classes as the remote model has"
        )
    return labels.detach().to(batch.x.device, torch.long)


def _scores(substitute: InstrumentedModel, batch: Batch) -> Tensor:
    return substitute.logits(substitute.scores(batch))


@torch.no_grad()
def _count_classes(substitute: InstrumentedModel, batch: Batch, classes: int | None) -> int:
    if substitute.head is None:
        raise InputError(
            "the substitute only embeds, expected a model that predicts classes; give it a head "
            "with as many as the remote model has"
        )
    substitute.eval()  # counting the classes must not update batch-normalisation statistics
    own = _scores(substitute, batch).shape[1]
    if classes is not None and own != classes:
        raise InputError(
            f"the substitute has {own} classes, the remote model {classes}; give the substitute a "
            "head of as many"
        )
    return own


def _epoch(
    substitute: InstrumentedModel,
    optimizer: torch.optim.Adam,
    known: Sequence[tuple[Batch, Tensor]],
) -> float:
    """Train on each batch once; return the mean loss."""
    substitute.train()
    total = 0.0
    for batch, labels in known:
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(_scores(substitute, batch), labels)
        if not bool(loss.isfinite()):
            raise InputError(
                "the loss is not finite, expected a number; lower lr, or check the input for NaN"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach())
    optimizer.zero_grad()
    return total / len(known)


@torch.no_grad()
def _agreement(substitute: InstrumentedModel, known: Sequence[tuple[Batch, Tensor]]) -> float:
    same = torch.cat([substitute.predict(batch) == labels for batch, labels in known])
    return float(same.float().mean())


@contextmanager
def _drawing_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed the global generator of a device from a given one, and restore its state on exit."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # torch.manual_seed would also reseed devices whose state is not restored
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
