"""The command ``nip-audio verify``, which checks a claimed speaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import print_changes, print_json, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED, EXIT_FLAGGED
from nip_audio.cli._options import (
    DEFAULT_AUDIO_MODEL,
    AudioModelOption,
    CalibrationOption,
    ChannelOption,
    JsonOption,
    MaxDurationOption,
    ThresholdFileOption,
)
from nip_audio.errors import AudioError, InputError

if TYPE_CHECKING:
    from nip_audio.models.enrolment import VerificationResult

__all__ = ["command"]


def command(
    file: Annotated[Path, typer.Argument(help="Recording to verify.")],
    enrolment: Annotated[
        Path, typer.Option("--enrolment", "-e", help="File written by nip-audio enroll.")
    ],
    speaker: Annotated[
        str,
        typer.Option("--speaker", "-s", help="Enrolled speaker that the recording claims to be."),
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score at which the claim is accepted; default: the threshold of the calibration "
            "or PLDA, at its equal error rate."
        ),
    ] = None,
    plda: Annotated[
        Path | None,
        typer.Option(
            help="File written by nip-audio fit-plda, to score by log-likelihood ratio instead of "
            "cosine."
        ),
    ] = None,
    model: AudioModelOption = DEFAULT_AUDIO_MODEL,
    calibration: CalibrationOption = None,
    threshold_file: ThresholdFileOption = None,
    prior: Annotated[
        float | None,
        typer.Option(
            help="With --threshold-file: prior probability of a true claim, to print the "
            "probability of this one."
        ),
    ] = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify that a recording was spoken by an enrolled speaker.

    Exit code 0 means accepted, 3 rejected, 4 that the recording cannot be read.

    Example: nip-audio verify unknown.wav --enrolment voices.enrolment --speaker
    alice
    """
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.cli._inputs import load_fitted, print_enrolled
    from nip_audio.models.enrolment import Enrolment, verify
    from nip_audio.models.plda import Plda
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.screening.calibration import find_threshold
    from nip_audio.screening.records import error_of

    pretrained = load_pretrained(model)
    back_end = Plda.load(plda, model_id=pretrained.model_id) if plda else None
    if prior is not None and threshold_file is None:
        raise InputError(
            "got --prior without --threshold-file, expected both: only such a file turns scores "
            "into probabilities; make one with nip-audio threshold, or leave --prior out"
        )
    fitted = load_fitted(pretrained, threshold_file)
    threshold = find_threshold(
        pretrained, calibration, threshold, back_end, fitted=fitted, options="--"
    )
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id)
    print_enrolled(fitted, voices, [speaker])
    try:
        audio = WaveformAdapter.at(pretrained.card.sample_rate_hz, max_duration, channel).load(file)
    except AudioError as err:
        stderr.say(str(err))
        if as_json:
            print_json({"file": str(file), "speaker": speaker, "error": error_of(err)})
        raise typer.Exit(EXIT_FAILED) from err
    result = verify(pretrained, audio, voices, speaker, threshold=threshold, plda=back_end)
    if fitted is not None:
        result = fitted.judge(result.score, prior=prior)
    if as_json:
        facts = {**result.to_json(), "changes": list(audio.changes), "error": None}
        print_json({"file": str(file), "speaker": speaker, **facts})
    else:
        print_changes(str(file), audio.changes)
        word = "accepted" if result.accepted else "rejected"
        stdout.say(
            f"{file}: {word} as {speaker} ({result.kind} {result.score:.3f}, threshold "
            f"{threshold:.3f}{_said(result)})"
        )
    if not result.accepted:
        raise typer.Exit(EXIT_FLAGGED)


def _said(result: VerificationResult) -> str:
    """Return what a threshold file says besides the decision."""
    if result.calibrated_llr is None:
        return ""
    known = result.probability
    likely = "" if known is None else f", probability {known:.3g}"
    return f"; log-likelihood ratio {result.calibrated_llr:+.2f}{likely}"
