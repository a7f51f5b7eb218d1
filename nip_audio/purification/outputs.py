"""What is to be written where: refused before the first file is worked on, not at the tenth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nip_audio.errors import InputError, OutputError

__all__ = ["refuse_clashes"]


def refuse_clashes(
    planned: Sequence[tuple[Path | str, Sequence[Path]]], *, what: str, force: bool
) -> None:
    """Refuse a plan by which something would be lost.

    Args:
        planned: Each source, and every file that is made of it, the main one first.
        what: The sources, in words.
        force: Do not mind what is there, unless it is a source.

    Raises:
        InputError: If two sources would become one file.
        OutputError: If an output exists and ``force`` is false, or is a source itself.
    """
    claimed: dict[Path, Path | str] = {}
    originals = {Path(source).resolve() for source, _ in planned}
    for source, (written, *_) in planned:
        if written in claimed:
            raise InputError(
                f"{claimed[written]} and {source} would both become {written}; rename one, or give "
                "them in two runs, into two folders"
            )
        claimed[written] = source
    for output in (output for _, outputs in planned for output in outputs):
        if output.resolve() in originals:
            raise OutputError(f"{output} is one of the {what}; choose another --out")
        if output.exists() and not force:
            raise OutputError(
                f"{output} exists already; pass --force to overwrite it, or another --out"
            )
