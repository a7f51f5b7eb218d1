"""The command ``nip-audio threshold``, which sets a verification threshold on trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import (
    advance,
    plain,
    print_json,
    print_note,
    print_skipped,
    progress_bar,
    stdout,
)
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    DEFAULT_AUDIO_MODEL,
    INPUT,
    OUTPUT,
    AudioModelOption,
    ChannelOption,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    SeedOption,
    SpeakerFromOption,
)
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.core.metrics import Interval
    from nip_audio.models.operating_point import OperatingPoint
    from nip_audio.models.pretrained import PretrainedModel
    from nip_audio.workflows.trials import TrialPlan

__all__ = ["command"]


def command(
    trials: Annotated[
        Path,
        typer.Argument(
            help="Trial list (VoxCeleb's, SpeechBrain's, Kaldi's or CSV), or a folder with one "
            "sub-folder per speaker or a manifest, of which all pairs are trials."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Threshold file to write.")],
    model: AudioModelOption = DEFAULT_AUDIO_MODEL,
    far: Annotated[
        float | None,
        typer.Option(
            help="False-acceptance rate that is not to be exceeded. Default: the equal error rate."
        ),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(
            help="Prior probability of a true claim; the threshold has the least expected cost."
        ),
    ] = None,
    c_miss: Annotated[
        float, typer.Option(help="Cost of a false rejection.", rich_help_panel=ADVANCED)
    ] = 1.0,
    c_false_alarm: Annotated[
        float, typer.Option(help="Cost of a false acceptance.", rich_help_panel=ADVANCED)
    ] = 1.0,
    enrol: Annotated[
        int,
        typer.Option(
            min=1,
            help="Recordings that a voice is enrolled from: the first of each speaker. Not with a "
            "trial list.",
        ),
    ] = 1,
    plda: Annotated[
        Path | None,
        typer.Option(
            help="File written by nip-audio fit-plda, to score by log-likelihood ratio instead of "
            "cosine."
        ),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Manifest whose ids a trial list names; default: wav.scp beside the list, else "
            "the names are paths.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps embeddings, so that an interrupted run goes on."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="PNG file for histograms of the scores and the error trade-off.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    describe: Annotated[
        str, typer.Option(help="What the recordings are, for the record.", rich_help_panel=OUTPUT)
    ] = "",
    rounds: Annotated[
        int, typer.Option(min=100, help="Resamples of speakers.", rich_help_panel=ADVANCED)
    ] = 1000,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    speaker_from: SpeakerFromOption = None,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a verification threshold on recordings of your own.

    Embeds each recording once, scores the trials, and says what each threshold
    does: false acceptances (FAR) and false rejections (FRR), with 95 %
    intervals by resampling speakers. Warns of trials that make such numbers
    lie. verify, identify and screen take the file (--threshold-file).

    Example: nip-audio threshold voices/ --far 0.01 --out my.threshold
    """
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.core.state import require_new, write_atomic
    from nip_audio.models.operating_point import Aim
    from nip_audio.models.plda import Plda
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.workflows.threshold import fit_threshold
    from nip_audio.workflows.threshold_plots import plot_threshold

    aim = Aim(far, prior, c_miss, c_false_alarm)
    for path in filter(None, (out, plot)):
        require_new(path, force=force)
    pretrained = load_pretrained(model)
    plan = _plan(
        pretrained, trials, recordings, data_root, enrol, speaker_from, follow_links=follow_links
    )
    back_end = Plda.load(plda, model_id=pretrained.model_id) if plda else None
    with progress_bar("embedding", len(plan.recordings)) as bar:
        fitted = fit_threshold(
            pretrained,
            plan,
            WaveformAdapter.at(pretrained.card.sample_rate_hz, max_duration, channel),
            aim=aim,
            plda=back_end,
            cache=cache,
            rounds=rounds,
            seed=seed,
            sources=describe or trials.name,
            progress=lambda _: advance(bar),
        )
    fitted.threshold.save(out, force=force)
    if plot is not None:
        score = "cosine" if plda is None else "log-likelihood ratio of the PLDA"
        write_atomic(plot, plot_threshold(fitted.point, fitted.trials, score=score), force=force)
    print_skipped(fitted.failures)
    for warning in fitted.warnings:
        print_note(warning.text)
    if as_json:
        failed = [str(failure) for failure in fitted.failures]
        print_json({"out": str(out), **fitted.threshold.to_json(), "failed": failed})
    else:
        _print(fitted.point)
        stdout.say(f"threshold {fitted.threshold.value:.4f} for {aim}: {out}")
    if fitted.failures:
        raise typer.Exit(EXIT_FAILED)


def _plan(
    pretrained: PretrainedModel,
    trials: Path,
    recordings: Path | None,
    data_root: str | None,
    enrol: int,
    speaker_from: str | None,
    *,
    follow_links: bool,
) -> TrialPlan:
    from nip_audio.cli._inputs import find_files
    from nip_audio.workflows.trials import is_trial_list, plan_trials

    if speaker_from is not None and is_trial_list(trials):
        raise InputError(
            f"got --speaker-from and the trial list {trials}, expected a folder whose paths name "
            "the speakers; leave one out"
        )
    return plan_trials(
        trials,
        lambda: find_files(
            pretrained, trials, data_root, follow_links=follow_links, speaker_from=speaker_from
        ),
        enrol=enrol,
        recordings=recordings,
        data_root=data_root,
        follow_links=follow_links,
    )


def _print(point: OperatingPoint) -> None:
    title = (
        f"{point.targets:,} trials of one speaker, {point.impostors:,} of two; {point.groups} "
        f"speakers, {point.pairs:,} pairs of them"
    )
    table = Table(box=SIMPLE, title=title, title_justify="left")
    for name in ("", "value", "95 %"):
        table.add_column(name, no_wrap=True)
    table.add_row("threshold", *_numbers(point.threshold))
    table.add_row("FAR (false acceptances)", *_shares(point.far))
    table.add_row("FRR (false rejections)", *_shares(point.frr))
    table.add_row("EER (equal error rate)", *_shares(point.eer))
    table.add_row(f"minDCF, prior {point.aim.p_target:g}", *_numbers(point.min_dcf))
    table.add_row("Cllr, bits", *_numbers(point.cllr))
    table.add_row("  at best (isotonic)", f"{point.min_cllr:.3f}", "")
    for name, shown in (("logistic", "logistic"), ("venn_abers", "Venn–ABERS")):
        if point.unseen_cllr is not None:
            table.add_row(f"  unseen speakers, {shown}", f"{point.unseen_cllr[name]:.3f}", "")
    for name, part in point.parts.items():
        for kind in ("far", "frr", "eer"):
            found = part[kind]
            table.add_row(
                f"{kind.upper()}, {plain(name)}",
                *(("not evaluated", "") if found is None else _shares(found)),
            )
    stdout.print(table)


def _numbers(found: Interval) -> tuple[str, str]:
    return f"{found.value:.3f}", f"{found.low:.3f}–{found.high:.3f}"


def _shares(found: Interval) -> tuple[str, str]:
    return f"{found.value:.2%}", f"{found.low:.2%}–{found.high:.2%}"
