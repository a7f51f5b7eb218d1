"""The command ``nip-audio enroll``, which enrols speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import advance, print_json, print_skipped, progress_bar, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    DEFAULT_AUDIO_MODEL,
    AudioModelOption,
    ChannelOption,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    SpeakerFromOption,
)

__all__ = ["command"]


def command(
    source: Annotated[
        Path, typer.Argument(help="Folder with one sub-folder per speaker, or a manifest.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Enrolment file to write.")],
    model: AudioModelOption = DEFAULT_AUDIO_MODEL,
    data_root: DataRootOption = None,
    speaker_from: SpeakerFromOption = None,
    follow_links: FollowLinksOption = False,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enrol speakers from their recordings.

    The voice of a speaker is the mean of the embeddings of all recordings.

    Example: nip-audio enroll voices/ --out voices.enrolment
    """
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.cli._inputs import find_files
    from nip_audio.core.state import require_new
    from nip_audio.models.enrolment import enrol
    from nip_audio.models.pretrained import load_pretrained

    require_new(out, force=force)
    pretrained = load_pretrained(model)
    adapter = WaveformAdapter.at(pretrained.card.sample_rate_hz, max_duration, channel)
    recordings = find_files(
        pretrained, source, data_root, follow_links=follow_links, speaker_from=speaker_from
    )
    with progress_bar("enrolling", len(recordings)) as bar:
        enrolment = enrol(pretrained, recordings, adapter, progress=lambda _: advance(bar))
    enrolment.save(out, force=force)
    print_skipped(enrolment.failures)
    if as_json:
        files = {speaker: len(enrolment.files[speaker]) for speaker in enrolment.speakers}
        failed = [str(failure) for failure in enrolment.failures]
        print_json({"out": str(out), "speakers": files, "failed": failed})
    else:
        stdout.say(f"{len(enrolment.speakers)} speakers enrolled in {out}")
    if enrolment.failures:
        raise typer.Exit(EXIT_FAILED)
