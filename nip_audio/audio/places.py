"""Where the files that a manifest names may lie."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from nip_audio.audio.remote import is_url

__all__ = ["Places"]

_DATA_ROOT = re.compile(r"\$data_root|\{data_root\}")


@dataclass(frozen=True)
class Places:
    """A manifest may come from a stranger, so it names files below two places only.

    Attributes:
        folder: The manifest's own: paths are relative to it.
        data_root: A folder or a URL that the user named: replaces ``$data_root`` (or, as in
            SpeechBrain's JSON, ``{data_root}``), and absolute paths and URLs may lie below it.
    """

    folder: Path
    data_root: str | Path | None = None

    def find(self, text: str) -> tuple[str | Path, Path | None]:
        """Return a file, and the folder that links must not lead out of; URLs have none.

        Raises:
            ValueError: If it may not lie there, with what was found and a remedy.
        """
        if _DATA_ROOT.search(text):
            if self.data_root is None:
                raise ValueError(f"{text!r} lies below $data_root; pass --data-root")
            text = _DATA_ROOT.sub(lambda _: _plain(str(self.data_root)), text)
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is no file name; correct it")
        if is_url(text):
            return self._find_url(text), None
        try:
            os.fsencode(text)
        except UnicodeEncodeError as err:
            raise ValueError(f"{text!r} is no file name here ({err.reason}); correct it") from err
        path = os.path.normpath(self.folder / text)
        for lexical, resolved in self._roots:
            if any(_below(os.path.abspath(path), root) for root in (lexical, resolved)):
                return Path(path), Path(resolved)
        raise ValueError(
            f"{text!r} lies outside of the manifest's folder; if you trust this manifest, pass the "
            "folder of its files as --data-root (or / for any)"
        )

    @cached_property
    def _roots(self) -> list[tuple[str, str]]:
        roots = [self.folder]
        if self.data_root is not None and not is_url(self.data_root):
            roots.append(Path(self.data_root))
        return [(os.path.abspath(root), os.path.realpath(root)) for root in roots]

    def _find_url(self, url: str) -> str:
        root = self.data_root
        if "::" in url or ".." in unquote(url).split("/"):
            raise ValueError(f"{url!r} holds '::' or '..'; name the file plainly")
        if not isinstance(root, str) or not is_url(root) or not _below(url, _plain(root)):
            raise ValueError(
                f"{url!r} is on the network; if you trust this manifest, pass what its URLs begin "
                "with as --data-root"
            )
        return url


def _plain(root: str) -> str:
    return root if root.endswith("://") else root.rstrip("/")


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root.endswith("/") else root + "/")
