"""Load the service on this machine, and compare it with the bound of the work itself.

    python benchmarks/serve.py RECORDINGS --results studies/results/serve.json \
        [--model NAME] [--requests 400] [--workers 1]
    python benchmarks/serve.py RECORDINGS --results studies/results/serve.json --soak 100000

RECORDINGS is a folder. First the recordings are judged in a plain loop, one after the other in this
process: the bound. Then a service is started, as a user starts it, and asked by several clients at
once: as fast as it answers, at half of that rate, and by four times as many clients as its queue
holds, which come again when they are told to.

--soak looks at the memory of a service instead, over many light requests: one in ten is a recording
of 0.6 s, screened or verified, the others cannot be used (no audio, a damaged header, an archive, a
parameter that is missing, a speaker who is not enrolled). After every thousand the results file has
the count and the memory; started again, it goes on with a new service, whose memory is counted from
its own start.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import soundfile
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


def memory_mib(process: int, *, deep: bool = True) -> float:
    """Return the resident memory of a process and, if ``deep``, all that it started."""
    total, found = 0, [process]
    while found:
        one = found.pop()
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
        found += map(int, children) if deep else ()
    return total / 2**20


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a service, as a user starts it, and stop it; give its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nip_audio", "serve", "--model", options.model]
        command += ["--port", str(port), "--queue", str(QUEUE), "--workers", str(options.workers)]
        server = subprocess.Popen([*command, "--voices", f"{folder}/voices.sqlite"])
        base = f"http://127.0.0.1:{port}/v1"
        try:
            _wait(base, server)
            yield base, server
        finally:
            server.terminate()
            server.wait(60)


def measure(options: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    """Start the service and load it."""
    bodies = [file.read_bytes() for file in files]
    alone = bound(options.model, files, options.requests)
    with serving(options) as (base, server):
        screen = f"{base}/screen"
        asyncio.run(ask(screen, bodies, 16, clients=2))  # warms up
        started = time.perf_counter()
        full = asyncio.run(ask(screen, bodies, options.requests, clients=QUEUE // 2))
        rate = options.requests / (time.perf_counter() - started)
        half = asyncio.run(
            ask(screen, bodies, options.requests, clients=QUEUE // 2, pause_s=2 / rate)
        )
        crowd = asyncio.run(ask(screen, bodies, options.requests, clients=4 * QUEUE))
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
        "exit_code": server.returncode,
    }


def soak(options: argparse.Namespace, files: Sequence[Path]) -> None:
    """Send light requests to one service, and write its memory after every thousand."""
    found = json.loads(options.results.read_text(encoding="utf-8"))
    earlier = found.get("soak") or {}
    runs = earlier.get("runs", []) if earlier.get("model") == options.model else []
    kinds = _light(files[0])
    asked = [name for name in kinds for _ in range(_SHARES.get(name, 1))]
    done = sum(run["requests"] for run in runs)
    with serving(options) as (base, server):
        asyncio.run(_light_requests(base, kinds, asked[:100]))  # enrols, and warms up
        started = time.perf_counter()
        run: dict[str, Any] = {"requests": 0, "seconds": 0.0, "statuses": {}}
        run["memory_mib"] = [memory_mib(server.pid)]
        run["service_mib"] = [memory_mib(server.pid, deep=False)]
        statuses: Counter[str] = Counter()
        while done + run["requests"] < options.soak:
            statuses += asyncio.run(
                _light_requests(base, kinds, [asked[k % len(asked)] for k in range(_ROUND)])
            )
            run["requests"] += _ROUND
            run["seconds"] = round(time.perf_counter() - started, 1)
            run["statuses"] = dict(sorted(statuses.items()))
            run["memory_mib"].append(memory_mib(server.pid))
            run["service_mib"].append(memory_mib(server.pid, deep=False))
            found["soak"] = {
                "model": options.model,
                "requests": done + run["requests"],
                "runs": [*runs, run],
            }
            _write(options.results, found)


_ROUND = 1000
_SHARES = {"empty": 5, "text": 4, "random": 4}  # the others stand once among twenty requests

Kind = tuple[str, bytes, int]
"""Path with parameters, body, and the status that is expected."""


def _light(file: Path) -> dict[str, Kind]:
    """Return requests that cost little: a short part of a recording, and what cannot be used."""
    samples, rate_hz = soundfile.read(file)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples[rate_hz : rate_hz + int(0.6 * rate_hz)], rate_hz, format="FLAC")
    short = buffer.getvalue()
    wave = io.BytesIO()
    soundfile.write(wave, samples[:rate_hz], rate_hz, format="WAV", subtype="PCM_16")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.flac", short)
    return {
        "screen": ("screen", short, 200),
        "verify": ("verify?speaker=ann", short, 200),
        "empty": ("screen", b"", 422),
        "text": ("screen", b"no audio " * 500, 422),
        "random": ("enroll?speaker=bob", random.Random(0).randbytes(20_000), 422),
        "cut": ("screen", wave.getvalue()[:5000], 422),
        "lying": ("screen", wave.getvalue() + bytes(range(256)) * 40, 422),
        "archive": ("screen", packed.getvalue(), 422),
        "parameter": ("enroll", short, 422),
        "stranger": ("verify?speaker=nobody", short, 404),
    }


async def _light_requests(base: str, kinds: Mapping[str, Kind], asked: list[str]) -> Counter[str]:
    """Send requests by several clients; an answer that was not expected ends the measurement."""
    statuses: Counter[str] = Counter()
    left = iter(asked)

    async def one(client: httpx.AsyncClient) -> None:
        for name in left:
            path, body, expected = kinds[name]
            answer = await client.post(f"{base}/{path}", content=body)
            if answer.status_code != expected:
                raise SystemExit(f"{name}: {answer.status_code} {answer.text[:300]}")
            statuses[f"{name} {answer.status_code}"] += 1

    async with httpx.AsyncClient(timeout=120) as client:
        await client.post(f"{base}/enroll?speaker=ann&force=true", content=kinds["screen"][1])
        await asyncio.gather(*(one(client) for _ in range(QUEUE - 4)))
    return statuses


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


def _write(path: Path, found: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _seconds(files: Sequence[Path]) -> float:
    return statistics.mean(soundfile.info(file).duration for file in files)


def main() -> None:
    """Measure, and write the results."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--model", default="xvector-libri251")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--soak", type=int, default=0, help="light requests, instead of the load")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    files = [Path(recording.path) for recording in walk_audio(options.recordings)]
    if options.soak:
        soak(options, files)
        return
    earlier = {}
    if options.results.exists():
        earlier = json.loads(options.results.read_text(encoding="utf-8"))
    found = measure(options, files)
    _write(options.results, found | {"soak": earlier.get("soak")})
    sys.stdout.write(
        f"{found['per_s']:.1f} requests/s, {found['share_of_bound']:.0%} of the bound; "
        f"p99 at half load {found['half']['p99_ms']:.0f} ms; "
        f"{found['crowd']['answered']} of {options.requests} answered at four times the queue\n"
    )


if __name__ == "__main__":
    main()
