"""The command ``nip-audio evaluate``, which runs an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import evaluation_progress, print_json, stdout
from nip_audio.cli._options import JsonOption

__all__ = ["command"]


def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with the systems, attacks and defences.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for adversarial sets, results and tables.")
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the corpus; default: that of the YAML file.")
    ] = None,
    data_split: Annotated[
        Path | None, typer.Option(help="CSV file of the split; default: that of the YAML file.")
    ] = None,
    only_finished: Annotated[
        bool, typer.Option(help="Run no attack; report the finished cells.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate systems, attacks and defences on the test files of a split.

    Run the same command again to resume an interrupted evaluation, or a second
    time at once to share the work between two processes. A part that was fitted
    on a test clip is refused.

    Example: nip-audio evaluate studies/attacks/undefended.yaml --data-root
    LibriSpeech --data-split split.csv --out evaluation/
    """
    from nip_audio.evaluation.config import read_config
    from nip_audio.evaluation.report import write_report
    from nip_audio.evaluation.runner import RESULTS_NAME, Runner

    plan = read_config(config, data_root=data_root, split=data_split)
    with evaluation_progress() as progress:
        results = Runner(plan, out, only_finished).run(progress=progress)
    files = write_report(results, out)
    if as_json:
        print_json(results)
    else:
        for file in [out / RESULTS_NAME, *files]:
            stdout.say(str(file))
