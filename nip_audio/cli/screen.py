"""The command ``nip-audio screen``, which screens a whole set of files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import (
    advance,
    exit_with,
    plain,
    print_json,
    print_skipped,
    progress_bar,
    stderr,
)
from nip_audio.cli._logging import told_elsewhere
from nip_audio.cli._options import (
    ADVANCED,
    GATE,
    OUTPUT,
    PIPELINES,
    CalibrationOption,
    ChannelOption,
    DataRootOption,
    FollowLinksOption,
    FprOption,
    GateOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SecretSeedOption,
    SpeakerFromOption,
    ThresholdFileOption,
)
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.cli._findings import Findings
    from nip_audio.purifiers.base import Purifier
    from nip_audio.screening.pipeline import Screener, ScreenResult
    from nip_audio.screening.review import Review
    from nip_audio.screening.sources import Source


__all__ = ["command"]


class EngineName(StrEnum):
    """Engine that measures the files."""

    LOCAL = "local"
    RAY = "ray"


class OutputFormat(StrEnum):
    """What is printed of a finished run."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    JUNIT = "junit"
    SARIF = "sarif"


@told_elsewhere
def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder, best with one sub-folder per speaker or class, its .zip or .tar.gz, or a "
            "manifest of recordings."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    model: ModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    threshold_file: ThresholdFileOption = None,
    fpr: FprOption = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="False-discovery rate: expected share of clean files among the flagged. Used "
            "instead of --fpr."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes; default: one per core.", rich_help_panel=ADVANCED),
    ] = None,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="Engine: processes on this machine, or a Ray cluster.",
            rich_help_panel=ADVANCED,
        ),
    ] = EngineName.LOCAL,
    backdoor: Annotated[
        bool,
        typer.Option(
            "--backdoor",
            help="Also search for backdoor triggers. The model must have been trained on these "
            "files (see nip-audio backdoor).",
        ),
    ] = False,
    gate: GateOption = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=GATE,
            help="Count each failure of the gate in the exit code; otherwise it is a note. "
            "Without --gate: the default limits.",
        ),
    ] = False,
    purify_to: Annotated[
        Path | None,
        typer.Option(
            "--purify-flagged",
            help="Folder for a purified copy of each adversarial file.",
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(help="Keep running, and look for new files every so many seconds."),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Also write report.html and results.csv (see nip-audio report).")
    ] = True,
    data_root: DataRootOption = None,
    speaker_from: SpeakerFromOption = None,
    follow_links: FollowLinksOption = False,
    trust_mtime: Annotated[
        bool,
        typer.Option(
            "--trust-mtime",
            help="Take a file of the same size and modification time for unchanged, though both "
            "can be forged; by default its content decides.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    seed: SecretSeedOption = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Verdicts, separated by commas, that need a person: others are told in numbers "
            "only, and set no exit code. Default: all but clean.",
            rich_help_panel=PIPELINES,
        ),
    ] = None,
    accepted: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of findings that were reviewed and accepted "
            "(docs/howto/nightly-screening.md).",
            rich_help_panel=PIPELINES,
        ),
    ] = None,
    only_new: Annotated[
        bool,
        typer.Option(
            "--only-new",
            help="Tell only findings that no earlier run with the same --out has told.",
            rich_help_panel=PIPELINES,
        ),
    ] = False,
    findings_only: Annotated[
        bool,
        typer.Option("--findings-only", help="List no clean files.", rich_help_panel=PIPELINES),
    ] = False,
    quiet: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print errors only, and with --json the JSON.",
            rich_help_panel=PIPELINES,
        ),
    ] = False,
    log_file: Annotated[  # noqa: ARG001
        Path | None,
        typer.Option(
            help="File to which findings, notes and errors are appended, with their time.",
            rich_help_panel=PIPELINES,
        ),
    ] = None,
    as_json: JsonOption = False,
    form: Annotated[
        OutputFormat,
        typer.Option(
            "--format",
            help="What is printed: text, the summary as json, or the findings as jsonl (a record a "
            "line), junit (XML) or sarif.",
            rich_help_panel=OUTPUT,
        ),
    ] = OutputFormat.TEXT,
) -> None:
    """Screen a folder of recordings or images for attacks; run it again to resume.

    Writes results.jsonl (one record per file), speakers.jsonl, summary.json and
    report.html into --out. To use another --fpr, or after files were added or
    changed, run it again: only new files are measured. The model decides
    whether recordings or images are read.

    Exit codes: 0 all files are clean, 3 some were flagged, 4 some could not be
    judged (error, out_of_domain, files passed over, or audio so unlike the
    calibration's that all verdicts mean little), 5 both. With 64 or more the screening did not
    run to its end: 64 wrong usage, 65 refused, 70 a defect or too little memory,
    74 output cannot be written, 130 interrupted, 141 output pipe closed, 143
    terminated.

    Example: nip-audio screen enrolment/ --out report/
    """
    from nip_audio.cli._findings import Findings
    from nip_audio.cli._inputs import (
        load_fitted,
        load_model,
        make_gate,
        make_screener,
        refuse_options,
    )
    from nip_audio.cli._results import make_report, print_summary
    from nip_audio.core.state import make_folder
    from nip_audio.models.modalities import modality_of
    from nip_audio.reporting.examine import examiner_of_screening
    from nip_audio.reporting.run import ScreenedRun
    from nip_audio.screening.engines.local import LocalEngine
    from nip_audio.screening.engines.ray import RayEngine
    from nip_audio.screening.pipeline import choose_seed
    from nip_audio.screening.sources import find_source
    from nip_audio.workflows.flagged import refuse_copies_inside, shipped_purifier

    if watch is not None and not 0 <= watch < float("inf"):
        raise InputError(f"--watch is {watch}, expected a number of seconds; pass, e.g., 10")
    if watch is not None and (fail_on is not None or accepted is not None or only_new):
        raise InputError(
            "--watch got --fail-on, --accepted or --only-new, expected none of them, because they "
            "are for a run that ends; leave one out"
        )
    form = _asked_format(form, as_json=as_json, watch=watch)
    findings = Findings.asked(source, out, fail_on, accepted, new=only_new, only=findings_only)
    pretrained = load_model(model, modality)
    takes = modality_of(pretrained.card)
    given = {"--speaker-from": speaker_from, "--threshold-file": threshold_file}
    refuse_options(pretrained, "screen", given)
    recordings = find_source(
        takes, source, data_root, follow_links=follow_links, speaker_from=speaker_from
    )
    purifier = None
    if purify_to is not None:
        refuse_copies_inside(recordings, purify_to)
        purifier = shipped_purifier(pretrained)
        make_folder(purify_to)
    screener = make_screener(
        pretrained,
        calibration,
        command="screen",
        fitted=load_fitted(pretrained, threshold_file),
        fpr=fpr,
        fdr=fdr,
        seed=choose_seed(seed, out),
        max_duration_s=max_duration,
        channel=channel,
        engine=LocalEngine(workers) if engine is EngineName.LOCAL else RayEngine(workers or 2),
    )
    if strict and gate is None:
        gate = "defaults"
    screener = replace(
        screener,
        backdoor=backdoor,
        trust_mtime=trust_mtime,
        gate=None if gate is None else make_gate(gate, outside=source, strict=strict),
    )
    total = None if watch is not None else sum(1 for _ in recordings)
    with progress_bar("screening", total) as bar:
        tick = lambda _: advance(bar)  # noqa: E731
        if watch is None:
            result = screener.screen(recordings, out, progress=tick)
        else:
            for result in screener.watch(recordings, out, looks=_every(watch), progress=tick):
                print_summary(result.summary, out)
            return
    if report:
        make_report(ScreenedRun.open(out), recordings, examiner_of_screening(screener))
    if purify_to is not None and purifier is not None:
        _purify(screener, purifier, recordings, result, purify_to)
    found = findings.review(result)
    _print(form, findings, screener, result, found)
    findings.close(result, found)
    exit_with(found.flagged + len(found.speakers), found.failed or result.summary.doubtful)


