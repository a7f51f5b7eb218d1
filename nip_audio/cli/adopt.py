"""The command ``nip-audio adopt``, which makes a model of any origin usable by all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import ADVANCED, ForceOption, JsonOption

__all__ = ["command"]


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="Directory of SpeechBrain, name on the hub, file or function; "
            "docs/reference/sources lists the forms, such as speechbrain/spkrec-ecapa-voxceleb, "
            "onnx:model.onnx or python:package.module:factory."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write the card to.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of clean recordings, by which the detector's noises are chosen for this "
            "model; 24 are enough. May be repeated.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in records.")] = None,
    trust_model: Annotated[
        bool,
        typer.Option(
            "--trust-model",
            help="Let code of this model run, now and whenever this account loads it. Only for "
            "models whose author you know, and that nobody has changed.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adopt a speaker model of your own, so that every command can use it.

    The model is examined, not copied: the card that is written holds its
    source, the hash of every file, the layers that the detector measures, and
    what was measured. Use the directory as --model of the other commands.

    Example: nip-audio adopt my-ecapa/ --data clean/ --out my-model/
    """
    from nip_audio.audio.manifest import walk_audio
    from nip_audio.models.cards import is_path
    from nip_audio.workflows.adopt import adopt_model

    clean = [recording.path for folder in data or () for recording in walk_audio(folder)]
    made = adopt_model(
        source,
        out,
        clean=[Path(path) for path in clean],
        name=name,
        trust=trust_model,
        force=force,
    )
    card, seen = made.card, made.examination
    if as_json:
        print_json(dict(card.data) | {"out": str(out), "model_id": card.model_id})
        return
    lines = [
        f"{card.name}: {card.data['architecture']}, {card.input_text}, {seen.embedding_size} "
        f"numbers an embedding, {len(card.labels) or 'no'} labels",
        f"licence: {card.data['licence'] or 'not stated'}; identity {card.model_id[:12]}",
        f"speed: {seen.real_time_factor:.3f} s of computing per second of sound",
        f"13 ms later, its embedding moves by {seen.shift:.4f}; at half the volume, by "
        f"{seen.gain:.4f} (cosine distance)",
        f"layers measured: {', '.join(card.default_taps)} (of {seen.layers})",
    ]
    if card.data["noises"]:
        levels = ", ".join(f"{noise['scale']:g}" for noise in card.data["noises"])
        lines.append(f"noises of the detector: {levels} (rms)")
    lines += [f"{'yes' if works else 'NO':4} {what}: {why}" for what, works, why in seen.findings()]
    lines += list(card.data["notes"])
    if made.trusted_in is not None:
        lines.append(f"trusted to run code by this account: {made.trusted_in}")
    elif trust_model:
        lines.append(
            "--trust-model was not needed: nothing of this model runs as code, and no trust is "
            "remembered; leave it out"
        )
    given = out if is_path(str(out)) else f"./{out}"
    lines.append(f"next: nip-audio calibrate CLEAN --model {given} --out {given}/calibration")
    for line in lines:
        stdout.say(line)
