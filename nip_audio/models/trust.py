"""Remember which models this account trusts to run code, by their hashes.

Loading a TorchScript file, an exported program, a function of Python's or a SpeechBrain directory
with classes of its own can run any code. ``nip-audio adopt --trust-model`` writes the model's
identity here, once; a card from elsewhere, or one whose files have changed, is not trusted by it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nip_audio.errors import OutputError

__all__ = ["is_trusted", "remember_trust", "trust_file"]


def trust_file() -> Path:
    """Return the file of this account, below ``$XDG_CONFIG_HOME`` or ``~/.config``."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    if not base.is_absolute():  # a relative one is to be ignored, as its specification says
        base = Path.home() / ".config"
    return base / "nip-audio" / "trusted-models.txt"


def is_trusted(source: str, model_id: str) -> bool:
    """Tell whether a source with these files is trusted."""
    try:
        lines = trust_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.split(" ", 1)[0] == _key(source, model_id) for line in lines)


def remember_trust(source: str, model_id: str) -> Path:
    """Trust a source with these files from now on.

    Returns:
        The file that remembers it; to withdraw the trust, remove the model's line.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = trust_file()
    if not is_trusted(source, model_id):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{_key(source, model_id)} {source!r}\n")
        except OSError as err:
            raise OutputError(
                f"{path} cannot be written ({err.strerror}); set XDG_CONFIG_HOME to a folder of "
                "yours"
            ) from err
    return path


def _key(source: str, model_id: str) -> str:
    return hashlib.sha256(f"{source}\0{model_id}".encode()).hexdigest()