def _asked_format(form: OutputFormat, *, as_json: bool, watch: float | None) -> OutputFormat:
    """Return the format that is printed; ``--json`` asks for one of them."""
    if as_json and form not in (OutputFormat.TEXT, OutputFormat.JSON):
        raise InputError(f"got --json and --format {form}, expected one of them; leave one out")
    form = OutputFormat.JSON if as_json else form
    if watch is not None and form not in (OutputFormat.TEXT, OutputFormat.JSON):
        raise InputError(
            f"--watch got --format {form}, expected text, because the other formats are for a run "
            "that ends; leave one out"
        )
    return form


def _print(
    form: OutputFormat, findings: Findings, screener: Screener, result: ScreenResult, found: Review
) -> None:
    from nip_audio.cli._results import print_judged_by
    from nip_audio.reporting.formats import FORMATS
    from nip_audio.screening.results import PUBLISHED

    if form in FORMATS:
        files, speakers = result.results.files(), result.results.speakers()
        for text in FORMATS[form](files, speakers, found):
            typer.echo(text)
    elif form is OutputFormat.JSON:
        more = {PUBLISHED: dict(result.results.sha256), "review": found.to_json()}
        print_json(screener.verdict_settings() | result.summary.to_json() | more)
    else:
        findings.print(result, found)
        print_judged_by(screener)


def _purify(
    screener: Screener, purifier: Purifier, source: Source, result: ScreenResult, out: Path
) -> None:
    from nip_audio.workflows.flagged import purify_flagged
    from nip_audio.workflows.purify_files import FilePurifier

    pretrained, reader = screener.pretrained, screener.adapter
    worker = FilePurifier(pretrained, purifier, reader, screener.seed, screener.judge)
    adversarial = result.summary.verdicts.get("adversarial", 0)
    with progress_bar("purifying", adversarial) as bar:
        run = purify_flagged(result.results, source, worker, out, progress=lambda: advance(bar))
    print_skipped(run.failures)
    stderr.print(
        f"{len(run.done) + run.earlier} purified copies in {plain(str(out))}, each with a JSON "
        "sidecar of the changes; review a copy before you use it",
        soft_wrap=True,
    )


def _every(seconds: float) -> Iterator[None]:
    while True:
        yield
        time.sleep(seconds)
