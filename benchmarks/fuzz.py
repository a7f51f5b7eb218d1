"""Fuzz all readers of untrusted files with damaged inputs.

    python benchmarks/fuzz.py --inputs 100000
    python benchmarks/fuzz.py --engine atheris --only "manifest csv"   # pip install atheris

A reader may return or raise a ``NipAudioError``. Everything else is a finding: another exception, a
process that dies, an input that takes more than ``--seconds``, or a truncated file read as a whole
one. A seeded mutator makes inputs from valid examples, so that the same seed makes the same inputs,
and a finding gives its target and number. ``atheris`` is guided by coverage instead; it starts from
the same examples and ends at the first finding.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import inspect
import io
import json
import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from safetensors.torch import load, save

from nip_audio.audio.condition import Condition
from nip_audio.audio.io import read_audio
from nip_audio.audio.manifest import read_recordings, walk_audio
from nip_audio.core.state import _content_sha256
from nip_audio.errors import NipAudioError, ResumeError
from nip_audio.evaluation.adversarial_sets import _read_manifest
from nip_audio.models.cards import read_card
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import _VOCABULARY, load_pretrained
from nip_audio.models.safe_yaml import checked_yaml
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.journal import Journal, to_line
from nip_audio.screening.measured import (
    FileFacts,
    Heard,
    MeasuredFile,
    Measurement,
    TriggerEvidence,
)
from nip_audio.screening.records import Finding, ScreenRecord, SpeakerRecord

MODEL = "xvector-libri251"

Check = Callable[[bytes, Path], None]


@dataclass(frozen=True)
class Target:
    """A reader of bytes to fuzz.

    Attributes:
        name: Name of the target in findings.
        share: Share of all inputs that this target gets.
        examples: Valid inputs to start from.
        check: Function that reads one input; it gets an empty folder to write the input to.
        text: Whether the examples are JSON, CSV or YAML, which are also changed value by value.
    """

    name: str
    share: float
    examples: list[bytes]
    check: Check
    text: bool = True


# --- what is read ---


def _check_audio(data: bytes, folder: Path) -> None:
    path = folder / "a"
    path.write_bytes(data)
    audio = read_audio(path)
    if not torch.isfinite(audio.samples).all() or float(audio.samples.abs().max()) > 1:
        raise RuntimeError("audio beyond its range")


def _check_manifest(suffix: str) -> Check:
    def check(data: bytes, folder: Path) -> None:
        path = folder / f"m{suffix}"
        path.write_bytes(gzip.compress(data, 1) if suffix.endswith(".gz") else data)
        for recording in read_recordings(path, data_root="/nowhere"):
            place = os.path.abspath(recording.path)
            if not place.startswith((f"{folder}/", "/nowhere")) and place != str(folder):
                raise RuntimeError(f"{place} lies outside")
            recording.leads_out  # noqa: B018 - asks the system about the name

    return check


def _check_archive(kind: str) -> Check:
    def check(data: bytes, folder: Path) -> None:
        path = folder / f"a.{kind}"
        path.write_bytes(data)
        for recording in walk_audio(path):
            with contextlib.suppress(NipAudioError):
                recording.read()
        if list(folder.parent.rglob("x.wav")) or os.listdir(folder) != [path.name]:
            raise RuntimeError("something was written")

    return check


def _check_raw_gzip(data: bytes, folder: Path) -> None:
    path = folder / "m.jsonl.gz"
    path.write_bytes(data)
    read_recordings(path)


def _check_journal(data: bytes, folder: Path) -> None:
    path = folder / "measured.jsonl"
    lines = data.split(b"\n")  # of JSON; with their checksums, most changes reach the parser
    checked = [b"%08x %b" % (zlib.crc32(line), line) for line in lines[:-1]]
    path.write_bytes(b"\n".join([*checked, lines[-1]]))
    with Journal(path) as journal:
        whole = path.read_bytes()
        if whole and not whole.endswith(b"\n"):
            raise RuntimeError("a torn line was kept")
        if len(journal) > data.count(b"\n"):
            raise RuntimeError("more records than whole lines")
        for name in ("a", "b", "c"):
            if journal.stamp(name) is not None:
                journal.read(name)


def _check_record(data: bytes, folder: Path) -> None:
    line = data.decode("ascii", errors="replace")  # as the results are opened
    for kind in (ScreenRecord, SpeakerRecord):
        try:
            record = kind.from_line(line)
        except ResumeError:
            continue
        kind.from_line(record.to_line())


def _check_card(data: bytes, folder: Path) -> None:
    (folder / "model_card.json").write_bytes(data)
    card = read_card(folder)
    str((card.name, card.labels, card.default_taps, card.model_id, card.sample_rate_hz))


def _check_yaml(data: bytes, folder: Path) -> None:
    # the only caller turns these exceptions into the project's own
    with contextlib.suppress(yaml.YAMLError, RecursionError, ValueError):
        checked_yaml(data, folder, _VOCABULARY)


def _check_set(data: bytes, folder: Path) -> None:
    path = folder / "manifest.jsonl"
    path.write_bytes(data)
    _read_manifest(path, repair=True)


def _check_state(read: Callable[[Path], object], *, rehash: bool) -> Check:
    def check(data: bytes, folder: Path) -> None:
        path = folder / "s"
        path.write_bytes(_hashed_anew(data) if rehash else data)
        read(path)

    return check


def _hashed_anew(description_and_weights: bytes) -> bytes:
    """Hash a changed file again, as an attacker can: description, a zero byte, original file."""
    description, _, original = description_and_weights.partition(b"\0")
    try:
        tensors = load(original)
    except Exception:  # noqa: BLE001 - the mutation broke the original file: pass it on as it is
        return original
    text = description.decode(errors="replace")
    header = {"state": text, "sha256": _content_sha256(tensors, text)}
    return save(tensors, metadata=header)


# --- examples ---


def _sounds() -> list[bytes]:
    rng = np.random.default_rng(0)
    wave = 0.3 * np.sin(np.arange(9600) / 9) + 0.01 * rng.standard_normal(9600)
    kinds = [
        *(("WAV", s) for s in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "MS_ADPCM", "GSM610")),
        *(("WAVEX", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
        *(("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16")),
        *(("CAF", "ALAC_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"), ("NIST", "PCM_16")),
        *(("AIFF", "ULAW"), ("AIFF", "IMA_ADPCM"), ("AU", "G721_32"), ("W64", "MS_ADPCM")),
    ]
    made = []
    for container, subtype in kinds:
        file = io.BytesIO()
        rate = 8000 if subtype == "GSM610" else 16000
        soundfile.write(file, wave, rate, subtype, format=container)
        made.append(file.getvalue())
    mp3 = made[kinds.index(("MP3", "MPEG_LAYER_III"))]
    described = struct.pack("<HHIIHHI", 0x55, 1, 16000, 4000, 1, 0, 12)
    in_wav = b"fmt " + struct.pack("<I", len(described)) + described
    in_wav += b"data" + struct.pack("<I", len(mp3)) + mp3
    made += [
        mp3[288:],  # without the header that states its length
        b"RIFF" + struct.pack("<I", 4 + len(in_wav)) + b"WAVE" + in_wav,
        b"ID3\4\0\0\0\0\0\x14" + bytes(20) + made[0] + b"LIST\4\0\0\0INFO",
    ]
    return made


def _archive(kind: str) -> bytes:
    file, sound = io.BytesIO(), _sounds()[0]
    names = ("ann/x.wav", "bob/" + "y" * 120 + ".wav", "notes.txt")
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.writestr(name, sound)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(sound)
            archive.addfile(info, io.BytesIO(sound))
    return file.getvalue()


def _lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _journal() -> bytes:
    facts = FileFacts(1.0, 16000, 1, "WAV/PCM_16", "ab" * 32, "cd" * 32, 0.0, ("x",),
                      Condition(8000.0, 0, 0.0), Heard(1.0, mixed=2, speechless=(2,)))  # fmt: skip
    measurement = Measurement(np.ones(3), np.ones(4), np.ones(2))
    trigger = TriggerEvidence("ann", "bob", 0.1, 0.5, np.ones(5), np.ones(3))
    error = {"code": "empty", "found": "it has 0 bytes", "remedy": "record it again"}
    return b"".join(
        to_line(file).partition(b" ")[2]  # without its checksum
        for file in (
            MeasuredFile("a", "ann", "1:2", facts, measurement),
            MeasuredFile("b", None, "1:2", facts, measurement, trigger=trigger),
            MeasuredFile("c", "ann", "again", error=error),
        )
    )


def _cut() -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": "a.flac"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 64000}
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.5, "speaker": "ann"}
    return {
        **{"id": "c", "start": 1.0, "duration": 1.5, "channel": 0, "type": "MonoCut"},
        **{"supervisions": [supervision], "recording": {**recording, "duration": 4.0}},
    }


def _states(folder: Path) -> list[Target]:
    rng = torch.Generator().manual_seed(0)
    voices = torch.randn(3, 4, generator=rng)
    Enrolment(
        "m", ("ann", "bob"), (voices[:2], voices[2:]), {"ann": ["x", "y"], "bob": ["z"]}
    ).save(folder / "enrolment")
    model = load_pretrained(MODEL)
    calibration, plda = model.card.calibration_path, model.card.plda_path
    assert calibration is not None and plda is not None  # noqa: S101, PT018
    readers: list[tuple[str, Path, Callable[[Path], object]]] = [
        ("enrolment", folder / "enrolment", lambda path: Enrolment.load(path, model_id="m")),
        ("calibration", calibration, lambda p: Calibration.load(p, model_id=model.model_id)),
        ("plda", plda, lambda path: Plda.load(path, model_id=model.model_id)),
    ]
    targets = []
    for name, path, read in readers:
        whole = path.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        state = json.loads(whole[8 : 8 + size])["__metadata__"]["state"].encode()
        targets.append(
            Target(f"{name} bytes", 0.02, [whole], _check_state(read, rehash=False), False)
        )
        again = Target(
            f"{name} hashed anew", 0.02, [state + b"\0" + whole], _check_state(read, rehash=True)
        )
        targets.append(again)
    return targets


def targets(folder: Path) -> list[Target]:
    """Return all readers of files that a stranger may have written."""
    finding = Finding.of("adversarial", "why")
    record = ScreenRecord("a", "ann", "adversarial", (finding,), 1.0, 0.5, 0.01, sha256="ab")
    speaker = SpeakerRecord("ann", "clean", 3, 0, 0, (finding,))
    card = load_pretrained(MODEL).card
    yaml_text = card.read("hyperparams.yaml")
    few = {"training": {"seen": ["a"]}, "metrics": {}, "labels": list(card.labels[:3])}
    plain = [{"path": "a.wav", "speaker": "ann", "id": "u", "start_s": 0.5, "end_s": 2.0}]
    objects = {"u": {"wav": "a.wav", "spk_id": "ann", "start": 1, "stop": 9}}
    example = {
        **{"id": "a", "speaker": "b", "content_sha256": "c", "file": "f", "sha256": "s"},
        **{"fooled_unwritten": True, "fooled": True, "linf": 0.1, "l2": 1.0, "l0": 0.5},
        **{"snr_db": 20.0, "queries": 1.0, "gradients": 1.0, "seconds": 0.1},
    }
    speechbrain = (
        b"ID,duration,wav,start,stop,spk_id\nu,1.0,$data_root/a.wav,0,9,ann\nv,1,b.wav,,,x\n"
    )
    plain_csv = b'path,speaker,id,start_s,end_s\na.wav,ann,u,0.5,2.0\n"b,c.wav",,,,\n'
    return [
        Target("audio", 0.34, _sounds(), _check_audio, text=False),
        *(
            Target(f"archive {kind}", 0.02, [_archive(kind)], _check_archive(kind), text=False)
            for kind in ("zip", "tar", "tar.gz")
        ),
        Target("manifest csv", 0.08, [speechbrain, plain_csv], _check_manifest(".csv")),
        Target("manifest json", 0.05, [json.dumps(objects).encode()], _check_manifest(".json")),
        Target("manifest jsonl", 0.08, [_lines(*plain * 2), _lines(_cut(), _cut())],
               _check_manifest(".jsonl")),
        Target("manifest jsonl.gz", 0.02, [_lines(_cut())], _check_manifest(".jsonl.gz")),
        Target("gzip", 0.02, [gzip.compress(_lines(_cut(), _cut()))], _check_raw_gzip, text=False),
        Target("journal", 0.09, [_journal()], _check_journal),
        Target("results", 0.06, [record.to_line().encode(), speaker.to_line().encode()],
               _check_record),
        Target("model card", 0.04, [json.dumps({**card.data, **few}).encode()], _check_card),
        Target("model yaml", 0.02, [yaml_text], _check_yaml),
        Target("sidecar of a set", 0.02, [_lines(example, example)], _check_set),
        *_states(folder),
    ]  # fmt: skip


# --- mutation ---

_TOKENS = [
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"{}", b"[]", b'""', b'"'),
    *(b"9" * 30, b"9" * 5000, b"0.5", b"[" * 3000, b'{"a":' * 3000, b"\\u0000", b"\\ud800"),
    *(b"../", b"/etc/passwd", b"$data_root", b"{data_root}", b"s3://x/y", b"\xff\xfe", b"\0"),
    *(b"\n", b"\r", b",", b"!!python/object", b"&a [*a]", b"<script>", b"a" * 3000, b"\xf0\x9f"),
]
_SIZES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10**9]
_VALUES = [
    *(None, True, False, 0, -1, 10**30, 0.5, -0.0, 1e308, "", "a", "../x", "/etc/passwd", "\0"),
    *("\ud800", "nan", [], {}, [[]], {"a": None}, ["a", 1], "command", "MixedCut", "s3://a/b"),
]


def mutate(rng: random.Random, data: bytes, *, text: bool) -> bytes:
    """Damage an example in one to four places."""
    if text and rng.random() < 0.5:
        data = _change_json(rng, data)
        if rng.random() < 0.7:
            return data
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        _break(rng, changed, text=text)
    return bytes(changed)


def _break(rng: random.Random, data: bytearray, *, text: bool) -> None:
    reach = len(data) if text or rng.random() < 0.3 else min(len(data), 160)  # headers, mostly
    at = rng.randrange(reach + 1)
    kind = rng.randrange(7)
    if kind == 0:
        data[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == 1:
        del data[at : at + rng.choice((1, 2, 4, 30))]
    elif kind == 2:
        data[at:at] = rng.choice(_TOKENS) if text else rng.randbytes(rng.choice((1, 4, 16)))
    elif kind == 3:
        size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
        data[at : at + size] = (rng.choice(_SIZES) % (1 << 8 * size)).to_bytes(size, order)
    elif kind == 4:
        del data[rng.randrange(len(data) + 1) :]
    elif kind == 5:
        other = rng.randrange(len(data) + 1)
        data[at:at] = data[other : other + rng.choice((4, 16, 64))]
    elif at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _change_json(rng: random.Random, data: bytes) -> bytes:
    """Put an unexpected value into a random place, if the data are JSON."""
    head, zero, rest = data.partition(b"\0")
    lines = head.split(b"\n")
    place = rng.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except ValueError:
        return data
    holders = [value] if isinstance(value, dict | list) else []
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders.extend(v for v in inner if isinstance(v, dict | list))
    holders = [holder for holder in holders if holder]
    if holders:
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if isinstance(holder, dict) and rng.random() < 0.2:
            holder[rng.choice(("path", "wav", "id", "x", ""))] = holder.pop(key)
        else:
            holder[key] = rng.choice(_VALUES)
    lines[place] = json.dumps(value).encode()
    return b"\n".join(lines) + zero + rest


# --- running ---


def _work(target: Target, first: int, last: int, seed: int, seconds: float, shared: Any) -> None:
    """Check a range of inputs in a process that may die; note the number before each input."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang in C is ended as well
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(os.path.realpath(name))
        for number in range(first, last):
            shared[:8] = number.to_bytes(8, "little")
            rng = random.Random(f"{seed}:{target.name}:{number}")
            data = mutate(rng, rng.choice(target.examples), text=target.text)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            started = time.monotonic()
            outcome = "accepted"
            try:
                target.check(data, folder)
            except NipAudioError:
                outcome = "refused"
            except BaseException:  # noqa: BLE001 - any exception is a finding
                _say(f"FINDING {target.name} {number}\n{traceback.format_exc()}")
                outcome = "finding"
            signal.setitimer(signal.ITIMER_REAL, 0)
            places = {"accepted": 8, "refused": 16, "finding": 24}
            place = places[outcome]
            count = int.from_bytes(shared[place : place + 8], "little") + 1
            shared[place : place + 8] = count.to_bytes(8, "little")
            slowest = max(int.from_bytes(shared[32:40], "little"), _micros(started))
            shared[32:40] = slowest.to_bytes(8, "little")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shared[40:48] = max(peak, int.from_bytes(shared[40:48], "little")).to_bytes(8, "little")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _micros(started: float) -> int:
    return int((time.monotonic() - started) * 1e6)


