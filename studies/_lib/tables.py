"""Tables from column specifications: what a column is called, and what it shows of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nip_audio.evaluation.tables import markdown

__all__ = ["Columns", "table"]

Columns = Mapping[str, Callable[[Any], object]]


def table(columns: Columns, rows: Iterable[Any]) -> str:
    """Write a Markdown table.

    Args:
        columns: By heading, what is shown of a row.
        rows: What the columns are shown of, one item a row.
    """
    return markdown(list(columns), ([show(row) for show in columns.values()] for row in rows))
