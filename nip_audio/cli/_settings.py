"""Settings of methods: read them from ``--set key=value``, and list them.

Names, types, defaults and descriptions are read from the signature and the docstring of the class
or function that takes the settings, so they are written down once.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import plain, stdout
from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError

SHOW_SETTINGS = "--show-settings"

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"Setting; may be repeated. {SHOW_SETTINGS} lists names, defaults and meanings.",
    ),
]


@dataclass(frozen=True)
class Setting:
    """A setting of a method.

    Attributes:
        name: Name of the setting.
        kind: Type of its value.
        default: Value if it is not given; ``inspect.Parameter.empty`` if it has to be.
        text: Description.
    """

    name: str
    kind: Any
    default: Any
    text: str

    @property
    def shown_default(self) -> str:
        """Default in the form that ``--set`` takes; empty if there is none."""
        return "" if self.default is inspect.Parameter.empty else _as_text(self.default)

    @property
    def expected(self) -> str:
        """What its values look like, in words."""
        return _expected(self.kind)


def list_settings(make: Callable[..., Any], names: Iterable[str] | None = None) -> list[Setting]:
    """Return the settings that a class or function takes, the most specific ones first.

    Args:
        make: Class or function whose docstring describes its parameters.
        names: Names of the parameters that are settings; None takes all.
    """
    parameters = inspect.signature(make).parameters
    described = _descriptions(make)
    chosen = set(parameters if names is None else names)
    hints = get_type_hints(
        make.__init__ if inspect.isclass(make) and not is_dataclass(make) else make
    )
    order = [name for name in (*described, *parameters) if name in parameters and name in chosen]
    return [
        Setting(name, hints.get(name, str), parameters[name].default, described.get(name, ""))
        for name in dict.fromkeys(order)
    ]


def read_settings(
    given: Sequence[str],
    known: Sequence[Setting],
    method: str,
    *,
    options: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Read settings of the form ``key=value``, and convert the values to the types of the settings.

    Args:
        given: Texts as given on the command line.
        known: Settings of the method.
        method: Name of the method.
        options: Options of the command that hold what might be taken for a setting, by its name.

    Raises:
        InputError: If a text has another form, a setting is unknown or given twice, or a value has
            another type.
    """
    by_name = {setting.name: setting for setting in known}
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            example = next((s for s in known if s.shown_default), None)
            such = f", e.g. --set {example.name}={example.shown_default}" if example else ""
            raise InputError(f"--set got {text!r}, expected key=value; write both{such}")
        if key in (options or {}):
            option = (options or {})[key]
            raise InputError(f"--set got {key}, expected a setting; pass it as {option}")
        if key not in by_name:
            near = suggest_names(key, by_name) if by_name else "it takes none, leave it out"
            raise InputError(f"{method} has no setting {key}; {near}")
        if key in values:
            raise InputError(f"--set got {key} twice, expected each key once; leave one out")
        values[key] = _read(by_name[key], value)
    return values


def print_settings(method: str, settings: Sequence[Setting]) -> None:
    """Print a table of settings."""
    if not settings:
        stdout.say(f"{method} has no settings")
        return
    table = Table(box=SIMPLE, title=f"Settings of {plain(method)}", title_justify="left")
    for name in ("setting", "default", "value"):
        table.add_column(name, overflow="fold")
    table.add_column("meaning", overflow="fold", ratio=1)
    for setting in settings:
        cells = (setting.name, setting.shown_default, setting.expected, setting.text)
        table.add_row(*map(plain, cells))
    stdout.print(table)


def show_settings_option(
    option: str,
    default: str,
    settings_of: Callable[[str], Sequence[Setting]],
) -> Any:
    """Return the option that lists the settings of the method that another option chooses.

    Args:
        option: Parameter that holds the name of the method; it must be eager, so that it is known.
        default: Method if the option is not given.
        settings_of: Function that returns the settings of a method.
    """

    def show(context: typer.Context, asked: bool) -> None:
        if asked:
            method = str(context.params.get(option, default))
            print_settings(method, settings_of(method))
            raise typer.Exit

    return typer.Option(
        SHOW_SETTINGS,
        is_eager=True,
        callback=show,
        help=f"List the settings of the {option}, and exit.",
    )


def _descriptions(make: Callable[..., Any]) -> dict[str, str]:
    """Return what a docstring says of each parameter; that of a dataclass may be inherited."""
    described: dict[str, str] = {}
    for one in inspect.getmro(make) if inspect.isclass(make) else (make,):
        section = re.search(
            r"^(?:Args|Attributes):\n((?: .*\n|\n)*)",
            f"{inspect.getdoc(one) or ''}\n",
            re.MULTILINE,
        )
        for entry in re.split(r"^ {4}(?=\w)", section[1] if section else "", flags=re.MULTILINE):
            name, colon, text = entry.partition(":")
            if colon:
                described.setdefault(name.strip(), " ".join(text.replace("``", "").split()))
    return described


def _read(setting: Setting, text: str) -> Any:
    try:
        return _convert(setting.kind, text)
    except ValueError as err:
        shown = setting.shown_default
        such = f"write --set {setting.name}={shown}" if shown else "change the value"
        raise InputError(
            f"{setting.name} is {text!r}, expected {setting.expected}; {such}, for example"
        ) from err


def _convert(kind: Any, text: str) -> Any:
    """Convert a text.

    Raises:
        ValueError: If it is no value of this type.
    """
    if get_origin(kind) in (Union, UnionType):
        return _convert_any(get_args(kind), text)
    if get_origin(kind) is Literal:
        return get_args(kind)[[str(choice) for choice in get_args(kind)].index(text)]
    if get_origin(kind) is tuple:
        return _convert_tuple(get_args(kind), text)
    if kind is bool:
        return {"true": True, "false": False, "yes": True, "no": False}[_known_word(text)]
    return kind(text)


def _known_word(text: str) -> str:
    if text.lower() not in ("true", "false", "yes", "no"):
        raise ValueError(text)
    return text.lower()


def _convert_any(kinds: Sequence[Any], text: str) -> Any:
    if NoneType in kinds and text.lower() == "none":
        return None
    for kind in kinds:
        if kind is not NoneType:
            try:
                return _convert(kind, text)
            except ValueError:
                continue
    raise ValueError(text)


def _convert_tuple(kinds: Sequence[Any], text: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(parts)
    return tuple(_convert(kind, part) for kind, part in zip(kinds, parts, strict=True))


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "none",
}


def _expected(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_expected(one) for one in arguments)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(kind) is tuple:
        if arguments[-1] is Ellipsis:
            return "names joined by commas"
        return f"{len(arguments)} numbers joined by commas"
    return _WORDS.get(kind, "a path")


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