def run(target: Target, inputs: int, seed: int, seconds: float) -> tuple[dict[str, Any], int]:
    """Check a target's inputs; return counts and the number of findings."""
    shared = mmap.mmap(-1, 48)
    context = multiprocessing.get_context("fork")
    place, deaths = 0, 0
    while place < inputs:
        process = context.Process(target=_work, args=(target, place, inputs, seed, seconds, shared))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        place = int.from_bytes(shared[:8], "little")
        kind = "hang" if process.exitcode == -signal.SIGALRM else f"exit {process.exitcode}"
        _say(f"FINDING {target.name} {place}: {kind}")
        deaths += 1
        place += 1
    numbers = [int.from_bytes(shared[i : i + 8], "little") for i in range(8, 48, 8)]
    report = {
        **{"target": target.name, "inputs": inputs, "accepted": numbers[0], "refused": numbers[1]},
        **{"other_errors": numbers[2], "deaths_and_hangs": deaths},
        **{"slowest_s": round(numbers[3] / 1e6, 3), "peak_mb": round(numbers[4] / 1024)},
    }
    return report, numbers[2] + deaths


def _guided(target: Target, inputs: int, seed: int) -> None:
    import atheris

    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, example in enumerate(target.examples):
        (corpus / str(number)).write_bytes(example)

    def check(data: bytes) -> None:
        with contextlib.suppress(NipAudioError):
            target.check(data, folder)

    for name in ("manifest_formats", "manifest", "places", "strict_json", "journal", "records"):
        for module in [m for n, m in sys.modules.items() if n.endswith(f".{name}")]:
            for function in vars(module).values():
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
    options = [f"-runs={inputs}", f"-seed={seed or 1}", "-timeout=5", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


def main() -> int:
    """Fuzz all chosen targets; return the exit code, 1 if there is a finding."""
    parser = argparse.ArgumentParser(description="Fuzz all readers of untrusted files.")
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="time limit for one input")
    parser.add_argument("--only", default="", help="start of the names of targets to run")
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [t for t in targets(Path(folder)) if t.name.startswith(options.only)]
        if options.engine == "atheris":
            _guided(chosen[0], options.inputs, options.seed)
        share = sum(target.share for target in chosen)
        for target in chosen:
            count = -(-int(options.inputs * target.share * 1e6) // int(share * 1e6))
            report, wrong = run(target, count, options.seed, options.seconds)
            _say(json.dumps(report))
            found += wrong
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
