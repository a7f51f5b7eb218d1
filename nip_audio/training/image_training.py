"""Train small networks on pictures: a plain loop, and a model directory at its end.

SpeechBrain's Brain is not used here: its data sets, augmenters and checkpoints are made for
utterances of many lengths, and a run takes minutes. The loop is the shorter text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.image.datasets import ImageSet

__all__ = ["ImageTraining", "accuracy", "image_model", "train_images"]

PIXELS = Bounds(0.0, 1.0)


@dataclass(frozen=True)
class ImageTraining:
    """How a network is trained on pictures.

    Attributes:
        epochs: Passes over the pictures.
        batch_size: Pictures a step; what is left of an epoch is dropped.
        lr: Largest learning rate of a one-cycle schedule.
        weight_decay: Of AdamW.
        shift: Most pixels that a picture is moved by, each way; what comes in repeats the edge.
        flip: Mirror every other picture.
        brightness: Most change of the contrast and the level, as a share.
        noise_share: Of the pictures that get white noise.
        noise: Weakest and strongest standard deviation of it; drawn log-uniformly.
        sparse_share: Of the pictures in which single values are replaced by random ones.
        sparse: Largest share of values replaced.
        adversarial_attack: None, ``fgsm`` (Goodfellow et al. 2015) or ``pgd``.
        adversarial_share: Of each batch; 1 with ``pgd`` is Madry et al. 2018.
        adversarial_eps: Largest change of a pixel; it grows from 0 over the first third.
        adversarial_steps: Of PGD.
        adversarial_step_share: Size of a step as a share of ε.

    Raises:
        InputError: If a setting makes no sense.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.004
    weight_decay: float = 0.01
    shift: int = 2
    flip: bool = False
    brightness: float = 0.0
    noise_share: float = 0.5
    noise: tuple[float, float] = (0.005, 0.1)
    sparse_share: float = 0.2
    sparse: float = 0.05
    adversarial_attack: str | None = None
    adversarial_share: float = 0.5
    adversarial_eps: float = 0.3
    adversarial_steps: int = 7
    adversarial_step_share: float = 0.25

    def __post_init__(self) -> None:
        """Check."""
        if self.epochs < 1 or self.batch_size < 2 or not 0 < self.noise[0] <= self.noise[1]:
            raise InputError(
                f"got {self.epochs} epochs, batches of {self.batch_size} and noise {self.noise}, "
                "expected at least 1, at least 2, and 0 < weakest ≤ strongest"
            )
        shares = (self.noise_share, self.sparse_share, self.sparse, self.adversarial_share)
        if not all(0 <= share <= 1 for share in shares):
            raise InputError(f"shares are {shares}, expected 0 to 1")

    @staticmethod
    def from_hparams(hparams: Mapping[str, Any]) -> ImageTraining:
        """Take what a recipe's YAML says of it."""
        names = ImageTraining.__dataclass_fields__
        given = {name: hparams[name] for name in names if name in hparams}
        if "noise" in given:
            given["noise"] = tuple(given["noise"])
        return ImageTraining(**given)


def image_model(
    network: nn.Module, classifier: nn.Module, classes: tuple[str, ...]
) -> InstrumentedModel:
    """Put a network and a linear head together: pixels in, logits out."""
    return InstrumentedModel(network, head=classifier, labels=classes, bounds=PIXELS)


