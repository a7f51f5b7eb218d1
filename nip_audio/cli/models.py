"""The command ``nip-audio models``, which lists the models, or describes one of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import JsonOption
from nip_audio.models.cards import ModelCard, find_pretrained, list_pretrained, read_card
from nip_audio.models.readme import (
    NOT_STATED,
    licence_of_data,
    measured_of,
    misuses_of,
    words_of_data,
)

__all__ = ["command"]


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="Name of a model, or folder with a model card, to describe."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that are available by name, or describe one.

    The description has the licences of the weights and of the training data,
    the results with their 95 % intervals, and what the model must not be
    used for.

    Example: nip-audio models xvector-libri251
    """
    if model is not None:
        _describe(read_card(find_pretrained(model)), as_json=as_json)
        return
    cards = list_pretrained()
    if as_json:
        print_json([dict(card.data) | {"directory": str(card.directory)} for card in cards])
        return
    table = Table(box=SIMPLE)
    table.add_column("name", no_wrap=True)
    table.add_column("architecture", min_width=12)
    for name in ("classes", "input", "calibrated", "identity"):
        table.add_column(name, no_wrap=True)
    for card in cards:
        table.add_row(
            card.name,
            str(card.data.get("architecture", "not stated")).split(" (")[0],
            str(len(card.labels)),
            card.input_text,
            "yes" if card.calibration_path else "no",
            card.model_id[:8],
        )
    stdout.print(table)


def _describe(card: ModelCard, *, as_json: bool) -> None:
    results, misuses = measured_of(card), misuses_of(card)
    if as_json:
        own: dict[str, Any] = dict(card.data) | {"directory": str(card.directory)}
        described = {"data_licence": licence_of_data(card), "misuses": misuses}
        print_json(own | described | {"results": [asdict(result) for result in results]})
        return
    facts = {
        "model": card.name,
        "architecture": card.data.get("architecture", NOT_STATED),
        "classes": len(card.labels),
        "input": card.input_text,
        "identity": card.model_id,
        "directory": card.directory,
        "licence": card.data.get("licence", NOT_STATED),
        "training data": words_of_data(card),
        "licence of the data": licence_of_data(card),
    }
    for name, value in facts.items():
        stdout.say(f"{name}: {value}")
    stdout.say(f"results, with 95 % intervals: {'' if results else 'not evaluated'}".rstrip())
    for result in results:
        stdout.say(f"  {result.name}: {result.percent}, {result.items_text}")
    stdout.say("what it must not be used for:")
    for misuse in misuses:
        stdout.say(f"  {misuse}")
