"""The command ``nip-audio models``, which lists the models."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import print_json, stdout
from nip_audio.cli._options import JsonOption
from nip_audio.models.cards import list_pretrained

__all__ = ["command"]


def command(as_json: JsonOption = False) -> None:
    """List the models that are available by name.

    Example: nip-audio models
    """
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
