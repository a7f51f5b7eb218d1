"""Remember which file is being measured, so that one that kills the run does so only once."""

from __future__ import annotations

from pathlib import Path

from nip_audio.audio.manifest import Recording
from nip_audio.core.files import open_regular
from nip_audio.errors import OutputError

__all__ = ["CRUMB_NAME", "Crumb"]

CRUMB_NAME = "measuring"
_MOST_BYTES = 1 << 20


class Crumb:
    """A small file that names the file being measured in this process.

    A decoder that crashes takes the whole process with it. What the file names when the next run
    starts is measured in a process of its own, and becomes a record if that crashes as well.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is written yet."""
        self._path = path

    def left(self) -> str | None:
        """Return the id of the file during which an earlier run ended; None if there is none."""
        try:
            with open_regular(self._path) as file:
                return file.read(_MOST_BYTES).decode("utf-8", "surrogatepass") or None
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as err:
            raise self._unwritable(err) from err

    def drop(self, recording: Recording) -> None:
        """Write down which file is measured next.

        Raises:
            OutputError: If it cannot be written.
        """
        try:
            self._path.write_bytes(recording.id.encode("utf-8", "surrogatepass"))
        except OSError as err:
            raise self._unwritable(err) from err

    def remove(self) -> None:
        """Remove the file, because all files were measured.

        Raises:
            OutputError: If it cannot be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as err:
            raise self._unwritable(err) from err

    def _unwritable(self, err: OSError) -> OutputError:
        return OutputError(
            f"{self._path} cannot be written ({err.strerror}); free some space, or get permission "
            "to write there, and run the same command again"
        )
