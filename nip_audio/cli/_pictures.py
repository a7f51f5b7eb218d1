"""What commands do with a model whose card says that it takes pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from nip_audio.attacks.registry import attack_entry, make_attack
from nip_audio.cli._console import (
    EXIT_FAILED,
    EXIT_FLAGGED,
    advance,
    plain,
    print_json,
    progress_bar,
    stderr,
    stdout,
)
from nip_audio.errors import ImageError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.pictures import ChangedPicture, attack_picture, purify_picture
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.calibration import choose_calibration
from nip_audio.screening.picture_calibration import (
    PictureCalibration,
    calibrate_pictures,
    judge_picture,
    walk_pictures,
)

DEFAULT_EPS = 8 / 255


def attack_pictures(
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
    """Attack pictures and write PNGs."""
    entry = attack_entry(attack)
    if eps is None and "eps" in entry.settings and entry.kind.norm != "l2":
        eps = DEFAULT_EPS
    chosen = make_attack(attack, eps=eps, level="input", settings=settings)

    def change(path: Path, written: Path) -> ChangedPicture:
        return attack_picture(
            pretrained, path, written, chosen, target=target, seed=seed, force=force
        )

    _change_all(files, out, f".{attack}", change, as_json=as_json)


def purify_pictures(
    pretrained: PretrainedModel,
    inputs: Sequence[Path],
    out: Path,
    *,
    purifier: Purifier,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Purify pictures and write PNGs."""

    def change(path: Path, written: Path) -> ChangedPicture:
        return purify_picture(pretrained, path, written, purifier, seed=seed, force=force)

    _change_all(walk_pictures(inputs), out, "", change, as_json=as_json)


def _change_all(
    files: Sequence[Path],
    out: Path,
    ending: str,
    change: Callable[[Path, Path], ChangedPicture],
    *,
    as_json: bool,
) -> None:
    names = [f"{path.stem}{ending}.png" for path in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not files:
        raise InputError(
            f"{', '.join(twice)} would be written twice; give them in two runs"
            if twice
            else "no picture was found, expected png, jpg, bmp, ppm or webp; check the path"
        )
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for path, name in zip(files, names, strict=True):
        try:
            done.append(change(path, out / name))
        except ImageError as err:
            stderr.print(str(err), markup=False, highlight=False, soft_wrap=True)
            continue
        if not as_json:
            stdout.print(_line(done[-1]), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json([one.to_json() for one in done])
    if len(done) < len(files):
        raise typer.Exit(EXIT_FAILED)


def _line(done: ChangedPicture) -> str:
    verdict = ""
    if done.succeeded is not None:
        verdict = "; fools the model" if done.succeeded else "; does not fool the model"
    return (
        f"{done.written}: {done.named_before} → {done.named_after} (largest change {done.linf:.4f}"
        f"{verdict})"
    )


def calibrate_on_pictures(
    pretrained: PretrainedModel,
    source: Sequence[Path],
    out: Path,
    *,
    draws: int,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Learn what clean pictures look like, and write a calibration."""
    paths = walk_pictures(source)
    with progress_bar("calibrating", len(paths)) as bar:
        result = calibrate_pictures(
            pretrained, paths, draws=draws, seed=seed, progress=lambda _: advance(bar)
        )
    result.save(out, force=force)
    failed = [str(failure) for failure in result.failures]
    for failure in failed:
        stderr.print(f"left out: {failure}", markup=False, highlight=False, soft_wrap=True)
    used = len(result.distances)
    if as_json:
        facts = {"out": str(out), "files": used, "failed": failed}
        print_json(facts | {"model_id": result.model_id})
    else:
        stdout.print(
            f"{used} pictures, allowing a false-positive rate of {1 / (used + 1):.2%}: {out}",
            markup=False,
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(EXIT_FAILED)


def detect_pictures(
    pretrained: PretrainedModel,
    files: Sequence[Path],
    calibration: Path | None,
    *,
    fpr: float,
    seed: int,
    as_json: bool,
) -> None:
    """Judge pictures."""
    chosen = choose_calibration(pretrained, calibration)
    known = PictureCalibration.load(chosen, model_id=pretrained.model_id)
    judged, failed = [], False
    for path in files:
        try:
            found = judge_picture(pretrained, path, known, false_positive_rate=fpr, seed=seed)
        except ImageError as err:
            stderr.print(str(err), markup=False, highlight=False, soft_wrap=True)
            failed = True
            continue
        judged.append(found)
        if not as_json:
            stdout.print(
                f"{plain(str(path))}: {found.verdict}, named {plain(found.named)} (distance "
                f"{found.distance:.2f}, limit {found.threshold:.2f}, p {found.p_value:.3f})",
                highlight=False,
                soft_wrap=True,
            )
    if as_json:
        print_json([one.to_json() for one in judged])
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if any(one.verdict != "clean" for one in judged):
        raise typer.Exit(EXIT_FLAGGED)
