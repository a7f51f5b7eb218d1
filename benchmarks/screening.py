"""Time a screening beside its lower bound and beside a plain SpeechBrain loop; watch its memory.

    python benchmarks/screening.py CALIBRATION speed CLEAN_DIR studies/results/screening_speed.json
    python benchmarks/screening.py CALIBRATION memory studies/results/screening_memory.json
    python benchmarks/screening.py CALIBRATION comparison studies/results/screening_comparison.json

CALIBRATION is one of the x-vector that was made with --clean-only; benchmarks/detector_cost.py
compares it with one made with attacks.

``speed`` uses recordings from CLEAN_DIR, two worker processes and ten draws of noise (eleven passes
per file). Three programs take turns on slices of the files, so that a busy moment affects all of
them. Each includes its own start, which is also timed separately:

- screen: the whole screening, with journal, judgement and results;
- bound: only decoding, features and forward passes of the same draws, in two processes;
- SpeechBrain: ``EncoderClassifier.encode_batch`` on eleven copies of each file, two threads.

``memory`` measures the resident memory of the screening process and of its workers for 1,000 and
50,000 files of 0.6 s, all of them links to a few files, with six passes per file.

``comparison`` measures the memory for comparing 50,000 files with each other; their embeddings are
made up, so that all of them differ.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from nip_audio import Batch, PretrainedModel, WaveformAdapter, load_pretrained, read_audio
from nip_audio.audio.io import write_audio
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.core.nccr import NccrConfig, disturbed_inputs
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.comparison import compare
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import default_config, noise_generator
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.sources import FolderSource, ManifestSource

MODEL = "xvector-libri251"
WORKERS = 2
DRAWS = 2
FILES, SLICES = 600, 3
MEMORY_FILES = (1000, 50000)


@cache
def model() -> PretrainedModel:
    """Return the model, loaded once per process."""
    return load_pretrained(MODEL)


def screener(config: NccrConfig) -> Screener:
    """Return a screener with the calibration given that measures with these settings."""
    calibration = Calibration.load(Path(sys.argv[1]), model_id=model().model_id)
    known = calibration.clean_only
    measured = replace(known, probe=replace(known.probe, config=config))
    judge = Judge(replace(calibration, detector=measured))
    return Screener(model(), judge, WaveformAdapter(), engine=LocalEngine(WORKERS))


@torch.no_grad()
def passes_alone(path: str) -> float:
    """Decode one file and send it and its disturbed copies through the model."""
    torch.set_num_threads(1)
    pretrained, config = model(), default_config(model(), draws=DRAWS)
    audio = read_audio(path)
    item = Batch(audio.samples[None])
    clean = pretrained.model.to_input(item)
    generator = noise_generator(0, audio.sha256)
    parts = disturbed_inputs(pretrained.model, item, clean, config.noises, config.draws, generator)
    every = torch.cat([clean.x, *parts])
    return float(pretrained.model.embed_input(Batch(every)).sum())


def speed(folder: Path, results: Path) -> None:
    """Time the three programs in turns."""
    found = list(walk_audio(folder))
    recordings = found[:: max(1, len(found) // FILES)][:FILES]
    seconds = sum(read_audio(r.path).duration_s for r in recordings)
    config = default_config(model(), draws=DRAWS)
    scratch = Path(tempfile.mkdtemp())
    classifier = EncoderClassifier.from_hparams(
        str(model().card.directory), savedir=str(scratch / "sb")
    )
    copies = 1 + len(config.noises) * config.draws
    pool = ProcessPoolExecutor(WORKERS, get_context("spawn"))
    ready = [pool.submit(passes_alone, str(recordings[0].path)) for _ in range(2 * WORKERS)]
    for future in ready:
        future.result()

    def screen(part: Sequence[Recording], number: int) -> None:
        source = ManifestSource(scratch / f"{number}.csv", part)
        screener(config).screen(source, scratch / f"out{number}")

    def bound(part: Sequence[Recording], number: int) -> None:
        list(pool.map(passes_alone, [str(r.path) for r in part]))

    def speechbrain(part: Sequence[Recording], number: int) -> None:
        torch.set_num_threads(WORKERS)
        for recording in part:
            wav = read_audio(recording.path).samples
            with torch.no_grad():
                classifier.encode_batch(wav[None].repeat(copies, 1))

    contenders: dict[str, Callable[[Sequence[Recording], int], None]] = {
        "screen": screen,
        "bound": bound,
        "SpeechBrain": speechbrain,
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(SLICES):
        part = recordings[number::SLICES]
        for name, work in contenders.items():
            started = time.perf_counter()
            work(part, number)
            spent[name].append(time.perf_counter() - started)
    start = []
    for number in range(3):  # a screening of four files with its workers: mostly its start
        started = time.perf_counter()
        screen(recordings[:4], SLICES + number)
        start.append(time.perf_counter() - started)
    pool.shutdown()
    shutil.rmtree(scratch)
    ratios = np.array(spent["bound"]) / (np.array(spent["screen"]) - np.median(start))
    write(
        results,
        {
            "model": MODEL,
            "files": len(recordings),
            "audio_seconds": round(seconds, 1),
            "workers": WORKERS,
            "passes_a_file": copies,
            "slices": SLICES,
            "seconds": {name: [round(s, 2) for s in times] for name, times in spent.items()},
            "start_seconds": [round(s, 2) for s in start],
            "files_a_second": {n: round(len(recordings) / sum(t), 2) for n, t in spent.items()},
            "share_of_bound": round(sum(spent["bound"]) / sum(spent["screen"]), 3),
            "share_of_bound_without_start": round(float(np.median(ratios)), 3),
        },
    )


def memory(results: Path) -> None:
    """Watch the resident memory while more and more files are screened."""
    config = default_config(model())
    rows = []
    for files in MEMORY_FILES:
        folder = Path(tempfile.mkdtemp())
        fill(folder / "audio", files)
        peak = Peak()
        started = time.perf_counter()
        screener(config).screen(FolderSource(folder / "audio"), folder / "out")
        rows.append(
            {
                "files": files,
                "seconds": round(time.perf_counter() - started, 1),
                "process_mb": peak.stop(),
                "journal_mb": round((folder / "out/measured.jsonl").stat().st_size / 1e6, 1),
            }
        )
        shutil.rmtree(folder)
    write(results, {"model": MODEL, "workers": WORKERS, "rows": rows})


def comparison(results: Path) -> None:
    """Watch the resident memory while made-up files are compared with each other."""
    files = MEMORY_FILES[-1]
    folder = Path(tempfile.mkdtemp())
    fill(folder / "audio", 1)
    source = FolderSource(folder / "audio")
    chosen = screener(default_config(model()))
    original = chosen.measurer(next(iter(source)))
    before, peak, started = resident(os.getpid()), Peak(), time.perf_counter()
    compare(made_up(original, files), source, chosen.judge.calibration, chosen.kind)
    seconds, most = time.perf_counter() - started, peak.stop()["own"]
    shutil.rmtree(folder)
    write(
        results,
        {
            "model": MODEL,
            "files": files,
            "seconds": round(seconds, 1),
            "before_mb": round(before),
            "peak_mb": most,
        },
    )


def made_up(original: MeasuredFile, files: int) -> Iterator[MeasuredFile]:
    """Repeat a measured file under other names, ten a speaker, each with its own embedding."""
    rng = np.random.default_rng(0)
    if original.facts is None or original.measurement is None:
        raise RuntimeError(f"the file to start from was not measured: {original.error}")
    for number in range(files):
        embedding = rng.standard_normal(len(original.measurement.embedding))
        speaker = f"speaker{number // 10:05d}"
        yield replace(
            original,
            id=f"{speaker}/{number:06d}.wav",
            speaker=speaker,
            facts=replace(original.facts, content_sha256=f"{number:064x}"),
            measurement=replace(
                original.measurement, embedding=embedding / np.linalg.norm(embedding)
            ),
        )


def fill(folder: Path, files: int) -> None:
    """Link a few recordings again and again, ten files a speaker."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    kept = folder.parent / "originals"
    kept.mkdir()
    for number in range(50):
        samples = torch.from_numpy(0.05 * rng.standard_normal(9600)).float()
        write_audio(kept / f"{number}.wav", samples, 16000)
    for number in range(files):
        speaker = folder / f"speaker{number // 10:05d}"
        speaker.mkdir(exist_ok=True)
        os.link(kept / f"{number % 50}.wav", speaker / f"{number:06d}.wav")


class Peak:
    """Highest resident memory of this process and of all processes below it, in MB."""

    def __init__(self) -> None:
        """Start watching."""
        self._own = self._all = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """Return the peaks."""
        self._ended.set()
        self._thread.join()
        return {"own": round(self._own), "with_workers": round(self._all)}

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            own = resident(os.getpid())
            self._own = max(self._own, own)
            self._all = max(self._all, own + sum(map(resident, below(os.getpid()))))


def resident(pid: int) -> float:
    """Return the proportional set size in MB, which counts memory shared by workers once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def below(pid: int) -> list[int]:
    """Return the processes below a process, at any depth."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text(encoding="ascii").split()):
            found += [child, *below(child)]
    return found


def write(path: Path, results: dict[str, object]) -> None:
    """Write the results with a description of the machine."""
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "torch": torch.__version__,
    }
    path.write_text(json.dumps(machine | results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    what, *paths = sys.argv[2:]
    {"speed": speed, "memory": memory, "comparison": comparison}[what](*map(Path, paths))
