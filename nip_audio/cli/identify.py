"""The command ``nip-audio identify``, which says who speaks, or what an image shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nip_audio.cli._console import exit_with, print_changes, print_json, stderr, stdout
from nip_audio.cli._options import (
    CalibrationOption,
    ChannelOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    RequiredModelOption,
    ThresholdFileOption,
)
from nip_audio.errors import FileError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nip_audio.models.identification import Candidate, OpenSetResult

__all__ = ["command"]


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings or images, as the model takes them.")
    ],
    model: RequiredModelOption,
    modality: ModalityOption = None,
    top: Annotated[int, typer.Option(min=1, help="Number of candidates to print per file.")] = 3,
    enrolment: Annotated[
        Path | None,
        typer.Option(
            "--enrolment",
            "-e",
            help="Audio only: file written by nip-audio enroll; identify one of its speakers, or "
            "none of them.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="With --enrolment: score from which a speaker is accepted; default: the threshold "
            "of the calibration or PLDA, at its equal error rate of single claims."
        ),
    ] = None,
    plda: Annotated[
        Path | None,
        typer.Option(
            help="With --enrolment: file written by nip-audio fit-plda, to score by log-likelihood "
            "ratio instead of cosine."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    threshold_file: ThresholdFileOption = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Identify the speaker of each recording, or the class of each image.

    The candidates are the labels that the model was trained on, so a stranger
    is identified as one of them too. With --enrolment they are the enrolled
    speakers, and a recording whose best score is below the threshold is of none
    of them; the exit code is then 3. Run nip-audio models for the names of the
    models.

    Example: nip-audio identify a.wav b.flac --model resnet34-libri30
    """
    from nip_audio.cli._inputs import (
        load_fitted,
        load_model,
        make_reader,
        print_enrolled,
        refuse_options,
    )
    from nip_audio.models.enrolment import Enrolment
    from nip_audio.models.identification import identify, identify_enrolled
    from nip_audio.models.plda import Plda
    from nip_audio.screening.calibration import find_threshold

    pretrained = load_model(model, modality)
    given = {
        "--threshold": threshold,
        "--plda": plda,
        "--calibration": calibration,
        "--threshold-file": threshold_file,
    }
    named: dict[str, object] = {
        "--enrolment": enrolment,
        "--max-duration": max_duration,
        "--channel": channel,
    }
    refuse_options(pretrained, "identify", named | given)
    reader = make_reader(pretrained, max_duration, channel)
    if enrolment is None:
        _refuse_alone(given)

        def answer(raw: Tensor) -> tuple[dict[str, Any], str, bool]:
            candidates = identify(pretrained, raw, top=top)
            return {"candidates": [c.to_json() for c in candidates]}, _ranking(candidates), True

    else:
        back_end = Plda.load(plda, model_id=pretrained.model_id) if plda else None
        fitted = load_fitted(pretrained, threshold_file)
        accepted = find_threshold(
            pretrained, calibration, threshold, back_end, fitted=fitted, options="--"
        )
        voices = Enrolment.load(enrolment, model_id=pretrained.model_id)
        print_enrolled(fitted, voices, voices.speakers)

        def answer(raw: Tensor) -> tuple[dict[str, Any], str, bool]:
            found = identify_enrolled(
                pretrained, raw, voices, threshold=accepted, plda=back_end, top=top
            )
            return found.to_json(), _decision(found), found.speaker is not None

    results: list[dict[str, Any]] = []
    strangers = 0
    for file in files:
        try:
            item = reader.load(file)
            facts, line, known = answer(item.raw)
        except FileError as err:
            stderr.say(str(err))
            error = {"code": err.code, "found": err.found, "remedy": err.remedy}
            results.append({"file": str(file), "candidates": [], "error": error})
            continue
        results.append({"file": str(file), **facts, "changes": list(item.changes), "error": None})
        strangers += not known
        if not as_json:
            print_changes(str(file), item.changes)
            stdout.say(f"{file}: {line}")
    if as_json:
        print_json(results)
    exit_with(strangers, sum(bool(r["error"]) for r in results))


def _refuse_alone(given: Mapping[str, object]) -> None:
    """Refuse options that need ``--enrolment``.

    Raises:
        InputError: If one of them was given.
    """
    if alone := [name for name, value in given.items() if value is not None]:
        raise InputError(
            f"got {', '.join(alone)} without --enrolment, expected both: the labels of a model "
            "have no threshold; pass --enrolment, or leave it out"
        )


def _ranking(candidates: Sequence[Candidate]) -> str:
    return ", ".join(f"{c.speaker} {c.posterior:.0%}" for c in candidates)


def _decision(result: OpenSetResult) -> str:
    ranking = ", ".join(f"{c.speaker} {c.score:.3f}" for c in result.candidates)
    whom = result.speaker
    said = whom if whom is not None else f"none of the {result.enrolled} enrolled speakers"
    return f"{said} ({result.kind} {ranking}; threshold {result.threshold:.3f})"
