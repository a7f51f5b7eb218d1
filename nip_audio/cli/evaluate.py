"""The command ``nip-audio evaluate``, which runs an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.markdown import Markdown
from rich.table import Table

from nip_audio.cli._console import evaluation_progress, plain, print_json, stdout
from nip_audio.cli._options import ForceOption, JsonOption
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.evaluation.config import EvaluationConfig

__all__ = ["command"]


def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with the systems, attacks and defences.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for adversarial sets, results and tables."),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the corpus; default: that of the YAML file.")
    ] = None,
    data_split: Annotated[
        Path | None, typer.Option(help="CSV file of the split; default: that of the YAML file.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            help="Evaluate this system of the YAML file only; may be given several times.",
        ),
    ] = None,
    init: Annotated[
        bool,
        typer.Option("--init", help="Write a YAML file to start from, with every key, and stop."),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be done, and stop.")
    ] = False,
    only_finished: Annotated[
        bool, typer.Option(help="Run no attack; report the finished cells.")
    ] = False,
    force: ForceOption = False,
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
    from nip_audio.evaluation.explaining import write_template
    from nip_audio.evaluation.report import write_report
    from nip_audio.evaluation.runner import RESULTS_NAME, Runner

    if init:
        write_template(config, force=force)
        stdout.say(f"{config}: edit it, then see what it does: --explain")
        return
    plan = read_config(config, data_root=data_root, split=data_split)
    if explain:
        _explain(plan, as_json=as_json)
        return
    if out is None:
        raise InputError("got no --out, expected a folder for the results; pass --out evaluation/")
    with evaluation_progress() as progress:
        results = Runner(plan, out, only_finished, tuple(system or ())).run(progress=progress)
    files = write_report(results, out)
    if as_json:
        print_json(results)
    else:
        tables = next(file for file in files if file.suffix == ".md")
        stdout.print(Markdown(tables.read_text(encoding="utf-8")))
        for file in [out / RESULTS_NAME, *files]:
            stdout.say(str(file))


def _explain(plan: EvaluationConfig, *, as_json: bool) -> None:
    from nip_audio.evaluation.explaining import explain

    told = explain(plan)
    if as_json:
        print_json(told)
        return
    table = Table("system", "model", "speakers", *("train", "calibrate", "test"), box=SIMPLE)
    for name, system in told["systems"].items():
        numbers = (str(number) for number in system["recordings"].values())
        table.add_row(plain(name), plain(system["model"]), system["speakers"], *numbers)
    stdout.print(table)
    for heading in ("attacks", "defences"):
        stdout.print(f"{heading}:")
        for text in told[heading]:
            stdout.say(f"  {text}")
    stdout.print(f"{told['cells']} sets of attacked clips, each judged behind every defence")
