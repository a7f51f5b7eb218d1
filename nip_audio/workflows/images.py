"""Attack and purify image files; each result is a PNG with a JSON sidecar.

The originals are never modified.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import AttackError, OutputError
from nip_audio.image.adapter import IMAGE_SUFFIXES, Image, ImageAdapter, to_8_bits
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.measure import noise_generator

__all__ = ["ChangedImage", "attack_image", "purify_image", "walk_images"]


@dataclass(frozen=True)
class ChangedImage:
    """An image that was attacked or purified, as described in its JSON sidecar.

    Attributes:
        source: Path of the image that was read.
        written: Path of the PNG that was written, which has the model's size.
        written_sha256: SHA-256 of the bytes of the written PNG.
        by: Name and settings of the attack or purifier.
        aim: Goal of the attacker in words; empty for a purifier.
        named_before: Prediction of the model for the original image.
        named_after: Prediction of the model for the *written file*.
        succeeded: Whether the written file reaches the attacker's goal; None for a purifier.
        linf: Largest absolute change of a pixel value, in [0, 1].
        l2: L2 norm of the change.
        changes: Conversions that were made when the image was read.
        seed: Seed of all random draws.
        model_id: Identity of the model.
    """

    source: str
    written: str
    written_sha256: str
    by: dict[str, Any]
    aim: str
    named_before: str
    named_after: str
    succeeded: bool | None
    linf: float
    l2: float
    changes: tuple[str, ...]
    seed: int
    model_id: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to 6 digits."""
        values = {**vars(self), "changes": list(self.changes)}
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def walk_images(sources: Sequence[Path]) -> list[Path]:
    """List image files: given files in their order, and all images below given folders, sorted."""
    found: list[Path] = []
    for source in sources:
        inside = (p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        found += sorted(inside) if source.is_dir() else [source]
    return found


def attack_image(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    attack: Attack,
    *,
    target: str | None = None,
    seed: int = 0,
    force: bool = False,
) -> ChangedImage:
    """Attack one image, write a PNG and a sidecar, and check success on the written file.

    Args:
        pretrained: Model to attack.
        path: Path of a clean image of any size; it is converted to the size of the model first.
        out: Path of the PNG to write.
        attack: Attack to run.
        target: Class that the model should predict; None aims at any other class than the current.
        seed: Seed of the attack, combined with the content of the image.
        force: Whether an existing file is overwritten.

    Raises:
        ImageError: If the image cannot be used.
        AttackError: If the target is unknown, or the attack does not apply to the model.
        OutputError: If an output exists and ``force`` is false.
    """
    labels = pretrained.card.labels
    if target is not None and target not in labels:
        raise AttackError(
            f"{target!r} is none of the {len(labels)} classes of {pretrained.card.name}, expected "
            f"one such as {', '.join(labels[:3])}; choose a class of the model"
        )
    image = _read(pretrained, path, out, force=force)
    batch = Batch(image.pixels[None])
    label = pretrained.model.predict(batch)
    if target is not None:
        label = torch.tensor([labels.index(target)])
    objective = Identification(pretrained.model, label, targeted=target is not None)
    generator = noise_generator(seed, image.content_sha256)
    made = attack(objective, batch, generator=generator).batch.x[0]
    aim = "named as anything else" if target is None else f"named as {target}"
    succeeded = bool(objective.succeeded(Batch(to_8_bits(made)[None]))[0])
    return _write(
        pretrained, path, out, image, made, attack.settings(), aim, succeeded, seed, force
    )


def purify_image(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    purifier: Purifier,
    *,
    seed: int = 0,
    force: bool = False,
) -> ChangedImage:
    """Purify one image, without its label or clean original; write a PNG and a sidecar.

    Args:
        pretrained: Model to defend.
        path: Path of an image of any size; the written image has the size of the model.
        out: Path of the PNG to write.
        purifier: Purifier that is applied.
        seed: Seed of a random purifier, combined with the content of the image.
        force: Whether an existing file is overwritten.

    Raises:
        ImageError: If the image cannot be used.
        OutputError: If an output exists and ``force`` is false.
    """
    image = _read(pretrained, path, out, force=force)
    generator = noise_generator(seed, image.content_sha256)
    with torch.no_grad():
        made = purifier.purify(Batch(image.pixels[None]), generator=generator).x[0]
    return _write(pretrained, path, out, image, made, purifier.settings(), "", None, seed, force)


def _read(pretrained: PretrainedModel, path: Path, out: Path, *, force: bool) -> Image:
    if out.exists() and path.resolve() == out.resolve():
        raise OutputError(f"{out} is the input image itself; choose another --out")
    for output in (out, out.with_suffix(".json")):
        if output.exists() and not force:
            raise OutputError(f"{output} exists already; pass --force to overwrite it")
    return ImageAdapter(*pretrained.card.image_shape).load(path)


def _write(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    image: Image,
    made: Tensor,
    by: dict[str, Any],
    aim: str,
    succeeded: bool | None,
    seed: int,
    force: bool,
) -> ChangedImage:
    adapter = ImageAdapter(*pretrained.card.image_shape)
    adapter.save(to_8_bits(made), out, force=force)
    written = adapter.load(out).pixels
    both = Batch(torch.stack([image.pixels, written]))
    before, after = (pretrained.card.labels[int(i)] for i in pretrained.model.predict(both))
    change = (written - image.pixels).flatten()
    done = ChangedImage(
        *(str(path), str(out), file_sha256(out), by, aim, before, after, succeeded),
        linf=float(change.abs().max()),
        l2=float(change.norm()),
        changes=image.changes,
        seed=seed,
        model_id=pretrained.model_id,
    )
    text = json.dumps(done.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomic(out.with_suffix(".json"), text.encode(), force=force)
    return done
