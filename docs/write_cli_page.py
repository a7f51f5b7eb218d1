"""Write docs/reference/cli.md from the commands themselves: python docs/write_cli_page.py."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path
from typing import Any

from typer.core import TyperArgument, TyperOption

from nip_audio.cli._commands import COMMANDS, load_command
from nip_audio.cli.fit_purifier import Method, settings_of

PAGE = Path(__file__).resolve().parent / "reference" / "cli.md"
OPENING = """# Commands

Written from the commands by `python docs/write_cli_page.py`. Each takes `--help`. The JSON that
`--json` prints, and the exit codes, are in [JSON](json.md).

"""


def page() -> str:
    """Return the page."""
    rows = "\n".join(f"| [`{name}`](#{name}) | {line} |" for name, line in COMMANDS.items())
    return OPENING + f"| command | does |\n|---|---|\n{rows}\n" + "".join(map(section, COMMANDS))


def section(name: str) -> str:
    """Return what one command does and takes."""
    command = load_command(name)
    text = inspect.cleandoc(str(command.help)).replace("\b", "")
    panels: dict[str, list[str]] = defaultdict(list)
    usage = [f"nip-audio {name}"]
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            shown = parameter.metavar or str(parameter.name).upper()
            usage.append(f"{shown}…" if parameter.nargs == -1 else shown)
            panels["Arguments"].append(row(usage[-1], parameter))
        elif isinstance(parameter, TyperOption) and not parameter.hidden:
            names = ", ".join((*parameter.opts, *parameter.secondary_opts))
            panels[parameter.rich_help_panel or "Options"].append(row(names, parameter))
            if parameter.required:
                usage.append(f"{parameter.opts[0]} …")
    tables = "".join(
        f"\n**{title}**\n\n| | |\n|---|---|\n" + "".join(rows) for title, rows in panels.items()
    )
    listed = FIT_TABLES if name == "fit-purifier" else ""
    return f"\n## {name}\n\n```\n{' '.join(usage)}\n```\n\n{text}\n{tables}{listed}"


def settings_table(method: str) -> str:
    """Return the table of the settings of a method of fit-purifier."""
    rows = "".join(
        f"| `{one.name}` | `{one.shown_default}` | {one.expected} | {one.text} |\n".replace(
            "| `` |", "| |"
        )
        for one in settings_of(method)
    )
    title = f"**`--method {method}`: what `--set` takes**"
    return f"\n{title}\n\n| | default | | |\n|---|---|---|---|\n{rows}"


def row(names: str, parameter: Any) -> str:
    """Return one line of a table."""
    words = " ".join((parameter.help or "").split()).replace("|", "\\|")
    default = parameter.default
    shown = default not in (None, False, True, "", ()) and "efault" not in words
    if shown and not parameter.required and not callable(default):
        words += f" Default: `{getattr(default, 'value', default)}`."
    return f"| `{names}` | {words} |\n"


FIT_TABLES = "".join(map(settings_table, Method))

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
