"""Attack and purify images: the parts of the commands that serve models of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nip_audio.cli._console import print_json, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.errors import ImageError, InputError

if TYPE_CHECKING:
    from nip_audio.models.pretrained import PretrainedModel
    from nip_audio.purifiers.base import Purifier
    from nip_audio.workflows.images import ChangedImage


DEFAULT_EPS = 8 / 255


def attack_images(
    pretrained: PretrainedModel,
    files: Sequence[Path],
    out: Path,
    *,
    attack: str,
    eps: float | None,
    settings: dict[str, Any],
    target: str | None,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Attack images and write the results as PNGs."""
    from nip_audio.attacks.registry import attack_entry, make_attack
    from nip_audio.workflows.images import attack_image

    entry = attack_entry(attack)
    if eps is None and "eps" in entry.settings and entry.kind.norm != "l2":
        eps = DEFAULT_EPS
    chosen = make_attack(attack, eps=eps, level="input", settings=settings)

    def change(path: Path, written: Path) -> ChangedImage:
        return attack_image(
            pretrained, path, written, chosen, target=target, seed=seed, force=force
        )

    _change_all(files, out, f".{attack}", change, force=force, as_json=as_json)


def purify_images(
    pretrained: PretrainedModel,
    inputs: Sequence[Path],
    out: Path,
    *,
    purifier: Purifier,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Purify images and write the results as PNGs."""
    from nip_audio.workflows.images import purify_image, walk_images

    def change(path: Path, written: Path) -> ChangedImage:
        return purify_image(pretrained, path, written, purifier, seed=seed, force=force)

    _change_all(walk_images(inputs), out, "", change, force=force, as_json=as_json)


def _change_all(
    files: Sequence[Path],
    out: Path,
    ending: str,
    change: Callable[[Path, Path], ChangedImage],
    *,
    force: bool,
    as_json: bool,
) -> None:
    from nip_audio.cli._outputs import claim_outputs

    if not files:
        raise InputError(
            "found no images, expected png, jpg, bmp, ppm or webp files; check the path"
        )
    claimed = claim_outputs(
        files, out, f"{ending}.png", sidecar=f"{ending}.json", what="images", force=force
    )
    done, failed = [], []
    for path, written in zip(files, claimed, strict=True):
        try:
            done.append(change(path, written))
        except ImageError as err:
            failed.append(str(err))
            stderr.print(failed[-1], markup=False, highlight=False, soft_wrap=True)
            continue
        if not as_json:
            stdout.print(_line(done[-1]), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({"written": [one.to_json() for one in done], "failed": failed})
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _line(done: ChangedImage) -> str:
    verdict = ""
    if done.succeeded is not None:
        verdict = "; fools the model" if done.succeeded else "; does not fool the model"
    return (
        f"{done.written}: prediction {done.named_before} → {done.named_after} (largest change "
        f"{done.linf:.4f}{verdict})"
    )
