"""Measure how long commands take to start, and their memory; compare with another checkout.

    python benchmarks/start.py studies/results/start.json
    git worktree add ../before COMMIT
    python benchmarks/start.py studies/results/start.json --against ../before

Each command runs in a process of its own, several times, the commands and checkouts taking turns so
that a busy moment hits all of them. Given are the shortest and the median wall time, the shortest
processor time, and the highest memory of one process. The first run of each is a rehearsal: it
fills caches, and is not counted.

A screening of the demo is compared with what it cannot do without, measured in one process: import
torch, decode the files, and pass each through the model as the detector does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "enrolment"
ALLOWED = 1.5
"""How many times its bound a screening may take."""

NECESSARY = f"""
import sys, time
started = time.perf_counter(), time.process_time()
import torch
imported = time.perf_counter(), time.process_time()
from pathlib import Path
from nip_audio.audio.manifest import walk_audio
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.pipeline import Screener
torch.set_num_threads(1)
screener = Screener.from_pretrained(load_pretrained("xvector-libri251"))
recordings = list(walk_audio(Path({str(DEMO)!r})))
begun = time.perf_counter(), time.process_time()
contents = [screener.adapter.read(recording) for recording in recordings]
for content in contents:
    screener.measurer.measure_item(content)
done = time.perf_counter(), time.process_time()
sys.stdout.write(" ".join(
    str(b - a + d - c) for a, b, c, d in zip(started, imported, begun, done, strict=True)
))
"""


@dataclass(frozen=True)
class Case:
    """What is run, and the exit codes that say that it did what it should."""

    name: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    writes: bool = False


@dataclass
class Runs:
    """Measurements of one case in one checkout."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, float]:
        """Return the numbers of the table."""
        return {
            "wall_s": round(min(self.wall_s), 3),
            "median_wall_s": round(median(self.wall_s), 3),
            "cpu_s": round(min(self.cpu_s), 3),
            "peak_mb": round(max(self.peak_mb), 1),
        }


def cases(commands: Sequence[str]) -> list[Case]:
    """List what is measured."""
    tool = ("-m", "nip_audio")
    # before the codes were renumbered, 1 said that something was flagged
    screen = (*tool, "screen", str(DEMO))
    return [
        Case("import nip_audio", ("-c", "import nip_audio")),
        *[Case(f"nip-audio {a}", (*tool, a)) for a in ("--help", "--version", "models")],
        *[Case(f"nip-audio {name} --help", (*tool, name, "--help")) for name in commands],
        Case("nip-audio screen, no report", (*screen, "--no-report"), (1, 3), writes=True),
        Case("nip-audio screen", screen, (1, 3), writes=True),
    ]


def environment(checkout: Path) -> dict[str, str]:
    """Return the environment in which the code of a checkout runs, as it does for a user."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}


def run(case: Case, checkout: Path) -> tuple[float, float, float] | None:
    """Return wall and processor time in seconds and memory in MB; None if there is no such case."""
    folder = tempfile.mkdtemp()
    try:
        out = ("--out", str(Path(folder) / "report")) if case.writes else ()
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *case.arguments, *out],
            # Python looks for modules in the working directory first
            cwd=checkout,
            env=environment(checkout),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        shutil.rmtree(folder)
    if process.returncode == 64:  # wrong usage: an older checkout lacks the command
        return None
    if process.returncode not in case.codes:
        raise SystemExit(f"{case.name} in {checkout} exited with {process.returncode}")
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / unit


def necessary() -> tuple[float, float]:
    """Return wall and processor time of what a screening of the demo cannot do without."""
    done = subprocess.run(
        [sys.executable, "-c", NECESSARY],
        env=environment(ROOT),
        check=True,
        capture_output=True,
        text=True,
    )
    wall_s, cpu_s = map(float, done.stdout.split())
    return wall_s, cpu_s


def table(rows: Sequence[dict[str, Any]], places: Sequence[str]) -> str:
    """Write the results as a table of Markdown."""
    heads = [f"{what}, {place}" for place in places for what in ("s", "median s", "CPU s", "MB")]
    lines = [f"| command | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for row in rows:
        cells = []
        for place in places:
            found = row[place]
            cells += (
                ["not evaluated"] * 4
                if found is None
                else [
                    *(f"{found[key]:.2f}" for key in ("wall_s", "median_wall_s", "cpu_s")),
                    f"{found['peak_mb']:.0f}",
                ]
            )
        lines.append(f"| `{row['command']}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table and write the results."""
    sys.path.insert(0, str(ROOT))
    from nip_audio.cli._commands import COMMANDS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="JSON to write")
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkouts = {"now": ROOT}
    if options.against is not None:
        checkouts = {"before": options.against.resolve(), **checkouts}
    plan = cases(list(COMMANDS))
    found: dict[tuple[str, str], Runs | None] = {}
    bounds: list[tuple[float, float]] = []
    for round_ in range(options.rounds + 1):
        for case in plan:
            for place, checkout in checkouts.items():
                key = (case.name, place)
                if round_ and found.get(key) is None:
                    continue
                measured = run(case, checkout)
                if not round_:
                    found[key] = None if measured is None else Runs()
                    continue
                runs = found[key]
                if runs is not None and measured is not None:
                    for numbers, number in zip(
                        (runs.wall_s, runs.cpu_s, runs.peak_mb), measured, strict=True
                    ):
                        numbers.append(number)
        if round_:
            bounds.append(necessary())
        sys.stderr.write(f"round {round_} of {options.rounds}\n")
    rows = [
        {"command": case.name}
        | {
            place: None if (runs := found[case.name, place]) is None else runs.to_json()
            for place in checkouts
        }
        for case in plan
    ]
    wall_s, cpu_s = (min(column) for column in zip(*bounds, strict=True))
    screened: Any = rows[-1]["now"]
    bound = {
        "what": "import torch, decode the demo, pass it through the model",
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "allowed": ALLOWED,
        "screen_wall_ratio": round(screened["wall_s"] / wall_s, 2),
        "screen_cpu_ratio": round(screened["cpu_s"] / cpu_s, 2),
    }
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    results = {"rounds": options.rounds, **machine, "rows": rows, "bound": bound}
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(rows, list(checkouts)))
    sys.stdout.write(
        f"\nA screening cannot do without {wall_s:.2f} s ({cpu_s:.2f} s of processor time); it "
        f"takes {bound['screen_wall_ratio']:.2f} times that ({bound['screen_cpu_ratio']:.2f} times "
        f"in processor time), allowed is {ALLOWED}.\n"
    )


if __name__ == "__main__":
    main()
