"""Tables from column specifications: what a column is called, and what it shows of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from nip_audio.evaluation.tables import markdown

__all__ = ["Columns", "each", "table"]

Columns = Mapping[str, Callable[[Any], object]]


def table(columns: Columns, rows: Iterable[Any]) -> str:
    """Write a Markdown table.

    Args:
        columns: By heading, what is shown of a row; blanks around a heading are dropped, so that
            two columns may have one name.
        rows: What the columns are shown of, one item a row.
    """
    headings = [heading.strip() for heading in columns]
    return markdown(headings, ([show(row) for show in columns.values()] for row in rows))


def each(keys: Mapping[Any, str] | Iterable[Any], show: Callable[[Any, Any], object]) -> Columns:
    """Return a column for each key, which shows something of the key and the row.

    Args:
        keys: Keys and their headings, or keys that are headings themselves.
        show: Function of key and row.
    """
    named = keys if isinstance(keys, Mapping) else {key: str(key) for key in keys}
    return {heading: partial(show, key) for key, heading in named.items()}
