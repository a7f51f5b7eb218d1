"""The command ``nip-audio purify``, which writes purified copies of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nip_audio.cli._console import (
    advance,
    print_json,
    print_note,
    print_skipped,
    progress_bar,
    stdout,
)
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    OUTPUT,
    CalibrationOption,
    ChannelOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SecretSeedOption,
)
from nip_audio.cli._registered import purifier_names
from nip_audio.cli._settings import (
    SetOption,
    Setting,
    list_settings,
    read_settings,
    show_settings_option,
)
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.models.pretrained import PretrainedModel
    from nip_audio.purifiers.base import Purifier


__all__ = ["command"]

GUIDED = "guided"


def settings_of(method: str) -> Sequence[Setting]:
    """Return the settings of a method; the file of a fitted one has an option of its own."""
    from nip_audio.purifiers.registry import purifier_entry

    entry = purifier_entry(method)
    return list_settings(entry.make, [name for name in entry.settings if name != "path"])


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Recordings or images, or folders of them."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for WAV or PNG files and their JSON sidecars."),
    ],
    model: ModelOption = None,
    modality: ModalityOption = None,
    method: Annotated[
        str,
        typer.Option(is_eager=True, help=f"Name of the purifier: {', '.join(purifier_names())}."),
    ] = GUIDED,
    setting: SetOption = None,
    show_settings: Annotated[  # noqa: ARG001 - eager
        bool, show_settings_option("method", GUIDED, settings_of)
    ] = False,
    purifier: Annotated[
        Path | None,
        typer.Option(
            "--purifier", "-p", help="File of a fitted purifier; default: that of the model."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    fpr: Annotated[
        float | None,
        typer.Option(help="Audio only: false-positive rate of the detector; default: 0.01."),
    ] = None,
    only_flagged: Annotated[
        bool,
        typer.Option(
            "--only-flagged", help="Audio only: purify only what the detector does not find clean."
        ),
    ] = False,
    plot: Annotated[
        bool,
        typer.Option(
            "--plot",
            help="Audio only: also write a PNG that shows the change.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    seed: SecretSeedOption = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write copies of recordings or images without adversarial perturbations.

    Originals are never modified. Recordings are written as 16-bit mono WAV
    files at the sample rate of the model, images as PNGs of the model's size.
    Files of a folder keep their sub-folders. Exit code 0 means that the copies
    were written, whatever their verdicts.

    Example: nip-audio purify a.wav --out purified/ --method quantization
    --set bits=8
    """
    from nip_audio.cli._inputs import load_model, make_reader, print_survey, refuse_options
    from nip_audio.models.modalities import modality_of
    from nip_audio.screening.calibration import Calibration
    from nip_audio.screening.judge import Judge
    from nip_audio.screening.pipeline import choose_seed
    from nip_audio.screening.survey import survey_folder
    from nip_audio.workflows.purify_files import FilePurifier, plan_files

    pretrained = load_model(model, modality)
    given: dict[str, object] = {
        "--calibration": calibration,
        "--max-duration": max_duration,
        "--channel": channel,
    }
    given |= {"--fpr": fpr, "--only-flagged": only_flagged or None, "--plot": plot or None}
    refuse_options(pretrained, "purify", given)
    settings = read_settings(
        setting or [], settings_of(method), method, options={"path": "--purifier"}
    )
    chosen = _find_purifier(pretrained, method, settings, purifier)
    takes = modality_of(pretrained.card)
    planned = plan_files(inputs, out, takes, plot=plot, force=force)
    for folder in (path for path in inputs if path.is_dir()):
        survey = survey_folder(folder, takes.suffixes, follow_links=True, leave_out=out)
        print_survey(survey, takes)
    has_calibration = calibration is not None or pretrained.card.calibration_path is not None
    judge = Judge.at(Calibration.of(pretrained, calibration), fpr) if has_calibration else None
    if judge is not None and judge.note:
        print_note(judge.note)
    reader = make_reader(pretrained, max_duration, channel)
    worker = FilePurifier(pretrained, chosen, reader, choose_seed(seed), judge, only_flagged)
    with progress_bar("purifying", len(planned)) as bar:
        done, failures = worker.purify_all(planned, force=force, progress=lambda _: advance(bar))
    print_skipped(failures)
    if as_json:
        written = [file.to_json() for file in done]
        print_json({"written": written, "failed": [str(failure) for failure in failures]})
    else:
        for file in done:
            stdout.say(file.line)
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _find_purifier(
    pretrained: PretrainedModel, method: str, settings: Mapping[str, Any], file: Path | None
) -> Purifier:
    """Make a purifier by name; a fitted one is loaded from its file, or comes with the model."""
    from nip_audio.purifiers.registry import make_purifier, purifier_entry

    given = dict(settings)
    fitted = "path" in purifier_entry(method).settings
    if file is not None and not fitted:
        raise InputError(
            f"method {method} got --purifier {file}, expected none, because it is not fitted; "
            "leave it out, or choose another --method"
        )
    if fitted:
        given["path"] = file or (pretrained.card.purifier_path if method == GUIDED else None)
        if given["path"] is None:
            raise InputError(
                f"model {pretrained.card.name} comes without a fitted {method} purifier; pass "
                "--purifier FILE (nip-audio fit-purifier makes one), or another --method"
            )
    return make_purifier(
        method, model=pretrained.model, model_id=pretrained.model_id, settings=given
    )
