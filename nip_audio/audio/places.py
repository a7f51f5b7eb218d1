"""Check that the files named in a manifest are inside the allowed folders."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from nip_audio.audio.names import composed
from nip_audio.audio.remote import is_url

__all__ = ["Places"]

_DATA_ROOT = re.compile(r"\$data_root|\{data_root\}")


@dataclass(frozen=True)
class Places:
    """The two places that files of a manifest may be in.

    The manifest may come from an untrusted source, so it must not name any other file.

    Attributes:
        folder: Folder of the manifest; paths are relative to it.
        data_root: Folder (relative to the working directory) or URL given by the user. It replaces
            ``$data_root`` (or, as in SpeechBrain's JSON, ``{data_root}``), and absolute paths and
            URLs may be below it.
    """

    folder: Path
    data_root: str | Path | None = None

    def find(self, text: str) -> tuple[str | Path, Path | None]:
        """Return the file and the folder that links must stay inside; a URL has no such folder.

        Args:
            text: Path or URL as written in the manifest.

        Raises:
            ValueError: If the file is not in an allowed place; the message says what to do.
        """
        if _DATA_ROOT.search(text):
            if self.data_root is None:
                raise ValueError(f"{text!r} uses $data_root, which is not set; pass `data_root`")
            text = _DATA_ROOT.sub(lambda _: self._data_root, text)
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is not a valid file name; correct it")
        if is_url(text):
            return self._find_url(text), None
        try:
            os.fsencode(text)
        except UnicodeEncodeError as err:
            raise ValueError(
                f"{text!r} is not a valid file name on this system ({err.reason}); correct it"
            ) from err
        path = os.path.normpath(self.folder / self._spelled(text))
        for lexical, resolved in self._roots:
            if any(_below(os.path.abspath(path), root) for root in (lexical, resolved)):
                return Path(path), Path(resolved)
        raise ValueError(
            f"{text!r} is outside the manifest's folder; if you trust this manifest, pass the "
            "folder "
            "of its files as `data_root` (or / for any folder)"
        )

    @cached_property
    def _data_root(self) -> str:
        """The data root; a relative one is relative to the working directory."""
        root = str(self.data_root)
        return _plain(root if is_url(root) else os.path.abspath(root))

    def _spelled(self, text: str) -> str:
        """Return a path as the file is spelled, if it does not exist as written.

        Manifests come from other systems, which separate folders by backslashes, spell accented
        letters in another Unicode form, or leave a space at the end.
        """
        slashed = text.replace("\\", "/")
        if text.isascii() and slashed == text == text.strip():
            return text
        forms = (text, composed(text), unicodedata.normalize("NFD", text))
        ways = (*forms, *(form.strip() for form in forms), slashed, *map(composed, (slashed,)))
        return next((way for way in ways if os.path.lexists(self.folder / way)), slashed)

    @cached_property
    def _roots(self) -> list[tuple[str, str]]:
        roots = [self.folder]
        if self.data_root is not None and not is_url(self.data_root):
            roots.append(Path(self.data_root))
        return [(os.path.abspath(root), os.path.realpath(root)) for root in roots]

    def _find_url(self, url: str) -> str:
        root = self.data_root
        if "::" in url or ".." in unquote(url).split("/"):
            raise ValueError(f"{url!r} contains '::' or '..'; write the URL without them")
        if not isinstance(root, str) or not is_url(root) or not _below(url, _plain(root)):
            raise ValueError(
                f"{url!r} is a URL outside `data_root`; if you trust this manifest, pass the "
                "beginning of its URLs as `data_root`"
            )
        return url


def _plain(root: str) -> str:
    return root if root.endswith("://") else root.rstrip("/")


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root.endswith("/") else root + "/")
