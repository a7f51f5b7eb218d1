"""Fit a substitute of a remote image classifier, and a purifier to it: black-box NIP.

NIP is neuron-level inverse perturbation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError, OutputError
from nip_audio.image.datasets import ImageSet
from nip_audio.image.remote import RemoteClassifier
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.substitute import train_substitute
from nip_audio.training.image_publishing import ImageRun, publish_images
from nip_audio.training.image_training import image_model
from nip_audio.training.publishing import complete
from studies.images.fit_purifier import fit_guided

__all__ = ["RemotePlan", "fit_to_remote"]

PURIFIER_NAME = "purifier.safetensors"


@dataclass(frozen=True)
class RemotePlan:
    """Settings of the fit of a substitute and its purifier.

    Attributes:
        batch: Images per step of the substitute's training.
        epochs: Passes over the images.
        lr: Learning rate of the substitute.
        holdout: Share of the images that agreement is measured on.
        guided: Settings of the purifier's training; ``raw_share`` is 0, since images have no
            separate raw input.
        guided_batch: Images per step of the purifier's training.
        seed: Seed of order and draws.

    Raises:
        InputError: If a batch size or ``raw_share`` is invalid.
    """

    batch: int = 50
    epochs: int = 20
    lr: float = 2e-3
    holdout: float = 0.1
    guided: GuidedSettings = field(default_factory=lambda: GuidedSettings(raw_share=0.0))
    guided_batch: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.batch < 2 or self.guided_batch < 2 or self.guided.raw_share:
            raise InputError(
                f"batch is {self.batch}, guided_batch {self.guided_batch} and raw_share "
                f"{self.guided.raw_share}, expected ≥ 2, ≥ 2 and 0"
            )


def fit_to_remote(
    remote: RemoteClassifier,
    pixels: Tensor,
    run: ImageRun,
    plan: RemotePlan,
    target: Path,
    *,
    progress: Callable[[str], None] = lambda what: None,
) -> PretrainedModel:
    """Train a substitute on a remote classifier's answers, and fit guided NIP to it.

    This writes a model directory with its purifier; ``nip-audio purify --model DIRECTORY`` then
    makes images ready for the remote classifier. Only labels are asked for, with one query per
    image; no true label is used.

    Args:
        remote: Remote classifier to defend.
        pixels: (n, C, H, W) benign images in [0, 1], of the recipe's size, like those to purify.
        run: Recipe of the substitute; its head has as many classes as the remote classifier, and
            its training settings are not used.
        plan: Settings of the fit.
        target: Directory to write; its name becomes the substitute's.
        progress: Called with a description of each step.

    Returns:
        The substitute; the metrics of its card are ``agreement`` on held-out images, and
        ``queries``, the number of answers that it learned from.

    Raises:
        InputError: If images and recipe do not fit, or the remote classifier has other classes.
        OutputError: If the directory exists.
        RemoteError: If the remote classifier cannot be used.
    """
    shape = tuple(run.hparams["image_shape"])
    if pixels.dim() != 4 or tuple(pixels.shape[1:]) != shape:
        raise InputError(
            f"images are {tuple(pixels.shape)}, the recipe's {shape}; resize them, or use another "
            "recipe"
        )
    if target.exists():
        raise OutputError(f"{target} exists; give another directory, or delete it")
    substitute = image_model(run.network, run.classifier, remote.labels)
    generator = torch.Generator().manual_seed(plan.seed)
    answers: list[Tensor] = []

    def answer(batch: Batch) -> Tensor:
        answers.append(remote(batch))
        progress(f"{sum(map(len, answers))} answers")
        return answers[-1]

    agreement = train_substitute(
        substitute,
        answer,
        map(Batch, torch.split(pixels, plan.batch)),
        epochs=plan.epochs,
        lr=plan.lr,
        holdout=plan.holdout,
        classes=len(remote.labels),
        generator=generator,
        progress=lambda epoch, loss: progress(f"substitute, epoch {epoch}: loss {loss:.3f}"),
    )
    substitute.requires_grad_(False)
    shown = ImageSet(pixels, torch.cat(answers), remote.labels, "answers of a remote classifier")
    publish_images(
        *(substitute, run, target),
        train=shown,
        metrics={"agreement": agreement, "queries": len(shown), "held_out": plan.holdout},
        training=_facts(remote, plan),
    )
    pretrained = load_pretrained(target)
    purifier = fit_guided(
        pretrained, pixels, plan.guided, batch=plan.guided_batch, progress=progress
    )
    purifier.save(target / PURIFIER_NAME, model_id=pretrained.model_id)
    complete(target)
    return load_pretrained(target)


def _facts(remote: RemoteClassifier, plan: RemotePlan) -> dict[str, Any]:
    settings = {k: v for k, v in asdict(plan).items() if k not in ("guided", "guided_batch")}
    return {
        "data": f"answers of {remote.shown}, labels only",
        "seed": plan.seed,
        "hyperparameters": settings,
    }
