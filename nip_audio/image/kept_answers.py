"""Answers of a remote classifier, on disk: what was paid for once is not asked again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nip_audio.core.strict_json import load_json
from nip_audio.errors import StateError

__all__ = ["KeptAnswers"]

_MOST_BYTES = 1 << 28


class KeptAnswers:
    """A file of lines: whose answers they are, then one picture's hash and class each.

    An answer is in the file before the next is asked for. A last line that broke off is left out.

    Args:
        path: Of the file; it is made if it is not there.
        source: What answers, e.g. its URL.
        labels: Names of its classes.

    Raises:
        StateError: If the file is of another source, has other labels, or cannot be read.
    """

    def __init__(self, path: Path, source: str, labels: Sequence[str]) -> None:
        """See the class."""
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
        """Return the number of answers."""
        return len(self._known)

    def get(self, picture: str) -> int | None:
        """Return the class that a picture was given, by its hash; None if it was not asked."""
        return self._known.get(picture)

    def add(self, picture: str, label: int) -> None:
        """Keep an answer.

        Raises:
            StateError: If it cannot be written.
        """
        try:
            self._write({"picture": picture, "label": label})
        except OSError as err:
            raise StateError(f"{self.path} cannot be written ({err.strerror}); make room") from err
        self._known[picture] = label

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, head: dict[str, Any]) -> None:
        if self.path.stat().st_size > _MOST_BYTES:
            raise StateError(f"{self.path} has over {_MOST_BYTES} bytes; is it of this make?")
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].split(b"\n")[:-1]
        try:
            found = [load_json(line) for line in lines]
            if not found or found[0] != head:
                raise StateError(
                    f"{self.path} holds answers of something else, or other labels, expected those "
                    f"of {head['source']}; take another file"
                )
            known = {str(line["picture"]): line["label"] for line in found[1:]}
            if not all(type(i) is int and 0 <= i < len(head["labels"]) for i in known.values()):
                raise ValueError("a label is none of the classes")
        except (ValueError, KeyError, TypeError) as err:
            raise StateError(f"{self.path} is damaged ({err}); delete it, and ask anew") from err
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        self._known = known
