"""Small folders with faults that strangers' recordings bring, and what is right to say of each.

Every case is made from clean clips of 3 s, so that whatever is said of it comes from the fault.
"""

from __future__ import annotations

import os
import shutil
import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

__all__ = ["CASES", "Case", "Outcome", "Speech"]

Samples = NDArray[np.float64]

RATE = 16_000
SPEAKERS = 30
UNJUDGED = {"error", "out_of_domain", "damaged"}


@dataclass(frozen=True)
class Speech:
    """Clips to make cases from.

    Attributes:
        clean: Clean clips of 3 s of 30 speakers in turn, two of each.
        attacked: Attacked copies of the first few, which the model accepts as another voice.
    """

    clean: Sequence[Samples]
    attacked: Sequence[Samples]


@dataclass(frozen=True)
class Outcome:
    """What ``screen`` said of a folder.

    Attributes:
        folder: Folder that was screened.
        exit_code: Exit code of the command.
        records: Record of each file.
        printed: What the command printed, in one line.
    """

    folder: Path
    exit_code: int
    records: Sequence[Mapping[str, Any]]
    printed: str

    def verdicts(self) -> set[str]:
        """Return the verdicts, and the risks that stand beside them."""
        risks = {one["risk"] for record in self.records for one in record["findings"]}
        return {record["verdict"] for record in self.records} | risks

    def heard_s(self) -> float:
        """Return the length of the longest recording that was read, in seconds."""
        return max((record["duration_s"] or 0.0 for record in self.records), default=0.0)


Make = Callable[[Path, Speech], object]
Check = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Case:
    """A folder with a fault.

    Attributes:
        title: The fault.
        right: What is right to say of it.
        make: Writes the files into an empty folder.
        is_right: Whether an outcome is right.
        inside: Whether the folder is also the working directory.
        then: Changes the folder before it is screened once more, into the same output.
        options: Further options of ``screen``.
    """

    title: str
    right: str
    make: Make
    is_right: Check
    inside: bool = False
    then: Make | None = None
    options: tuple[str, ...] = field(default=())


def heard(seconds: float) -> Check:
    """Accept what heard the whole recording, or did not judge it."""
    return lambda out: (
        bool(out.records) and (out.heard_s() >= seconds - 0.15 or not out.verdicts() - UNJUDGED)
    )


def one_of(*verdicts: str) -> Check:
    """Accept one of some verdicts of every file."""
    return lambda out: bool(out.records) and out.verdicts() <= set(verdicts)


def named(*verdicts: str) -> Check:
    """Accept what names one of some risks."""
    return lambda out: bool(out.verdicts() & set(verdicts))


def no_alarm(out: Outcome) -> bool:
    """Accept what is not called an attack."""
    return bool(out.records) and "adversarial" not in out.verdicts()


