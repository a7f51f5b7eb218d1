"""Attack and purify picture files: a PNG and a JSON sidecar for each, the originals untouched."""

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

__all__ = ["ChangedPicture", "attack_picture", "purify_picture", "walk_pictures"]


@dataclass(frozen=True)
class ChangedPicture:
    """One picture that was changed, as its JSON sidecar has it.

    Attributes:
        source: Picture that was read.
        written: PNG that was written, of the model's size.
        written_sha256: Of its bytes.
        by: Name and settings of the attack or purifier.
        aim: What an attacker wanted, in words; empty for a purifier.
        named_before: What the model names the picture.
        named_after: What it names the *written file*.
        succeeded: Whether the attacker has what he wants by the written file; None for a purifier.
        linf: Largest change of a pixel.
        l2: Norm of the change.
        changes: What reading did to the picture.
        seed: Of everything random.
        model_id: The model.
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
        """Return rounded plain values."""
        values = {**vars(self), "changes": list(self.changes)}
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def walk_pictures(sources: Sequence[Path]) -> list[Path]:
    """List pictures: files as they are given, folders with all below them, sorted."""
    found: list[Path] = []
    for source in sources:
        inside = (p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        found += sorted(inside) if source.is_dir() else [source]
    return found


def attack_picture(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    attack: Attack,
    *,
    target: str | None = None,
    seed: int = 0,
    force: bool = False,
) -> ChangedPicture:
    """Attack one picture; write a PNG and a sidecar, and judge the written file.

    Args:
        pretrained: Attacked model.
        path: Clean picture, of any size; what is attacked is what the model takes of it.
        out: PNG to write.
        attack: Which.
        target: Class to be named as; None wants any other than now.
        seed: With the content, seeds what is random.
        force: Overwrite.

    Raises:
        ImageError: If the picture cannot be used.
        AttackError: If the target is unknown, or the attack cannot apply.
        OutputError: If an output exists.
    """
    labels = pretrained.card.labels
    if target is not None and target not in labels:
        raise AttackError(
            f"{target!r} is none of the {len(labels)} classes of {pretrained.card.name}"
        )
    picture = _read(pretrained, path, out, force=force)
    batch = Batch(picture.pixels[None])
    label = pretrained.model.predict(batch)
    if target is not None:
        label = torch.tensor([labels.index(target)])
    objective = Identification(pretrained.model, label, targeted=target is not None)
    generator = noise_generator(seed, picture.content_sha256)
    made = attack(objective, batch, generator=generator).batch.x[0]
    aim = "named as anything else" if target is None else f"named as {target}"
    succeeded = bool(objective.succeeded(Batch(to_8_bits(made)[None]))[0])
    return _write(
        pretrained, path, out, picture, made, attack.settings(), aim, succeeded, seed, force
    )


def purify_picture(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    purifier: Purifier,
    *,
    seed: int = 0,
    force: bool = False,
) -> ChangedPicture:
    """Purify one picture; write a PNG and a sidecar. Neither label nor clean original is known.

    Args:
        pretrained: The model that is defended.
        path: Picture, of any size; what is written has the model's.
        out: PNG to write.
        purifier: Its defence.
        seed: With the content, seeds a random purifier.
        force: Overwrite.

    Raises:
        ImageError: If the picture cannot be used.
        OutputError: If an output exists.
    """
    picture = _read(pretrained, path, out, force=force)
    generator = noise_generator(seed, picture.content_sha256)
    with torch.no_grad():
        made = purifier.purify(Batch(picture.pixels[None]), generator=generator).x[0]
    return _write(pretrained, path, out, picture, made, purifier.settings(), "", None, seed, force)


def _read(pretrained: PretrainedModel, path: Path, out: Path, *, force: bool) -> Image:
    if out.exists() and path.resolve() == out.resolve():
        raise OutputError(f"{out} is the picture itself; choose another --out")
    for output in (out, out.with_suffix(".json")):
        if output.exists() and not force:
            raise OutputError(f"{output} exists already; pass --force to overwrite it")
    return ImageAdapter(*pretrained.card.image_shape).load(path)


def _write(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    picture: Image,
    made: Tensor,
    by: dict[str, Any],
    aim: str,
    succeeded: bool | None,
    seed: int,
    force: bool,
) -> ChangedPicture:
    adapter = ImageAdapter(*pretrained.card.image_shape)
    adapter.save(to_8_bits(made), out, force=force)
    written = adapter.load(out).pixels
    both = Batch(torch.stack([picture.pixels, written]))
    before, after = (pretrained.card.labels[int(i)] for i in pretrained.model.predict(both))
    change = (written - picture.pixels).flatten()
    done = ChangedPicture(
        *(str(path), str(out), file_sha256(out), by, aim, before, after, succeeded),
        linf=float(change.abs().max()),
        l2=float(change.norm()),
        changes=picture.changes,
        seed=seed,
        model_id=pretrained.model_id,
    )
    text = json.dumps(done.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomic(out.with_suffix(".json"), text.encode(), force=force)
    return done
