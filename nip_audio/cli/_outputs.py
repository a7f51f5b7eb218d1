"""Where commands that change files one by one put the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nip_audio.core.state import make_folder
from nip_audio.errors import InputError, OutputError


def claim_outputs(
    sources: Sequence[Path], out: Path, ending: str, *, sidecar: str, force: bool
) -> list[Path]:
    """Say what each file becomes, and refuse before the first is worked on, not at the tenth.

    Args:
        sources: Files to be changed.
        out: Folder for what is written; it is made.
        ending: Takes the place of a source's own.
        sidecar: Likewise, for the JSON beside it.
        force: Do not mind what is there, unless it is a source.

    Returns:
        The file to write, for each source.

    Raises:
        InputError: If two would become one file.
        OutputError: If one exists and ``force`` is false, is a source itself, or ``out`` cannot be
            made.
    """
    claimed: dict[Path, Path] = {}
    originals = {path.resolve() for path in sources}
    for source in sources:
        written = out / f"{source.stem}{ending}"
        if written in claimed:
            raise InputError(
                f"{claimed[written]} and {source} would both become {written}; rename one, or give "
                "them in two runs, into two folders"
            )
        claimed[written] = source
        for target in (written, out / f"{source.stem}{sidecar}"):
            if target.resolve() in originals:
                raise OutputError(f"{target} is one of the files given; choose another --out")
            if target.exists() and not force:
                raise OutputError(
                    f"{target} exists already; pass --force to overwrite it, or another --out"
                )
    make_folder(out)
    return list(claimed)
