"""The command ``nip-audio backdoor``, which looks for backdoor triggers in a set of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import (
    advance,
    exit_with,
    plain,
    print_json,
    progress_bar,
    stderr,
    stdout,
)
from nip_audio.cli._options import (
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    SeedOption,
)

if TYPE_CHECKING:
    from nip_audio.screening.backdoor import BackdoorReport


__all__ = ["command"]

_ROWS = 40


def command(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of the suspected set, or a manifest of recordings."),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Suspected model, by name or folder; it must be a classifier.",
        ),
    ],
    modality: ModalityOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for the results, one JSON line per file."),
    ] = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find files with a backdoor trigger in a training or enrolment set.

    Use the model that was trained on the set, or that the set is meant for.
    Neither poisoned examples nor a clean set are needed, but at least eight
    speakers, or classes of images, with a dozen files each. If nothing is
    found, that is no proof that there is no backdoor (docs/results/backdoors.md).

    Example: nip-audio backdoor training/ --model audionet-libri251
    """
    from nip_audio.cli._inputs import find_files, load_model, make_reader, refuse_options
    from nip_audio.core.state import require_new, write_atomic
    from nip_audio.screening.backdoor import look_for_backdoor

    if out is not None:
        require_new(out, force=force)
    pretrained = load_model(model, modality)
    refuse_options(pretrained, "backdoor", {"--max-duration": max_duration})
    files = find_files(pretrained, source, data_root, follow_links=follow_links)
    with progress_bar("searching for backdoors", len(files)) as bar:
        report = look_for_backdoor(
            pretrained,
            files,
            make_reader(pretrained, max_duration),
            seed=seed,
            progress=lambda: advance(bar),
        )
    if out is not None:
        lines = "".join(record.to_line() + "\n" for record in report.records)
        write_atomic(out, lines.encode("ascii"), force=force)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    exit_with(len(report.accused), len(report.failed))


def _print(report: BackdoorReport) -> None:
    """Print the verdict, the suspicious labels and files, and the files that could not be read."""
    for record in report.failed:
        error = record.error or {}
        said = f"not judged: {record.id}: {error.get('found')}; {error.get('remedy')}"
        stderr.print(plain(said), highlight=False, soft_wrap=True)
    highest = report.findings[0]
    limit = f"limit {report.limit:g}"
    for finding in [f for f in report.findings if f.accused]:
        stdout.print(
            f"[red]suspicious[/]: {plain(finding.name)}, {finding.suspects} of the "
            f"{finding.files} files with this prediction; score {finding.score:.1f}, {limit}: "
            f"alarm {finding.alarm:.1f}, difference of the suspicious files from other labels "
            f"{finding.unlikeness:.1f}, of the remaining files {finding.other_unlikeness:.1f}",
            soft_wrap=True,
        )
    if not report.accused:
        stdout.print(
            f"nothing found in {len(report.records) - len(report.failed)} files: highest score "
            f"{highest.score or 0:.1f} ({plain(highest.name)}), {limit}; this is no proof "
            "that there is no backdoor (docs/results/backdoors.md)",
            soft_wrap=True,
        )
        return
    table = Table(box=SIMPLE)
    table.add_column("file", overflow="fold", min_width=24)
    for name in ("label", "prediction", "suspicion", "change"):
        table.add_column(name, no_wrap=True)
    for record in report.accused[:_ROWS]:
        table.add_row(
            plain(record.id),
            plain(record.speaker or "–"),
            plain(record.named or "–"),
            f"{record.suspicion:.3f}",
            f"{record.change:.3f}",
        )
    stdout.print(table)
    if len(report.accused) > _ROWS:
        stdout.print(
            f"… and {len(report.accused) - _ROWS} more files: pass --out or --json to list all"
        )
