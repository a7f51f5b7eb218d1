"""The command ``nip-audio report``, which writes the report of a screening."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import (
    OUTPUT,
    CalibrationOption,
    DataRootOption,
    FollowLinksOption,
    JsonOption,
)

__all__ = ["command"]


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of nip-audio screen.")
    ],
    details: Annotated[
        int, typer.Option(help="Number of flagged files shown in detail; 0 needs no model.")
    ] = 50,
    seconds: Annotated[
        float | None,
        typer.Option(help="Audio only: seconds of each recording to show and play; default: 10."),
    ] = None,
    parquet: Annotated[
        bool,
        typer.Option(
            "--parquet",
            help="Also write results.parquet; needs pyarrow.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Model of the run; default: the one that screen recorded."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a screening: report.html and results.csv.

    The report needs no network. The most severe flagged files are read again,
    to be shown before and after purification. Their verdicts are not measured
    again.

    Example: nip-audio report run/
    """
    from nip_audio.cli._inputs import refuse_options
    from nip_audio.cli._results import make_report
    from nip_audio.errors import InputError
    from nip_audio.models.cards import find_named
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.reporting.examine import examiner_of_run
    from nip_audio.reporting.export import write_parquet
    from nip_audio.reporting.run import ScreenedRun
    from nip_audio.screening.sources import Source, find_source

    run = ScreenedRun.open(folder)
    modality = run.kind.modality
    source: Source | None = None
    examiner = None
    try:
        source = find_source(modality, run.source, data_root, follow_links=follow_links)
    except InputError:
        if details:
            raise  # files are drawn from their source; without them the page has no links
    if details:
        # a run may be a stranger's: the model that it names is looked up, never a place or a source
        pretrained = load_pretrained(model or find_named(str(run.summary["model"])))
        refuse_options(pretrained, "report", {"--seconds": seconds})
        examiner = examiner_of_run(
            run.summary, pretrained, calibration=calibration, seconds=seconds
        )
    written = make_report(run, source, examiner, details=details)
    if parquet:
        written.append(write_parquet(run))
    if as_json:
        drawn = min(details, run.drawable)
        print_json({"written": [str(path) for path in written], "drawn": drawn})
    else:
        for path in written:
            stdout.say(str(path))
