"""Command-line options that the studies of images share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from nip_audio.errors import NipAudioError

REFUSED = 65  # exit code of nip-audio for input that cannot be used


def plan_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that takes a plan and the folder of the data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data-folder", type=Path)
    return parser


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that also takes a system, a working folder, and the results to add to."""
    parser = plan_parser(description)
    parser.add_argument("--system", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    return parser


def read_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Read the plan."""
    plan: dict[str, Any] = yaml.safe_load(options.plan.read_text(encoding="utf-8"))
    return plan


def run_calmly(work: Callable[[], None]) -> None:
    """Run, and report errors in the input in one line instead of a traceback."""
    try:
        work()
    except NipAudioError as err:
        tell(f"error: {err}")
        sys.exit(REFUSED)


def tell(what: str) -> None:
    """Print a progress message on standard error."""
    print(what, file=sys.stderr, flush=True)
