"""Cache a remote classifier's predictions on disk, so that no query is paid for twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nip_audio.core.state import complete_lines
from nip_audio.core.strict_json import load_json
from nip_audio.errors import StateError

__all__ = ["PredictionCache"]

_MOST_BYTES = 1 << 28


class PredictionCache:
    """File of predictions: first the classifier's name and labels, then one line per image.

    Each prediction is written before the next query is sent. An incomplete last line is dropped.

    Args:
        path: File of the cache; it is created if it does not exist.
        source: Name of the classifier, e.g. its URL.
        labels: Names of the classifier's classes.

    Raises:
        StateError: If the file belongs to another classifier or other labels, or cannot be read.
    """

    def __init__(self, path: Path, source: str, labels: Sequence[str]) -> None:
        """Open the cache and read its predictions."""
        self.path = path
        self._known: dict[str, int] = {}
        head = {"source": source, "labels": list(labels)}
        try:
            if path.exists() and path.stat().st_size:
                self._read(head)
            else:
                self._write(head)
        except OSError as err:
            raise StateError(f"{path} cannot be used ({err.strerror}); check the path") from err

    def __len__(self) -> int:
        """Return the number of cached predictions."""
        return len(self._known)

    def get(self, picture: str) -> int | None:
        """Return the predicted class of an image; None if it is not in the cache.

        Args:
            picture: SHA-256 of the image's pixels.
        """
        return self._known.get(picture)

    def add(self, picture: str, label: int) -> None:
        """Write a prediction to the cache.

        Args:
            picture: SHA-256 of the image's pixels.
            label: Index of the predicted class.

        Raises:
            StateError: If the file cannot be written.
        """
        try:
            self._write({"picture": picture, "label": label})
        except OSError as err:
            raise StateError(
                f"{self.path} cannot be written ({err.strerror}); free space there, or use "
                "another file"
            ) from err
        self._known[picture] = label

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, head: dict[str, Any]) -> None:
        if self.path.stat().st_size > _MOST_BYTES:
            raise StateError(
                f"{self.path} has more than {_MOST_BYTES} bytes, which a prediction cache never "
                "has; use another file"
            )
        try:
            found = [load_json(line) for line in complete_lines(self.path, repair=False)]
            if not found or found[0] != head:
                raise StateError(
                    f"{self.path} holds predictions of another classifier or other labels, "
                    f"expected those of {head['source']}; use another file"
                )
            known = {str(line["picture"]): line["label"] for line in found[1:]}
            if not all(type(i) is int and 0 <= i < len(head["labels"]) for i in known.values()):
                raise ValueError("a label is not one of the classes")
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise StateError(f"{self.path} is damaged ({err}); delete it and query again") from err
        complete_lines(self.path, repair=True)
        self._known = known
