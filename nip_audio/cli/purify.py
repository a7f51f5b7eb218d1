"""``nip-audio purify``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nip_audio.cli._console import advance, print_json, print_left_out, progress_bar, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    PURIFIER_NAMES,
    CalibrationOption,
    EitherModelOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
)
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.models.pretrained import PretrainedModel
    from nip_audio.purifiers.base import Purifier
    from nip_audio.workflows.purify import Assessment
    from nip_audio.workflows.purify_files import PurifiedFile


__all__ = ["command"]

GUIDED = "guided"
DEFAULT_FPR = 0.01


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Recordings, or pictures, and folders of them."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for wavs, or PNGs, and JSON sidecars.")
    ],
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(PURIFIER_NAMES)}.")] = GUIDED,
    setting: Annotated[
        list[str] | None, typer.Option(help="Setting of the method, as bits=6; repeatable.")
    ] = None,
    purifier: Annotated[
        Path | None,
        typer.Option("--purifier", "-p", help="Fitted purifier; default: the model's own."),
    ] = None,
    calibration: CalibrationOption = None,
    fpr: Annotated[
        float | None,
        typer.Option(help="Of the detector, on clean audio; default: 0.01."),
    ] = None,
    only_flagged: Annotated[
        bool, typer.Option("--only-flagged", help="Purify what the detector flags, and no other.")
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw a PNG of each file, too.")] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the noise; who knows it can foresee a random method.")
    ] = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take out of recordings, or pictures, what an attacker put in; leaves yours alone.

    Sound is written as 16-bit, mono wavs at the model's rate, and those of a folder keep their
    sub-folders; pictures as PNGs of the model's size, side by side. Exit code 0 says that they were
    written, whatever the detector and the model make of them.

    Example: nip-audio purify a.wav --out purified/ --method quantization --setting bits=8
    """
    from nip_audio.cli._inputs import find_calibration, load_model, make_adapter, refuse_of_audio
    from nip_audio.cli._pictures import purify_pictures
    from nip_audio.screening.judge import Judge
    from nip_audio.workflows.purify_files import FilePurifier, plan_files

    pretrained = load_model(model, modality)
    of_audio: dict[str, object] = {"--calibration": calibration, "--max-duration": max_duration}
    of_audio |= {"--fpr": fpr, "--only-flagged": only_flagged or None, "--plot": plot or None}
    refuse_of_audio(pretrained, of_audio)
    chosen = _find_purifier(pretrained, method, _settings(setting or []), purifier)
    if pretrained.card.modality == "image":
        purify_pictures(
            *(pretrained, inputs, out), purifier=chosen, seed=seed, force=force, as_json=as_json
        )
        return
    planned = plan_files(inputs, out, plot=plot, force=force)
    knows_clean = calibration is not None or pretrained.card.calibration_path is not None
    rate = DEFAULT_FPR if fpr is None else fpr
    judge = Judge(find_calibration(pretrained, calibration), rate) if knows_clean else None
    adapter = make_adapter(pretrained, max_duration)
    worker = FilePurifier(pretrained, chosen, adapter, seed, judge, only_flagged)
    with progress_bar("purifying", len(planned)) as bar:
        done, failures = worker.purify_all(planned, force=force, progress=lambda _: advance(bar))
    print_left_out(failures)
    if as_json:
        written = [file.to_json() for file in done]
        print_json({"written": written, "failed": [str(failure) for failure in failures]})
    else:
        for file in done:
            stdout.print(_line(file), markup=False, highlight=False, soft_wrap=True)
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _find_purifier(
    pretrained: PretrainedModel, method: str, settings: Mapping[str, Any], file: Path | None
) -> Purifier:
    """Make a purifier by name; a fitted one comes from its file, or with the model."""
    from nip_audio.purifiers.registry import make_purifier, purifier_entry

    given = dict(settings)
    fitted = "path" in purifier_entry(method).settings
    if "path" in given or (file is not None and not fitted):
        raise InputError(
            f"method {method} got a file, expected one as --purifier and of a fitted method only; "
            "leave it out, or choose another --method"
        )
    if fitted:
        given["path"] = file or (pretrained.card.purifier_path if method == GUIDED else None)
        if given["path"] is None:
            raise InputError(
                f"model {pretrained.card.name} comes without a fitted {method} purifier; pass "
                "--purifier FILE (nip-audio fit-purifier makes guided ones), or another --method"
            )
    return make_purifier(
        method, model=pretrained.model, model_id=pretrained.model_id, settings=given
    )


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value``; a value is a JSON number, truth value or text, else plain text."""
    settings: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals or key in settings:
            raise InputError(f"setting is {text!r}, expected key=value, each key once")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def _line(file: PurifiedFile) -> str:
    result, planned = file.result, file.planned
    before, after = _words(result.before), _words(result.after)
    heard = f"{before} → {after}; " if before else ""
    changed = "nothing changed" if result.snr_db is None else f"SNR {result.snr_db:.1f} dB"
    return f"{planned.written}: {heard}cosine {result.cosine:.2f}, {changed}"


def _words(heard: Assessment) -> str:
    name = "" if heard.speaker is None else f"{heard.speaker} {heard.score:.2f}"
    return ", ".join(part for part in (name, heard.verdict) if part)
