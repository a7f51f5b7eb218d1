"""Screen examples/enrolment and compare the findings with the answer key.

    python examples/check_demo.py [REPORT_FOLDER]        (make demo)

Ends with 0 only if the files in what_was_done.tsv, and no others, were flagged, each for what was
done to it. A tool that dies, or finds something else, makes the demo fail.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOL = Path(sys.executable).with_name("nip-audio")
FLAGGED = 3  # exit code of a screening that flagged something and could judge every file


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return its exit code."""
    report = Path(arguments[0] if arguments else "demo-report")
    shutil.rmtree(report, ignore_errors=True)
    arguments = ["screen", HERE / "enrolment", "--out", report, "--seed", "0"]  # as the key
    run = subprocess.run([TOOL, *arguments], check=False)
    if run.returncode != FLAGGED:
        return _fail(
            f"the screening ended with exit code {run.returncode}, expected {FLAGGED} (something "
            f"flagged, every file judged). What is wrong with the installation: {TOOL} doctor"
        )
    with (HERE / "what_was_done.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        key = {row["file"]: (row["verdict"], row["what_was_done"]) for row in rows}
    lines = (report / "results.jsonl").read_text(encoding="utf-8").splitlines()
    verdicts = {record["id"]: record["verdict"] for record in map(json.loads, lines)}
    found = {name: verdict for name, verdict in verdicts.items() if verdict != "clean"}
    if not agree(key, found):
        return _fail("the findings differ from the answer key, examples/what_was_done.tsv")
    print(
        f"\nThe findings agree with the answer key; {len(lines) - len(found)} other files are "
        f"clean.\nLook at {report / 'report.html'}. Next: {TOOL} screen YOUR_FOLDER --out report"
    )
    return 0


def agree(key: Mapping[str, tuple[str, str]], found: Mapping[str, str]) -> bool:
    """Print what was done beside what was found; return whether they agree.

    Args:
        key: Expected verdict, and what was done, by file.
        found: Verdict by file, of those that are not clean.
    """
    print("\nWhat was done to these files, and what was found:")
    for name in sorted(key.keys() | found.keys()):
        done = key[name][1] if name in key else "nothing"
        print(f"  {name}: {done}. Found: {found.get(name, 'nothing')}")
    return dict(found) == {name: verdict for name, (verdict, _) in key.items()}


def _fail(why: str) -> int:
    print(f"\nThe demo failed: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
