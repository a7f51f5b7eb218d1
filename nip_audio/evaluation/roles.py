"""Keep the roles of data apart: nothing may be tested on data that it was fitted on."""

from __future__ import annotations

from collections.abc import Iterable

from nip_audio.errors import InputError

__all__ = ["refuse_overlap"]


def refuse_overlap(seen: Iterable[str], tested: Iterable[str], *, what: str) -> None:
    """Refuse to test on recordings that a model, defence or detector was fitted on.

    Args:
        seen: ``Audio.content_sha256`` of all recordings that it was fitted on.
        tested: Content hashes of the test items.
        what: Name of what was fitted, for the error text.

    Raises:
        InputError: If a test item is among those seen.
    """
    overlap = set(seen) & set(tested)
    if overlap:
        raise InputError(
            f"{len(overlap)} test items were seen when the {what} was fitted; fit and test on "
            "different roles of the split"
        )