def _wav(folder: Path, samples: Samples, name: str = "a.wav", **settings: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = settings.pop("samplerate", RATE)
    sf.write(path, samples, rate, **{"subtype": "PCM_16", **settings})
    return path


def _changed(change: Callable[[Samples], Samples], place: int = 0, **settings: Any) -> Make:
    """Write one clean clip, changed."""
    return lambda folder, speech: _wav(folder, change(speech.clean[place]), **settings)


def _attack(change: Callable[[Samples], Samples], **settings: Any) -> Make:
    """Write one attacked clip, changed."""
    return lambda folder, speech: _wav(folder, change(speech.attacked[0]), **settings)


def _one_after_other(suffix: str, **settings: Any) -> Make:
    """Write two complete streams into one file, as recorders that append do."""

    def make(folder: Path, speech: Speech) -> None:
        parts = [
            _wav(folder, x, f"{i}{suffix}", **settings) for i, x in enumerate(speech.clean[:2])
        ]
        (folder / f"both{suffix}").write_bytes(b"".join(part.read_bytes() for part in parts))
        for part in parts:
            part.unlink()

    return make


def _rewritten(suffix: str, change: Callable[[bytes], bytes], **settings: Any) -> Make:
    """Write a clip, and change its bytes."""

    def make(folder: Path, speech: Speech) -> None:
        path = _wav(folder, speech.clean[0], f"a{suffix}", **settings)
        path.write_bytes(change(path.read_bytes()))

    return make


def _size_after(mark: bytes, form: str, share: float, skip: int = 0) -> Callable[[bytes], bytes]:
    """Return a change of the size that stands after a mark: a share of what it was."""

    def change(content: bytes) -> bytes:
        start = content.index(mark) + len(mark) + skip
        size = struct.calcsize(form)
        (stated,) = struct.unpack(form, content[start : start + size])
        return content[:start] + struct.pack(form, int(stated * share)) + content[start + size :]

    return change


def _flac_samples(share: float) -> Callable[[bytes], bytes]:
    """Return a change of the number of samples, the last 36 bits before the MD5 of a FLAC file."""

    def change(content: bytes) -> bytes:
        start = 4 + 4 + 10
        stated = int.from_bytes(content[start : start + 8], "big")
        count = stated & ((1 << 36) - 1)
        new = (stated - count) | int(count * share)
        return content[:start] + new.to_bytes(8, "big") + content[start + 8 :]

    return change


def _without_xing(content: bytes) -> bytes:
    """Blank the mark of the frame that says how long an MP3 is."""
    return content.replace(b"Xing", b"\0" * 4, 1).replace(b"Info", b"\0" * 4, 1)


def _mp3_of_two_rates(folder: Path, speech: Speech) -> None:
    """Write an MP3 whose first frames have more bits than the others, without a Xing frame."""
    parts = []
    for i, level in enumerate((0.0, 0.9)):
        path = _wav(folder, speech.clean[0], f"{i}.mp3", subtype="MPEG_LAYER_III",
                    bitrate_mode="CONSTANT", compression_level=level)  # fmt: skip
        parts.append(_without_xing(path.read_bytes()))
        path.unlink()
    (folder / "a.mp3").write_bytes(b"".join(parts))


def _mp3_in_wav(folder: Path, speech: Speech) -> None:
    """Write the frames of an MP3 behind the header of a WAV, as telephone systems do."""
    path = _wav(folder, speech.clean[0], "a.mp3", subtype="MPEG_LAYER_III")
    frames = path.read_bytes()
    path.unlink()
    form = struct.pack("<HHIIHHH", 0x55, 1, RATE, 4000, 1, 0, 0)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(frames)) + frames
    content = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    (folder / "a.wav").write_bytes(content)


def _flat_tops(x: Samples) -> Samples:
    limit = np.quantile(np.abs(x), 0.8)
    return x.clip(-limit, limit)


def _gated(x: Samples) -> Samples:
    level = np.sqrt(np.convolve(x**2, np.ones(320) / 320, mode="same"))
    return np.where(level < 0.1 * level.max(), 0.0, x)


def _stereo(left: Callable[[Speech], Samples], right: Callable[[Speech], Samples]) -> Make:
    return lambda folder, speech: _wav(folder, np.stack([left(speech), right(speech)], axis=1))


def _clean(speech: Speech) -> Samples:
    return speech.clean[0]


def _hum(speech: Speech) -> Samples:
    return 0.05 * np.sin(2 * np.pi * 50 * np.arange(len(speech.clean[0])) / RATE)


def _eight_channels(folder: Path, speech: Speech) -> None:
    x = np.zeros((len(speech.clean[0]), 8))
    x[:, 5] = speech.clean[0]
    _wav(folder, x)


def _with_tone(x: Samples) -> Samples:
    return x + 0.03 * np.sin(2 * np.pi * 7000 * np.arange(len(x)) / RATE)


def _speakers(
    folder: Path, speech: Speech, names: Sequence[str] = ("anna", "ben"), inside: str = ""
) -> None:
    """Write two clips of each speaker."""
    for i, name in enumerate(names):
        for j in range(2):
            _wav(folder, speech.clean[i + SPEAKERS * j], f"{name}/{inside}{j}.wav")


def _hidden(folder: Path, speech: Speech) -> None:
    _speakers(folder, speech)
    for i, name in enumerate((".Trash", "__MACOSX", ".ipynb_checkpoints")):
        _wav(folder, speech.clean[4 + i], f"{name}/x.wav")


def _unread(folder: Path, speech: Speech) -> None:
    _speakers(folder, speech, ("anna",))
    for name in ("a.3gp", "b.mov", "c.mka"):
        (folder / "ben").mkdir(exist_ok=True)
        (folder / "ben" / name).write_bytes(b"\0" * 4000)


def _two_forms(folder: Path, speech: Speech) -> None:
    names = unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")
    for i, name in enumerate(names):
        _wav(folder, speech.clean[SPEAKERS * i], f"{name}/{i}.wav")


def _root(folder: Path, speech: Speech) -> None:
    names = tuple(f"wav/id1000{i}" for i in range(3))
    _speakers(folder, speech, names, inside="video/")


def _planted(folder: Path, speech: Speech) -> None:
    _wav(folder, speech.clean[0])
    for name in ("numpy", "torch", "nip_audio", "multiprocessing", "soundfile", "encodings"):
        (folder / f"{name}.py").write_text("open('RAN', 'w').close()\nraise SystemExit(0)\n")


