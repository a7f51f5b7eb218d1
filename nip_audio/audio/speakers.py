"""Find the speaker of a file in its path, in folders that are not one sub-folder per speaker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from nip_audio.audio.names import composed, one_spelling
from nip_audio.errors import InputError

__all__ = ["SpeakerPattern"]

_TOKENS = re.compile(r"(\{speaker\}|\*\*/|\*)")
_MEANING = {"{speaker}": "(?P<speaker>[^/]+?)", "**/": "(?:[^/]+/)*", "*": "[^/]*"}
_EXAMPLE = 'for example "{speaker}/*/*" or "*/{speaker}_*"'


@dataclass(frozen=True)
class SpeakerPattern:
    r"""A pattern of whole paths, relative to the folder that is walked.

    ``{speaker}`` stands for the speaker's name, ``*`` for anything within one name, and ``**/`` for
    any number of folders. Instead it may be a regular expression with a group named ``speaker``.

    Attributes:
        text: The pattern.

    Raises:
        InputError: If it does not say where the speaker is, or is no regular expression.

    Example:
        >>> SpeakerPattern("{speaker}/*/*").speaker("id10001/1zcIwhmdeo4/00001.wav")
        'id10001'
        >>> SpeakerPattern("*/{speaker}_*").speaker("all/p225_001_mic1.flac")
        'p225'
        >>> SpeakerPattern(r".*/(?P<speaker>\d+)-\d+-\d+\.flac").speaker("a/61-70968-0000.flac")
        '61'
    """

    text: str

    def __post_init__(self) -> None:
        """Check the pattern."""
        if "(?P<speaker>" not in self.text:
            named = self.text.count("{speaker}")
            if named != 1 or re.search(r"[{}]", self.text.replace("{speaker}", "")):
                raise InputError(
                    f"the pattern of speakers is {self.text!r}, expected one {{speaker}} and no "
                    f"other braces; pass, {_EXAMPLE}"
                )
        try:
            _ = self._expression
        except re.error as err:
            raise InputError(
                f"the pattern of speakers is {self.text!r}, expected a regular expression ({err}); "
                f"correct it, or pass, {_EXAMPLE}"
            ) from err

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        if "(?P<speaker>" in self.text:
            return re.compile(self.text)
        parts = _TOKENS.split(composed(self.text))
        return re.compile("".join(_MEANING.get(part) or re.escape(part) for part in parts))

    def speaker(self, recording_id: str) -> str:
        """Return the speaker of a file.

        Args:
            recording_id: Path of the file, relative to the folder, with forward slashes.

        Raises:
            InputError: If the path does not match, or its speaker has no name.
        """
        found = self._expression.fullmatch(recording_id)
        name = "" if found is None else one_spelling(found["speaker"] or "")
        if not name:
            raise InputError(
                f"{recording_id} does not match the pattern of speakers {self.text!r}, expected "
                "every file to match as a whole, from the folder on; correct the pattern, or move "
                "the file"
            )
        return name
