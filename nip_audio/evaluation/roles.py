"""Roles of data: nothing that was fitted may have seen what it is tested on."""

from __future__ import annotations

from collections.abc import Iterable

from nip_audio.errors import InputError

__all__ = ["refuse_overlap"]


def refuse_overlap(seen: Iterable[str], tested: Iterable[str], *, what: str) -> None:
    """Refuse to test on content that something fitted has seen.

    Args:
        seen: ``Audio.content_sha256`` of all, recorded by what was fitted.
        tested: Content hashes of the test items.
        what: What was fitted, for the text.

    Raises:
        InputError: If there is an overlap.
    """
    overlap = set(seen) & set(tested)
    if overlap:
        raise InputError(
            f"{len(overlap)} test items were seen when the {what} was fitted; give it and the test "
            "different roles of the split"
        )
