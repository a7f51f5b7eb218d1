"""The clips of the study of the enrolment gate: clean, with a fault, and of another chapter."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nip_audio import PretrainedModel
from nip_audio.attacks.objectives import Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import Seconds, read_audio
from nip_audio.core.adapter import Batch
from nip_audio.models.enrolment import embed_audio
from studies.gate.faults import FAULTS, RATE_HZ, Array, Draw, follow

__all__ = ["ATTACKED", "GOOD", "LEAST_S", "MEMBER", "MOST_S", "SECOND", "SEED", "Clip", "plan"]

LEAST_S, MOST_S = 4.0, 6.0
SEED = 0
GOOD, MEMBER, SECOND = "nothing", "member", "a second voice"
ATTACKED = "attacked: accepted as another speaker"

_EPS, _STEPS = 0.002, 20
_FIRST_S = 4.0
_SECONDS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_MEMBERS = 12


@dataclass(frozen=True)
class Clip:
    """One clip to be measured.

    Attributes:
        key: Name, by which a second call knows that it was measured.
        kind: Fault that it has, ``GOOD``, ``MEMBER`` of a folder, or ``SECOND``.
        span: Recording that it is from.
        other: Recording of the other speaker in it, or who is attacked; None if there is none.
        seconds: Length of the second voice; None if there is none.
        make: Returns its samples.
    """

    key: str
    kind: str
    span: Span
    other: Span | None
    seconds: float | None
    make: Callable[[PretrainedModel, float | None], Array | None]


def plan(split: Path, data: Path, *, good: int, faulty: int) -> Iterator[Clip]:
    """Yield the clips of the study, in an order in which a part of them is of use, too."""
    spans = [one for one in read_split(split) if one.path.startswith("test-clean/")]
    test = _shuffled([one for one in spans if one.role == "test" and _length(one) >= LEAST_S])
    learn = _shuffled([one for one in spans if one.role == "train" and _length(one) >= LEAST_S])
    for number in range(good):
        yield _of_one(f"{GOOD} {number}", GOOD, test, number, data, None)
    for place, (name, fault) in enumerate(FAULTS.items(), 1):
        for number in range(faulty):
            nth = good + (place - 1) * faulty + number
            yield _of_one(f"{name} {number}", name, test, nth, data, fault.change)
    for number in range(faulty):
        yield _attacked(test, number, data)
    for seconds in _SECONDS:
        for number in range(faulty):
            yield _second(test, number, seconds, data)
    for span in _members(learn):
        yield _member(span, data)


def _of_one(
    key: str,
    kind: str,
    spans: Sequence[Span],
    number: int,
    data: Path,
    change: Callable[[Array, Array, Draw], Array] | None,
) -> Clip:
    span, other, draw = _drawn(spans, kind, number)

    def make(_model: PretrainedModel, _threshold: float | None) -> Array:
        # the first time that a recording is used its beginning, then a crop
        samples = _read(span, data, draw if number >= len(spans) else None)
        return samples if change is None else change(samples, _read(other, data), draw)

    return Clip(key, kind, span, None if change is None else other, None, make)


def _second(spans: Sequence[Span], number: int, seconds: float, data: Path) -> Clip:
    long = [one for one in spans if _length(one) >= seconds]
    span, _, draw = _drawn(spans, f"{SECOND} {seconds:g}", number)
    others = [one for one in long if one.speaker != span.speaker]
    other = others[int(draw.integers(len(others)))]

    def make(_model: PretrainedModel, _threshold: float | None) -> Array:
        size = round(seconds * RATE_HZ)
        whole = _read(other, data, most_s=np.inf)
        start = (len(whole) - size) // 2
        pair = _read(span, data, most_s=_FIRST_S), whole[max(start, 0) :][:size]
        return follow(*(pair if number % 2 else pair[::-1]))

    return Clip(f"{SECOND} {seconds:g} {number}", SECOND, span, other, seconds, make)


def _attacked(spans: Sequence[Span], number: int, data: Path) -> Clip:
    span, other, _ = _drawn(spans, ATTACKED, number)

    def make(pretrained: PretrainedModel, threshold: float | None) -> Array | None:
        """Return a copy that is accepted as the other speaker; None where none was found."""
        if threshold is None:
            raise ValueError("the calibration has no threshold from which a voice is accepted")
        voice = embed_audio(pretrained, torch.from_numpy(_read(other, data)))
        goal = Verification(pretrained.model, voice[None], threshold=threshold, goal="accept")
        attack = make_attack("pgd", eps=_EPS, settings={"steps": _STEPS})
        batch = Batch(torch.from_numpy(_read(span, data))[None])
        found = attack(goal, batch, generator=torch.Generator().manual_seed(SEED + number))
        return found.batch.x[0].numpy() if bool(found.succeeded[0]) else None

    return Clip(f"{ATTACKED} {number}", ATTACKED, span, other, None, make)


def _member(span: Span, data: Path) -> Clip:
    def make(_model: PretrainedModel, _threshold: float | None) -> Array:
        return _read(span, data)

    return Clip(span.path, MEMBER, span, None, None, make)


def _members(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the recordings of each speaker's folder, those of one chapter first."""
    owned: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        owned[span.speaker].append(span)
    for speaker in sorted(owned, key=int):
        chapters: dict[str, list[Span]] = defaultdict(list)
        for span in owned[speaker]:
            chapters[chapter_of(span.path)].append(span)
        largest = sorted(chapters, key=lambda one: (-len(chapters[one]), one))
        yield from [span for name in largest for span in chapters[name]][:_MEMBERS]


def chapter_of(path: str) -> str:
    """Return the chapter of a recording: LibriSpeech has it as a folder."""
    return path.split("/")[-2]


def _drawn(spans: Sequence[Span], kind: str, number: int) -> tuple[Span, Span, Draw]:
    """Return a recording, one of another speaker, and the generator of a clip."""
    draw = np.random.default_rng((SEED, zlib.crc32(kind.encode()), number))
    span = spans[number % len(spans)]
    others = [one for one in spans if one.speaker != span.speaker]
    return span, others[int(draw.integers(len(others)))], draw


def _shuffled(spans: Sequence[Span]) -> list[Span]:
    return [spans[i] for i in np.random.default_rng(SEED).permutation(len(spans))]


def _length(span: Span) -> float:
    return span.end_s - span.start_s


def _read(span: Span, data: Path, draw: Draw | None = None, *, most_s: float = MOST_S) -> Array:
    """Return the beginning of a recording, or a crop drawn from it, of 4 to 6 s."""
    start, stop = span.start_s, min(span.end_s, span.start_s + most_s)
    if draw is not None:
        size = draw.uniform(LEAST_S, min(MOST_S, _length(span)))
        start = draw.uniform(span.start_s, span.end_s - size)
        stop = start + size
    samples: Array = read_audio(data / span.path, span=Seconds(start, stop)).samples.numpy()
    return samples
