"""Keep enrolled voices in an SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nip_audio.errors import EnrolmentError

__all__ = ["Voices"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS model (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS voices (
    sha256 TEXT PRIMARY KEY, speaker TEXT NOT NULL, embedding BLOB NOT NULL, added TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS of_speaker ON voices (speaker);
"""


class Voices:
    """Embeddings of enrolled recordings, by speaker; bound to the model that made them.

    Several processes may use one file (SQLite's write-ahead log). A recording, known by the hash of
    its bytes, belongs to one speaker.

    Args:
        path: File; made if it does not exist. ``:memory:`` keeps nothing.
        model_id: Identity of the model.

    Raises:
        EnrolmentError: If the file is no such database, or of another model.
    """

    def __init__(self, path: str | Path, *, model_id: str) -> None:
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)
            known = self._database.execute("SELECT id FROM model").fetchone()
        except sqlite3.Error as err:
            raise EnrolmentError(
                f"{path} cannot be used for enrolled voices ({err}), expected an SQLite file of "
                "nip-audio serve, or a new one in a folder that can be written"
            ) from err
        if known is None:
            with self._database:
                self._database.execute("INSERT INTO model VALUES (?)", (model_id,))
        elif known[0] != model_id:
            raise EnrolmentError(
                f"{path} holds voices of model {known[0][:12]}, expected those of "
                f"{model_id[:12]}; enrol into another file, or use the model they were made with"
            )

    def add(self, speaker: str, embedding: Tensor, sha256: str) -> int:
        """Enrol a recording, and return the speaker's number of recordings.

        The same recording again changes nothing.

        Args:
            speaker: Name of the speaker.
            embedding: (D,) of unit length.
            sha256: Hash of the recording's bytes.

        Raises:
            EnrolmentError: If the recording is enrolled as another speaker's.
        """
        blob = embedding.detach().cpu().numpy().astype("<f4").tobytes()
        with self._lock, self._database as database:
            row = database.execute("SELECT speaker FROM voices WHERE sha256 = ?", (sha256,))
            owner = row.fetchone()
            if owner is not None and owner[0] != speaker:
                raise EnrolmentError(
                    "this recording is enrolled as another speaker's, expected one of "
                    f"{speaker!r}; find out whose voice it is"
                )
            if owner is None:
                added = datetime.now(UTC).isoformat(timespec="seconds")
                row_of = (sha256, speaker, blob, added)
                database.execute("INSERT INTO voices VALUES (?, ?, ?, ?)", row_of)
            return self._count(speaker)

    def voice(self, speaker: str) -> tuple[Tensor, int]:
        """Return the mean of a speaker's embeddings, (D,) of unit length, and how many there are.

        Raises:
            EnrolmentError: If the speaker is not enrolled. The message suggests nobody else, whose
                name is none of the caller's business.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT embedding FROM voices WHERE speaker = ?", (speaker,)
            ).fetchall()
        if not rows:
            raise EnrolmentError(f"{speaker!r} is not enrolled; enrol a recording first")
        vectors = np.stack([np.frombuffer(blob, "<f4") for (blob,) in rows])
        mean = torch.from_numpy(vectors).mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=0), len(rows)

    def speakers(self) -> list[str]:
        """Return the names of the enrolled speakers, sorted."""
        with self._lock:
            rows = self._database.execute("SELECT DISTINCT speaker FROM voices ORDER BY speaker")
            return [name for (name,) in rows]

    def remove(self, speaker: str) -> int:
        """Forget a speaker, and return how many recordings were forgotten."""
        with self._lock, self._database as database:
            gone = database.execute("DELETE FROM voices WHERE speaker = ?", (speaker,)).rowcount
        return int(gone)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _count(self, speaker: str) -> int:
        asked = "SELECT COUNT(*) FROM voices WHERE speaker = ?"
        return int(self._database.execute(asked, (speaker,)).fetchone()[0])
