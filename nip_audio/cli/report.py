"""``nip-audio report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import CalibrationOption, DataRootOption, FollowLinksOption, JsonOption

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that screen wrote.")],
    details: Annotated[
        int, typer.Option(help="Draw so many flagged files, the gravest first; 0 needs no model.")
    ] = 50,
    seconds: Annotated[
        float | None,
        typer.Option(help="Of audio: draw and play so much, from its beginning; default: 10."),
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write results.parquet, too; needs pyarrow.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The run's model; default: by its name.")
    ] = None,
    calibration: CalibrationOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a page to look at of a screening: report.html, and results.csv beside it.

    The page needs no network. Flagged files are read again to be drawn and to be purified for
    comparison; nothing is measured anew that a verdict rests on.

    Example: nip-audio report run/
    """
    from nip_audio.cli._inputs import find_source, refuse_of_audio
    from nip_audio.cli._results import make_report
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.reporting.examiners import examiner_of_run
    from nip_audio.reporting.export import write_parquet
    from nip_audio.reporting.run import ScreenedRun

    run = ScreenedRun.open(folder)
    source = find_source(run.kind, run.source, data_root, follow_links=follow_links)
    examiner = None
    if details:
        pretrained = load_pretrained(model or run.summary["model"])
        refuse_of_audio(pretrained, {"--seconds": seconds})
        examiner = examiner_of_run(
            run.summary, pretrained, calibration=calibration, seconds=seconds
        )
    written = make_report(run, source, examiner, details=details)
    if parquet:
        written.append(write_parquet(run))
    if as_json:
        drawn = min(details, run.summary["flagged"])
        print_json({"written": [str(path) for path in written], "drawn": drawn})
    else:
        for path in written:
            stdout.print(str(path), markup=False, highlight=False, soft_wrap=True)
