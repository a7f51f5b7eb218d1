"""Output paths of the commands that write one changed copy per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nip_audio.core.state import make_folder
from nip_audio.workflows.outputs import refuse_clashes


def claim_outputs(
    sources: Sequence[Path], out: Path, ending: str, *, sidecar: str, what: str, force: bool
) -> list[Path]:
    """Choose the output path of each file, refuse conflicts, and create the folder.

    Args:
        sources: Files to be changed.
        out: Folder of the results.
        ending: Ending of the result, which replaces that of the source, e.g. ``.pgd.wav``.
        sidecar: Ending of the JSON file beside the result.
        what: Word for the sources in messages, e.g. "recordings".
        force: Whether existing files may be overwritten, except for the sources.

    Returns:
        The path to write for each source.

    Raises:
        InputError: If two sources would become the same file.
        OutputError: If a result exists, or would overwrite a source, or if ``out`` cannot be made.
    """
    written = [out / f"{source.stem}{ending}" for source in sources]
    beside = [out / f"{source.stem}{sidecar}" for source in sources]
    planned = list(zip(sources, zip(written, beside, strict=True), strict=True))
    refuse_clashes(planned, what=what, force=force)
    make_folder(out)
    return written
