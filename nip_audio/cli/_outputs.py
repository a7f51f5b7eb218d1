"""Where commands that change files one by one put the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nip_audio.core.state import make_folder
from nip_audio.workflows.outputs import refuse_clashes


def claim_outputs(
    sources: Sequence[Path], out: Path, ending: str, *, sidecar: str, what: str, force: bool
) -> list[Path]:
    """Say what each file becomes, and make the folder.

    Args:
        sources: Files to be changed.
        out: Folder for what is written.
        ending: Takes the place of a source's own.
        sidecar: Likewise, for the JSON beside it.
        what: The sources, in words.
        force: Do not mind what is there, unless it is a source.

    Returns:
        The file to write, for each source.

    Raises:
        InputError: As ``refuse_clashes``.
        OutputError: As ``refuse_clashes``, or if ``out`` cannot be made.
    """
    written = [out / f"{source.stem}{ending}" for source in sources]
    beside = [out / f"{source.stem}{sidecar}" for source in sources]
    planned = list(zip(sources, zip(written, beside, strict=True), strict=True))
    refuse_clashes(planned, what=what, force=force)
    make_folder(out)
    return written
