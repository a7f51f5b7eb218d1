"""Write docs/results/screening.md: python -m studies.screening.page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nip_audio.evaluation.tables import markdown
from nip_audio.screening.records import RISKS
from studies._lib.pages import Page

Results = Mapping[str, Any]


def risks() -> str:
    """Write what to do for each risk, the most serious first."""
    return markdown(["found", "do"], [[f"`{risk}`", remedy] for risk, remedy in RISKS.items()])


def speed(results: Results) -> dict[str, str]:
    """Write files per second, and the share of the possible speed."""
    files, length = results["files"], results["audio_seconds"] / results["files"]
    rates = results["files_a_second"]
    rows = [
        [name, f"{rate:.2f}", f"{rate * length:.1f}", f"{sum(results['seconds'][name]):.0f}"]
        for name, rate in rates.items()
    ]
    start = sorted(results["start_seconds"])[len(results["start_seconds"]) // 2]
    return {
        "speed": markdown(
            ["what", "files a second", "seconds of audio a second", f"seconds, {files} files"], rows
        ),
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
    rows = [
        [
            f"{row['files']:,}",
            f"{row['process_mb']['own']:.0f}",
            f"{row['process_mb']['with_workers']:.0f}",
            f"{row['journal_mb']:.0f}",
            f"{row['seconds']:.0f}",
        ]
        for row in results["rows"]
    ]
    columns = ["files", "screening process, MB", "with its workers, MB", "journal, MB", "seconds"]
    return {
        "memory": markdown(columns, rows),
        "workers": str(results["workers"]),
        "most": f"{results['rows'][-1]['files']:,}",
    }


def comparison(results: Results) -> dict[str, str]:
    """Write the memory that comparing files adds."""
    return {
        "compared": f"{results['files']:,}",
        "added": f"{results['peak_mb'] - results['before_mb']:.0f}",
    }


def parts(results: Results) -> dict[str, object]:
    """Fill the template."""
    return {
        "risks": risks(),
        **speed(results["screening_speed"]),
        **memory(results["screening_memory"]),
        **comparison(results["screening_comparison"]),
    }


PAGE = Page(
    "screening", __file__, ("screening_speed", "screening_memory", "screening_comparison"), parts
)


if __name__ == "__main__":
    PAGE.run()