def train_images(
    model: InstrumentedModel,
    data: ImageSet,
    plan: ImageTraining,
    *,
    seed: int,
    progress: Callable[[int, float, float], None] = lambda epoch, loss, right: None,
) -> InstrumentedModel:
    """Train a model in place; it keeps the weights of the last epoch, not those of the best one.

    Args:
        model: Fresh, or to go on from.
        data: The ``train`` role.
        plan: How.
        seed: Of order, augmentation and attacks.
        progress: Called with each epoch done, its mean loss and share classified correctly.

    Returns:
        The model, in evaluation mode, without gradients of its own.

    Raises:
        InputError: If there are fewer pictures than a batch holds, or other classes than the head
            has.
        MissingDependencyError: For adversarial training without the extra attacks.
    """
    if len(data) < plan.batch_size:
        raise InputError(f"{len(data)} pictures, a batch holds {plan.batch_size}; use more")
    if data.classes != model.labels:
        raise InputError(
            f"the pictures have {len(data.classes)} classes, the model {len(model.labels)}, or "
            "others; give both the same"
        )
    generator = torch.Generator().manual_seed(seed)
    steps = len(data) // plan.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.lr, total_steps=steps * plan.epochs, pct_start=0.2
    )
    # a quarter faster on CPUs, and the same values
    model.to(memory_format=torch.channels_last).train().requires_grad_(True)
    for epoch in range(plan.epochs):
        order = torch.randperm(len(data), generator=generator)
        total, right = 0.0, 0
        for step, rows in enumerate(torch.split(order, plan.batch_size)[:steps]):
            x = augmented(data.pixels[rows], plan, generator)
            labels = data.labels[rows]
            grown = min(1.0, 3 * (epoch + step / steps) / plan.epochs)
            x = _attacked(model, x, labels, plan, grown, generator)
            x = x.contiguous(memory_format=torch.channels_last)
            scores = model.scores(Batch(x))
            loss = cross_entropy(scores, labels)
            if not math.isfinite(float(loss.detach())):
                raise InputError(f"the loss of epoch {epoch} is not finite; lower lr")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
            right += int((scores.argmax(dim=1) == labels).sum())
        progress(epoch, total / steps, right / (steps * plan.batch_size))
    return model.eval().requires_grad_(False)


def augmented(x: Tensor, plan: ImageTraining, generator: torch.Generator) -> Tensor:
    """Move, mirror, dim and disturb (B, C, H, W) pixels, each picture in its own way."""
    count = len(x)

    def chosen(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def each(values: Tensor) -> Tensor:
        return values.reshape(-1, 1, 1, 1)

    if plan.flip:
        x = torch.where(each(chosen(0.5)), x.flip(3), x)
    if plan.shift:
        x = _moved(x, plan.shift, generator)
    if plan.brightness:
        gain, level = (each(2 * torch.rand(count, generator=generator) - 1) for _ in range(2))
        x = x * (1 + plan.brightness * gain) + 0.5 * plan.brightness * level
    low, high = plan.noise
    spread = low * (high / low) ** torch.rand(count, generator=generator)
    noise = each(spread * chosen(plan.noise_share)) * torch.randn(x.shape, generator=generator)
    x = x + noise
    share = plan.sparse * torch.rand(count, generator=generator) * chosen(plan.sparse_share)
    hit = torch.rand(x.shape, generator=generator) < each(share)
    return PIXELS.clip(torch.where(hit, torch.rand(x.shape, generator=generator).round(), x))


def _moved(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    rows, columns = x.shape[2:]
    wide = pad(x, (most,) * 4, mode="replicate")
    starts = torch.randint(2 * most + 1, (len(x), 2), generator=generator).tolist()
    return torch.stack(
        [
            picture[:, top : top + rows, left : left + columns]
            for picture, (top, left) in zip(wide, starts, strict=True)
        ]
    )


def _attacked(
    model: InstrumentedModel,
    x: Tensor,
    labels: Tensor,
    plan: ImageTraining,
    grown: float,
    generator: torch.Generator,
) -> Tensor:
    """Make a share of the pictures adversarial, against the network as it is now."""
    count = round(plan.adversarial_share * len(x))
    if plan.adversarial_attack is None or count == 0 or grown == 0:
        return x
    attack = GradientAttack(
        plan.adversarial_attack,
        eps=plan.adversarial_eps * grown,
        steps=plan.adversarial_steps,
        step_share=plan.adversarial_step_share,
    )
    objective = Identification(model, labels[:count])
    made = attack(objective, Batch(x[:count]), generator=generator).batch.x
    return torch.cat([made, x[count:]])


@torch.no_grad()
def accuracy(
    model: InstrumentedModel, data: ImageSet, *, noise: float = 0.0, seed: int = 0
) -> float:
    """Share of pictures classified correctly, with white noise of a standard deviation if asked."""
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for rows in torch.split(torch.arange(len(data)), 256):
        x = data.pixels[rows]
        if noise:
            x = PIXELS.clip(x + noise * torch.randn(x.shape, generator=generator))
        right += int((model.predict(Batch(x)) == data.labels[rows]).sum())
    return right / len(data)
