"""Write docs/results/screening.md: python -m studies.screening.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nip_audio.screening.records import RISKS
from studies._lib.pages import Page
from studies._lib.tables import Columns, table

Results = Mapping[str, Any]


def risks() -> str:
    """Write what to do for each risk, the most serious first."""
    return table({"found": lambda risk: f"`{risk}`", "do": lambda risk: RISKS[risk]}, RISKS)


def speed(results: Results) -> dict[str, str]:
    """Write files per second, and the share of the possible speed."""
    files, length = results["files"], results["audio_seconds"] / results["files"]
    rates = results["files_a_second"]
    columns: Columns = {
        "what": str,
        "files a second": lambda name: f"{rates[name]:.2f}",
        "seconds of audio a second": lambda name: f"{rates[name] * length:.1f}",
        f"seconds, {files} files": lambda name: f"{sum(results['seconds'][name]):.0f}",
    }
    start = sorted(results["start_seconds"])[len(results["start_seconds"]) // 2]
    return {
        "speed": table(columns, rates),
        "files": str(files),
        "length": f"{length:.1f}",
        "model": results["model"],
        "passes": str(results["passes_a_file"]),
        "cores": str(results["cores"]),
        "slices": str(results["slices"]),
        "start": f"{start:.1f}",
        "beside": f"{100 * rates['screen'] / rates['SpeechBrain']:.0f}",
        "rate": f"{rates['screen']:.1f}",
        "share": f"{100 * results['share_of_bound']:.1f}",
        "share_without_start": f"{100 * results['share_of_bound_without_start']:.0f}",
    }


def memory(results: Results) -> dict[str, str]:
    """Write memory peaks by number of files."""
    columns: Columns = {
        "files": lambda row: f"{row['files']:,}",
        "screening process, MB": lambda row: f"{row['process_mb']['own']:.0f}",
        "with its workers, MB": lambda row: f"{row['process_mb']['with_workers']:.0f}",
        "journal, MB": lambda row: f"{row['journal_mb']:.0f}",
        "seconds": lambda row: f"{row['seconds']:.0f}",
    }
    return {
        "memory": table(columns, results["rows"]),
        "workers": str(results["workers"]),
        "most": f"{results['rows'][-1]['files']:,}",
    }


def comparison(results: Results) -> dict[str, str]:
    """Write the memory that comparing files adds."""
    return {
        "compared": f"{results['files']:,}",
        "added": f"{results['peak_mb'] - results['before_mb']:.0f}",
    }


def service(results: Results) -> dict[str, str]:
    """Write what the service answers under three loads, and its memory."""
    columns: Columns = {
        "load": lambda row: row[0],
        "answered": lambda row: f"{row[1]['answered']} of {results['requests']}",
        "told to come again": lambda row: str(row[1]["statuses"].get("429", 0)),
        "median, ms": lambda row: f"{row[1]['p50_ms']:.0f}",
        "99 %, ms": lambda row: f"{row[1]['p99_ms']:.0f}",
    }
    loads = [
        (f"as fast as it answers, {results['queue'] // 2} clients", results["full"]),
        ("half of that rate", results["half"]),
        (f"{results['crowd']['clients']} clients, four times its queue", results["crowd"]),
    ]
    return {
        "service": table(columns, loads),
        "service_rate": f"{results['per_s']:.1f}",
        "service_bound": f"{results['bound_per_s']:.1f}",
        "service_share": f"{100 * results['share_of_bound']:.0f}",
        "service_workers": str(results["workers"]),
        "service_length": f"{results['seconds_of_audio']:.1f}",
        "service_recordings": str(results["recordings"]),
        **soak(results["soak"]),
    }


GOAL = 100_000
"""Requests over which the memory of the service is to be flat."""


def soak(results: Results) -> dict[str, str]:
    """Write the memory of the service over many light requests."""
    columns: Columns = {
        "service": lambda row: str(row[0]),
        "requests": lambda row: f"{row[1]['requests']:,}",
        "minutes": lambda row: f"{row[1]['seconds'] / 60:.0f}",
        "of them recordings": lambda row: f"{_recordings(row[1]):,}",
        "MiB at the start": lambda row: f"{row[1]['memory_mib'][0]:.1f}",
        "highest": lambda row: f"{max(row[1]['memory_mib']):.1f}",
        "at the end": lambda row: f"{row[1]['memory_mib'][-1]:.1f}",
    }
    longest = max(run["requests"] for run in results["runs"])
    missed = f"by one service: **not reached** (the longest run has {longest:,})"
    return {
        "soak_table": table(columns, list(enumerate(results["runs"], start=1))),
        "soak_requests": f"{results['requests']:,}",
        "soak_goal": f"{GOAL:,}",
        "soak_reached": "by one service: reached" if longest >= GOAL else missed,
    }


def _recordings(run: Results) -> int:
    return sum(n for name, n in run["statuses"].items() if name.endswith(" 200"))


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    return {
        "risks": risks(),
        **speed(results["screening_speed"]),
        **memory(results["screening_memory"]),
        **comparison(results["screening_comparison"]),
        **service(results["serve"]),
    }


PAGE = Page(
    "screening",
    __file__,
    ("screening_speed", "screening_memory", "screening_comparison", "serve"),
    parts,
)


if __name__ == "__main__":
    PAGE.run()