def _judge(folder: Path, speech: Speech) -> None:
    _wav(folder, speech.clean[0])
    (folder / "xvector-libri251").mkdir()
    (folder / "xvector-libri251" / "model_card.json").write_text("{}")


def _replaced(folder: Path, speech: Speech) -> None:
    path = folder / "a.wav"
    times = path.stat()
    copy = _wav(folder, speech.attacked[0], "b.wav")
    shutil.copyfile(copy, path)
    copy.unlink()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _pair(change: Callable[[Samples], Samples]) -> Make:
    """Write a clip and a changed copy of it under another speaker."""

    def make(folder: Path, speech: Speech) -> None:
        _wav(folder, speech.clean[0], "anna/a.wav")
        _wav(folder, change(speech.clean[0]), "ben/b.wav")

    return make


def _telephone(x: Samples) -> Samples:
    """Return what mu-law at 8 kHz leaves."""
    spectrum = np.fft.rfft(x)
    spectrum[len(spectrum) // 2 :] = 0
    narrow = np.fft.irfft(spectrum, len(x))
    coded = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    return np.asarray(np.sign(coded) * (256 ** np.abs(coded) - 1) / 255)


def _padded(before: float, after: float) -> Callable[[Samples], Samples]:
    return lambda x: np.pad(x, (round(before * RATE), round(after * RATE)))


def _long(folder: Path, speech: Speech) -> None:
    rest = np.concatenate([speech.clean[1]] * 37)[: 110 * RATE]
    _wav(folder, np.concatenate([speech.attacked[0], rest]))


_HALF = 0.5
_NOT_JUDGED = "damaged, not judged"

CASES: tuple[Case, ...] = (
    Case(
        "two Ogg Vorbis streams in one file",
        "6 s are heard, or not judged",
        _one_after_other(".ogg", subtype="VORBIS"),
        heard(6),
    ),
    Case(
        "two Opus streams",
        "6 s are heard, or not judged",
        _one_after_other(".opus", format="OGG", subtype="OPUS"),
        heard(6),
    ),
    Case("two FLAC streams", "6 s are heard, or not judged", _one_after_other(".flac"), heard(6)),
    Case(
        "two MP3 streams",
        "6 s are heard, or not judged",
        _one_after_other(".mp3", subtype="MPEG_LAYER_III"),
        heard(6),
    ),
    Case(
        "WAV, stated size halved",
        "3 s are heard, or not judged",
        _rewritten(".wav", _size_after(b"data", "<I", _HALF)),
        heard(3),
    ),
    Case(
        "AU, stated size halved",
        "3 s are heard, or not judged",
        _rewritten(".au", _size_after(b"", ">I", _HALF, 8)),
        heard(3),
    ),
    Case(
        "CAF, stated size halved",
        "3 s are heard, or not judged",
        _rewritten(".caf", _size_after(b"data", ">q", _HALF)),
        heard(3),
    ),
    Case(
        "RF64, stated size halved",
        "3 s are heard, or not judged",
        _rewritten(".wav", _size_after(b"ds64", "<Q", _HALF, 12), format="RF64"),
        heard(3),
    ),
    Case(
        "FLAC, stated length halved",
        "3 s are heard, or not judged",
        _rewritten(".flac", _flac_samples(_HALF)),
        heard(3),
    ),
    Case(
        "MP3 of two bit rates without a Xing frame",
        "6 s are heard, or not judged",
        _mp3_of_two_rates,
        heard(6),
    ),
    Case(
        "WAV of a recorder that crashed: size 0",
        "3 s are heard, or not judged",
        _rewritten(".wav", _size_after(b"data", "<I", 0)),
        heard(3),
    ),
    Case(
        "WAV written to a pipe: size unknown",
        "3 s are heard, or not judged",
        _rewritten(
            ".wav",
            lambda x: _size_after(b"data", "<I", 0)(x).replace(
                b"data\0\0\0\0", b"data\xff\xff\xff\xff", 1
            ),
        ),
        heard(3),
    ),
    Case(
        "FLAC written to a pipe: length unknown",
        "3 s are heard, or not judged",
        _rewritten(".flac", _flac_samples(0)),
        heard(3),
    ),
    Case(
        "Ogg cut in the middle",
        "heard to the break, or not judged",
        _rewritten(".ogg", lambda x: x[: len(x) // 2], subtype="VORBIS"),
        heard(1),
    ),
    Case(
        "WAV cut to a sixth",
        _NOT_JUDGED,
        _rewritten(".wav", lambda x: x[: len(x) // 6]),
        one_of(*UNJUDGED),
    ),
    Case("MP3 in a WAV", "3 s are heard, or not judged", _mp3_in_wav, heard(2.9)),
    Case(
        "the loudest fifth of the samples cut flat",
        "damaged, or not judged",
        _changed(_flat_tops),
        one_of("damaged", "error"),
    ),
    Case("offset of 5 %", "no alarm", _changed(lambda x: 0.9 * x + 0.05), no_alarm),
    Case("offset of 2 %", "no alarm", _changed(lambda x: 0.9 * x + 0.02), no_alarm),
    Case("10 s of zeros before", "only the sound is judged", _changed(_padded(10, 0)), no_alarm),
    Case(
        ".3 s of speech in 3 s",
        "not judged",
        _changed(lambda x: _padded(1.35, 1.35)(x[RATE : RATE + 4800])),
        one_of(*UNJUDGED),
    ),
    Case(
        "floats up to 4",
        "scaled, no alarm",
        _changed(lambda x: 4 * x / np.abs(x).max(), subtype="FLOAT"),
        one_of("clean"),
    ),
    Case(
        "floats up to 32,767",
        "scaled, no alarm",
        _changed(lambda x: 32_767 * x, subtype="FLOAT"),
        one_of("clean"),
    ),
    Case("a noise gate", "no alarm, not damaged", _changed(_gated), one_of("clean")),
    Case("24 dB quieter", "no alarm", _changed(lambda x: x / 16), no_alarm),
    Case("40 dB quieter", "no alarm", _changed(lambda x: x / 100), no_alarm),
    Case(
        "stereo, second channel inverted",
        "heard, or channels named",
        _stereo(_clean, lambda s: -_clean(s)),
        one_of("clean", "damaged"),
    ),
    Case(
        "stereo, a voice in each channel",
        "two voices are named",
        _stereo(_clean, lambda s: s.clean[1]),
        named("inconsistent", "damaged", "error"),
    ),
    Case("stereo, hum in the second channel", "no alarm", _stereo(_clean, _hum), no_alarm),
    Case("8 channels, one of them live", "no alarm", _eight_channels, one_of("clean")),
    Case("attacked, as it is", "adversarial", _attack(lambda x: x), named("adversarial")),
    Case(
        "attacked, 2 s of silence after",
        "adversarial",
        _attack(_padded(0, 2)),
        named("adversarial"),
    ),
    Case(
        "attacked, in the first of two channels",
        "adversarial",
        _stereo(lambda s: s.attacked[0], lambda s: 2 * s.clean[0] - s.attacked[0]),
        named("adversarial"),
    ),
    Case("attacked, before 110 s of clean speech", "adversarial", _long, named("adversarial")),
    Case(
        "attacked, with a tone of 7 kHz", "adversarial", _attack(_with_tone), named("adversarial")
    ),
    Case(
        "attacked, its header says 15,999 Hz",
        "adversarial",
        _attack(lambda x: x, samplerate=15_999),
        named("adversarial"),
    ),
    Case(
        "clean, replaced by attacked of its size and time",
        "adversarial",
        lambda f, s: _wav(f, s.clean[0]),
        named("adversarial"),
        then=_replaced,
    ),
    Case("the same recording over a telephone", "duplicate", _pair(_telephone), named("duplicate")),
    Case(
        "the same recording with an offset",
        "duplicate",
        _pair(lambda x: 0.9 * x + 0.05),
        named("duplicate"),
    ),
    Case(
        "modules planted in the working directory",
        "none of them runs",
        _planted,
        lambda out: not (out.folder / "RAN").exists() and len(out.records) == 1,
        inside=True,
        options=("--workers", "2"),
    ),
    Case(
        "a model of the default's name in the working directory",
        "the shipped one is used",
        _judge,
        lambda out: len(out.records) == 1,
        inside=True,
    ),
    Case(
        "dot folders, `__MACOSX`, checkpoints",
        "two speakers",
        _hidden,
        lambda out: len(out.records) == 4,
    ),
    Case(
        "a speaker with files of other formats only",
        "named, exit code not 0",
        _unread,
        lambda out: out.exit_code != 0 and "ben" in out.printed,
    ),
    Case(
        "one name in two Unicode forms",
        "one speaker",
        _two_forms,
        lambda out: len({r["speaker"] for r in out.records}) == 1,
    ),
    Case(
        "the folder above the speakers",
        "said",
        _root,
        lambda out: "each folder of the first level is taken for one speaker" in out.printed,
    ),
)
