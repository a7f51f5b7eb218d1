"""Load the service on this machine, and compare it with the bound of the work itself.

    python benchmarks/serve.py RECORDINGS --results studies/results/serve.json \
        [--model NAME] [--requests 400] [--soak 0] [--workers 1]

RECORDINGS is a folder. First the recordings are judged in a plain loop, one after the other in this
process: the bound. Then a service is started, as a user starts it, and asked by several clients at
once: as fast as it answers, at half of that rate, and by four times as many clients as its queue
holds, which come again when they are told to. --soak sends that many more requests and looks at the
memory of the service's processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from nip_audio import load_pretrained
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.screening.pipeline import Screener

QUEUE = 16


@dataclass
class Answers:
    """What clients were answered."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def share(self, quantile: float) -> float:
        """Return a quantile of the times, in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]


def bound(model: str, files: Sequence[Path], requests: int) -> float:
    """Return recordings a second of a plain loop over the same work."""
    torch.set_num_threads(1)
    screener = Screener.from_pretrained(load_pretrained(model))
    recordings = [Recording(file.name, file) for file in files]
    list(screener.judge_files(recordings[:8]))  # warms up
    started = time.perf_counter()
    for number in range(requests):
        list(screener.judge_files([recordings[number % len(recordings)]]))
    return requests / (time.perf_counter() - started)


async def ask(
    url: str, bodies: Sequence[bytes], requests: int, *, clients: int, pause_s: float = 0.0
) -> Answers:
    """Send requests by a number of clients; whoever is told that it is busy comes again."""
    answers, left = Answers(), iter(range(requests))
    begun = time.perf_counter()

    async def one(client: httpx.AsyncClient) -> None:
        for number in left:
            if pause_s:  # a steady rate, whatever the answers take
                await asyncio.sleep(max(begun + number * pause_s - time.perf_counter(), 0))
            started = time.perf_counter()
            while True:
                answer = await client.post(url, content=bodies[number % len(bodies)])
                answers.statuses[answer.status_code] += 1
                if answer.status_code != 429:
                    break
                await asyncio.sleep(float(answer.headers["retry-after"]) / 4)
            answers.seconds.append(time.perf_counter() - started)

    async with httpx.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return answers


def memory_mib(process: int) -> float:
    """Return the resident memory of a process and all that it started."""
    total, found = 0, [process]
    while found:
        one = found.pop()
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
        found += map(int, children)
    return total / 2**20


def measure(options: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    """Start the service and load it."""
    bodies = [file.read_bytes() for file in files]
    alone = bound(options.model, files, options.requests)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nip_audio", "serve", "--model", options.model]
        command += ["--port", str(port), "--queue", str(QUEUE), "--workers", str(options.workers)]
        server = subprocess.Popen([*command, "--voices", f"{folder}/voices.sqlite"])
        base = f"http://127.0.0.1:{port}/v1"
        try:
            _wait(base, server)
            screen = f"{base}/screen"
            asyncio.run(ask(screen, bodies, 16, clients=2))  # warms up
            started = time.perf_counter()
            full = asyncio.run(ask(screen, bodies, options.requests, clients=QUEUE // 2))
            rate = options.requests / (time.perf_counter() - started)
            half = asyncio.run(
                ask(screen, bodies, options.requests, clients=QUEUE // 2, pause_s=2 / rate)
            )
            crowd = asyncio.run(ask(screen, bodies, options.requests, clients=4 * QUEUE))
            memory = [memory_mib(server.pid)]
            for _ in range(10 if options.soak else 0):
                asyncio.run(ask(screen, bodies, options.soak // 10, clients=QUEUE // 2))
                memory.append(memory_mib(server.pid))
        finally:
            server.terminate()
            code = server.wait(60)
    return {
        "model": options.model,
        "recordings": len(files),
        "requests": options.requests,
        "workers": options.workers,
        "queue": QUEUE,
        "seconds_of_audio": _seconds(files),
        "bound_per_s": alone,
        "per_s": rate,
        "share_of_bound": rate / alone,
        "full": _told(full),
        "half": _told(half),
        "crowd": {"clients": 4 * QUEUE, **_told(crowd)},
        "soak": {"requests": options.soak, "memory_mib": memory},
        "exit_code": code,
    }


def _wait(base: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the service ended with {server.returncode}")
        try:
            httpx.get(f"{base}/health")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the service did not start within two minutes")


def _told(answers: Answers) -> dict[str, Any]:
    return {
        "answered": len(answers.seconds),
        "statuses": {str(status): count for status, count in sorted(answers.statuses.items())},
        "p50_ms": answers.share(0.5),
        "p99_ms": answers.share(0.99),
    }


def _seconds(files: Sequence[Path]) -> float:
    import soundfile

    return statistics.mean(soundfile.info(file).duration for file in files)


def main() -> None:
    """Measure, and write the results."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--model", default="xvector-libri251")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    files = [Path(recording.path) for recording in walk_audio(options.recordings)]
    found = measure(options, files)
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{found['per_s']:.1f} requests/s, {found['share_of_bound']:.0%} of the bound; "
        f"p99 at half load {found['half']['p99_ms']:.0f} ms; "
        f"{found['crowd']['answered']} of {options.requests} answered at four times the queue\n"
    )


if __name__ == "__main__":
    main()
