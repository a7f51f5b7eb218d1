"""Check a plan of output files for conflicts before the first file is processed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nip_audio.errors import InputError, OutputError

__all__ = ["refuse_clashes"]


def refuse_clashes(
    planned: Sequence[tuple[Path | str, Sequence[Path]]], *, what: str, force: bool
) -> None:
    """Refuse a plan in which a file would be overwritten by mistake.

    Args:
        planned: Each source with all files that are written for it, the main one first.
        what: Word for the sources in messages, e.g. "recordings".
        force: Whether existing files may be overwritten, except sources.

    Raises:
        InputError: If two sources have the same output.
        OutputError: If an output exists and ``force`` is false, or is one of the sources.
    """
    claimed: dict[Path, Path | str] = {}
    originals = {Path(source).resolve() for source, _ in planned}
    for source, (written, *_) in planned:
        if written in claimed:
            raise InputError(
                f"{claimed[written]} and {source} would both become {written}; rename one, or "
                "process them in two runs with two output folders"
            )
        claimed[written] = source
    for output in (output for _, outputs in planned for output in outputs):
        if output.resolve() in originals:
            raise OutputError(f"{output} is one of the {what}; choose another --out")
        if output.exists() and not force:
            raise OutputError(
                f"{output} exists already; pass --force to overwrite it, or another --out"
            )
