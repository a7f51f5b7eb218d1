"""Options of version 0.1, which still work: they are rewritten, and the new form is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FormerOption:
    """An option that has become a setting.

    Attributes:
        setting: Name of the setting; empty if the value names the setting, too.
        values: Number of values that the option takes.
        flag: Value of the setting if the option takes none.
        repeats: Whether several values are joined; otherwise the last one counts.
    """

    setting: str
    values: int = 1
    flag: str = ""
    repeats: bool = False


FORMER_OPTIONS: Mapping[str, Mapping[str, FormerOption]] = {
    "fit-purifier": {
        "--steps": FormerOption("steps"),
        "--adaptive": FormerOption("adaptive", 0, "true"),
        "--no-adaptive": FormerOption("adaptive", 0, "false"),
        "--noise": FormerOption("noise"),
        "--snr-db": FormerOption("snr_db"),
        "--eps": FormerOption("eps", 2),
        "--input-weight": FormerOption("input_weight"),
        "--leave-out": FormerOption("leave_out", repeats=True),
        "--candidates": FormerOption("candidates"),
        "--quorum": FormerOption("quorum"),
        "--share": FormerOption("share"),
        "--crop-s": FormerOption("crop_s"),
        "--batch-size": FormerOption("batch_size"),
    },
    "purify": {"--setting": FormerOption("")},
    "attack": {"--steps": FormerOption("steps"), "--queries": FormerOption("queries")},
}
"""Options by command and by name."""


def rewrite_former_options(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Write former options in their new form, and return the arguments and notices for the user."""
    former = FORMER_OPTIONS.get(command, {})
    kept: list[str] = []
    values: dict[str, str] = {}
    pairs: list[str] = []
    used: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            rest, end = [], [word, *rest]
            kept += end
            break
        name, equals, first = word.partition("=")
        if name not in former:
            kept.append(word)
            continue
        option = former[name]
        taken = [first] if equals else []
        while rest and len(taken) < option.values:
            taken.append(rest.pop(0))
        value = ",".join(taken) if option.values else option.flag
        if option.setting in values and option.repeats:
            value = f"{values[option.setting]},{value}"
        if option.setting:
            values[option.setting] = value
        else:
            pairs.append(value)
        used.append(name)
    pairs = [*(f"{key}={value}" for key, value in values.items()), *pairs]
    written = [word for pair in pairs for word in ("--set", pair)]
    if not used:
        return kept, []
    names = ", ".join(dict.fromkeys(used))
    verb = "is an option" if len(set(used)) == 1 else "are options"
    return [*written, *kept], [
        f"note: {names} {verb} of version 0.1 and will be removed in the next version; write "
        f"{' '.join(written)}"
    ]
