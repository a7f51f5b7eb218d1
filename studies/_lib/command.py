"""Command lines of the studies, and the JSON files that they write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from nip_audio.core.state import write_atomic
from nip_audio.errors import NipAudioError
from nip_audio.evaluation.config import EvaluationConfig, read_config
from studies._lib.records import plain

__all__ = [
    "add_result",
    "command",
    "evaluation_command",
    "evaluation_of",
    "read_yaml",
    "run",
    "tell",
    "write_results",
]

REFUSED = 65
"""Exit code of nip-audio for input that cannot be used."""


def command(
    description: str | None,
    *positional: str,
    needed: Sequence[str] = (),
    paths: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Return a parser of paths: positional arguments, needed options, and other options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in positional:
        parser.add_argument(name, type=Path)
    for name in (*needed, *paths):
        parser.add_argument(f"--{name}", type=Path, required=name in needed)
    return parser


def evaluation_command(description: str | None, *needed: str) -> argparse.ArgumentParser:
    """Return a parser that takes what ``nip-audio evaluate`` takes, and needed paths."""
    return command(description, "config", needed=needed, paths=("data-root", "data-split"))


def evaluation_of(options: argparse.Namespace) -> EvaluationConfig:
    """Read the configuration of a command line of ``evaluation_command``."""
    return read_config(options.config, data_root=options.data_root, split=options.data_split)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a plan."""
    plan: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return plan


def tell(what: str) -> None:
    """Print a progress message on standard error."""
    print(what, file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a study, and report errors in the input in one line instead of a traceback."""
    try:
        main()
    except (NipAudioError, FileNotFoundError) as err:
        tell(f"error: {err}")
        sys.exit(REFUSED)


def write_results(path: Path, results: object) -> None:
    """Write results as JSON; a file that exists is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), force=True)


def add_result(path: Path, keys: Sequence[str], found: object) -> None:
    """Write ``found`` at a path of keys, with floats of five decimals, and keep the rest."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    place = results
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = _rounded(plain(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, sort_keys=True) + "\n"
    write_atomic(path, text.encode(), force=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value
