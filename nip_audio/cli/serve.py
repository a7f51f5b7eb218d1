"""The command ``nip-audio serve``, which answers requests over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import stderr
from nip_audio.cli._options import (
    ADVANCED,
    DEFAULT_AUDIO_MODEL,
    AudioModelOption,
    CalibrationOption,
    ChannelOption,
    FprOption,
    GateOption,
    MaxDurationOption,
    SecretSeedOption,
    ThresholdFileOption,
)

__all__ = ["command"]

_LIMITS = "Limits"


def command(
    model: AudioModelOption = DEFAULT_AUDIO_MODEL,
    calibration: CalibrationOption = None,
    fpr: FprOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine at which a claim is accepted; default: the threshold of the calibration."
        ),
    ] = None,
    threshold_file: ThresholdFileOption = None,
    gate: GateOption = None,
    voices: Annotated[
        Path,
        typer.Option(help="SQLite file of the enrolled voices; made if it does not exist."),
    ] = Path("voices.sqlite"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes that work on recordings, each with the model."),
    ] = 1,
    max_bytes: Annotated[
        int,
        typer.Option(min=1, help="Largest body of a request.", rich_help_panel=_LIMITS),
    ] = 20_000_000,
    max_duration: MaxDurationOption = None,
    queue: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most recordings that wait or are worked on; the next one is answered with 429.",
            rich_help_panel=_LIMITS,
        ),
    ] = 32,
    open_to_all: Annotated[
        bool,
        typer.Option(
            "--open-to-all",
            help="Listen on an address of the network without a key.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    channel: ChannelOption = None,
    seed: SecretSeedOption = None,
) -> None:
    """Judge, enrol, verify and purify recordings over HTTP.

    POST the bytes of a recording to /v1/screen, /v1/enroll?speaker=NAME,
    /v1/verify?speaker=NAME or /v1/purify. /docs describes every route, and
    /v1/metrics has counts and times for Prometheus. If NIP_AUDIO_API_KEY is set,
    requests need the header Authorization: Bearer KEY.

    Example: nip-audio serve --model xvector-libri251 --port 8080
    """
    import os

    from nip_audio.cli._inputs import load_fitted, make_gate, make_screener
    from nip_audio.errors import CalibrationError, InputError
    from nip_audio.models.pretrained import load_pretrained
    from nip_audio.screening.calibration import find_threshold
    from nip_audio.screening.pipeline import choose_seed
    from nip_audio.service.app import Limits, Service, build_app, listen
    from nip_audio.service.desk import Desks
    from nip_audio.service.voices import Voices

    key = os.environ.get("NIP_AUDIO_API_KEY") or None
    if key is None and host not in ("127.0.0.1", "::1", "localhost") and not open_to_all:
        raise InputError(
            f"--host {host} can be reached from the network and NIP_AUDIO_API_KEY is not set, "
            "expected a key; set it, or pass --open-to-all"
        )
    pretrained = load_pretrained(model)
    fitted = load_fitted(pretrained, threshold_file)
    if fitted is not None and threshold is not None:
        raise InputError(
            "got --threshold-file and --threshold, expected one threshold; leave one out"
        )
    screener = make_screener(
        pretrained,
        calibration,
        command="detect",
        fitted=fitted,
        fpr=fpr,
        seed=choose_seed(seed),
        max_duration_s=max_duration,
        channel=channel,
    )
    if gate is not None:
        screener = replace(screener, gate=make_gate(gate, strict=True))
    try:
        decides = fitted or find_threshold(
            pretrained, screener.judge.calibration, threshold, options="--"
        )
    except CalibrationError as err:
        stderr.say(f"/v1/verify is not available: {err}")
        decides = None
    service = Service(
        screener,
        Desks(screener.measurer, workers),
        Voices(voices, model_id=pretrained.model_id),
        decides,
        Limits(max_bytes, queue),
        key,
    )
    listen(build_app(service), host, port)
