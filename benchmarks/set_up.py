"""Set the project up as a stranger would, in a fresh clone with an empty home, and time it.

    python benchmarks/set_up.py studies/results/set_up.json demo test
    python benchmarks/set_up.py studies/results/set_up.json --newest test demo

Each call clones the last commit, runs the targets one after the other and adds a row for each to
the results. Nothing is taken from the caller's home or pip cache; settings of pip in the
environment (certificates, PIP_CONFIG_FILE) are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("PATH", "LANG", "CI", "NIP_AUDIO_DATA", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
VERSIONS = """
import json, platform, torch, torchaudio
print(json.dumps({
    "python": platform.python_version(), "torch": torch.__version__,
    "torchaudio": torchaudio.__version__,
}))
"""


def main() -> int:
    """Run the targets; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="JSON to write, or to add to")
    parser.add_argument("targets", nargs="+", choices=("demo", "test"))
    parser.add_argument("--newest", action="store_true", help="without the locks")
    options = parser.parse_args()
    venv = ".venv-newest" if options.newest else ".venv"
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
        kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith("PIP_")}
        environment = kept | {"HOME": str(home)}
        rows: list[dict[str, Any]] = []
        for target in options.targets:
            choice = [f"VENV={venv}", "LOCKED=no"] if options.newest else []
            started = time.perf_counter()
            done = subprocess.run(
                ["make", target, *choice],
                **{"cwd": clone, "env": environment, "check": False, "text": True},
                **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
            )
            seconds = time.perf_counter() - started
            sys.stdout.write(done.stdout[-4000:])
            told = re.findall(r"^.*\d+ passed.*$|^The findings agree.*$", done.stdout, re.MULTILINE)
            versions = subprocess.run(
                [clone / venv / "bin/python", "-W", "ignore", "-c", VERSIONS],
                **{"env": environment, "cwd": folder, "check": True},
                **{"stdout": subprocess.PIPE, "text": True},
            )
            rows.append(
                {
                    "target": f"make {target}",
                    "after": [f"make {t}" for t in options.targets[: len(rows)]],
                    "locked": not options.newest,
                    "exit_code": done.returncode,
                    "seconds": round(seconds),
                    "environment_gb": round(size_of(clone / venv) / 1e9, 1),
                    "told": told[-1].strip("= ") if told else None,
                    "cores": os.cpu_count(),
                    "machine": platform.machine(),
                    **json.loads(versions.stdout),
                }
            )
    earlier = json.loads(options.results.read_text()) if options.results.exists() else []
    options.results.write_text(json.dumps(earlier + rows, indent=1) + "\n", encoding="utf-8")
    return int(any(row["exit_code"] for row in rows))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files)


if __name__ == "__main__":
    sys.exit(main())
