"""Train small networks on images with a plain loop.

SpeechBrain's ``Brain`` is not used: its data sets, augmenters and checkpoints are made for
utterances of many lengths, and a run on images takes minutes only.
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
    """Settings of a training on images.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images per step; an incomplete batch at the end of an epoch is dropped.
        lr: Largest learning rate of a one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        shift: Largest shift of an image in pixels, in each direction; the edge is repeated.
        flip: Whether to mirror half of the images.
        brightness: Largest relative change of contrast and brightness.
        noise_share: Share of the images that get white noise.
        noise: Smallest and largest standard deviation of the noise, drawn log-uniformly.
        sparse_share: Share of the images in which single values are replaced by random ones.
        sparse: Largest share of values replaced.
        adversarial_attack: None, ``fgsm`` (Goodfellow et al. 2015) or ``pgd``.
        adversarial_share: Share of each batch that is adversarial; 1 with ``pgd`` is the training
            of Madry et al. 2018.
        adversarial_eps: Largest change of a pixel; it grows from 0 over the first third.
        adversarial_steps: Steps of PGD.
        adversarial_step_share: Size of a step as a share of ε.

    Raises:
        InputError: If a setting is invalid.
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
        """Check the settings."""
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
        """Read the settings from the values of a recipe's YAML."""
        names = ImageTraining.__dataclass_fields__
        given = {name: hparams[name] for name in names if name in hparams}
        if "noise" in given:
            given["noise"] = tuple(given["noise"])
        return ImageTraining(**given)


def image_model(
    network: nn.Module, classifier: nn.Module, classes: tuple[str, ...]
) -> InstrumentedModel:
    """Combine a network and a linear head into a model from pixels to logits."""
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
        model: Model to train; its weights are the starting point.
        data: Images of the ``train`` role.
        plan: Settings of the training.
        seed: Seed of the order, the augmentation and the attacks.
        progress: Called after each epoch with its number, mean loss and accuracy.

    Returns:
        The model in evaluation mode, with gradients of its weights switched off.

    Raises:
        InputError: If there are fewer images than a batch holds, or their classes are not the
            head's.
        MissingDependencyError: If adversarial training needs the extra ``attacks``.
    """
    if len(data) < plan.batch_size:
        raise InputError(
            f"got {len(data)} images, expected at least one batch of {plan.batch_size}; use more"
        )
    if data.classes != model.labels:
        raise InputError(
            f"the {len(data.classes)} classes of the images are not the {len(model.labels)} of the "
            "model; use a model with the same classes"
        )
    generator = torch.Generator().manual_seed(seed)
    steps = len(data) // plan.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.lr, total_steps=steps * plan.epochs, pct_start=0.2
    )
    # a quarter faster on CPUs, with the same values
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
    """Shift, mirror, dim and disturb images (B, C, H, W), each with its own random draws."""
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
    """Make a share of the images adversarial against the network in its current state."""
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
    """Return the accuracy on images, with white noise of standard deviation ``noise``."""
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for rows in torch.split(torch.arange(len(data)), 256):
        x = data.pixels[rows]
        if noise:
            x = PIXELS.clip(x + noise * torch.randn(x.shape, generator=generator))
        right += int((model.predict(Batch(x)) == data.labels[rows]).sum())
    return right / len(data)
