"""Refuse what files in the working directory would turn a command into."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nip_audio.errors import InputError

_NUMBA_SETTINGS = ".numba_config.yaml"


def refuse_files_as_options(arguments: Sequence[str]) -> None:
    """Refuse arguments that are options and also files, as ``*`` gives for a file ``--force``.

    Whoever may put files into a folder could otherwise choose the options of a command that is run
    there. What stands behind ``--`` is never an option.

    Raises:
        InputError: If there is such an argument.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for word in arguments[:end]:
        if word.startswith("-") and os.path.lexists(word):
            raise InputError(
                f"{word} is an option and also a file of this name in the working directory, "
                f"expected only one of them; for the file write ./{word}, for all files of a "
                "folder ./*, or put -- before them; for the option, run the command from another "
                "folder"
            )


def refuse_settings_of_numba() -> None:
    """Refuse to run beside settings that Numba, which librosa uses, would obey.

    They may name a folder whose compiled functions are loaded, which runs code.

    Raises:
        InputError: If the working directory holds them.
    """
    if os.path.lexists(_NUMBA_SETTINGS):
        raise InputError(
            f"the working directory holds {_NUMBA_SETTINGS}, which the library Numba would obey, "
            "expected no such file, because it can make Numba run code; remove it if it is not "
            "yours, or run the command from another folder"
        )
