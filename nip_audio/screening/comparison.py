"""What the files of a run say about each other: how rare each is, and which are the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.io import ReadSettings
from nip_audio.detectors.conformal import q_values
from nip_audio.errors import AudioError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.duplicates import find_duplicates
from nip_audio.screening.measure import MeasuredFile
from nip_audio.screening.sources import Source

__all__ = ["Comparison", "Twin", "compare"]


@dataclass(frozen=True)
class Twin:
    """Another file with the same recording.

    Attributes:
        id: Of the other file.
        speaker: Whose it is said to be.
        correlation: Of the samples, 1 if they are equal.
    """

    id: str
    speaker: str | None
    correlation: float


@dataclass(frozen=True)
class Comparison:
    """By the id of a file.

    Attributes:
        q_values: Of the files that could be measured.
        twins: Of those that lie under several speakers.
    """

    q_values: dict[str, float] = field(default_factory=dict)
    twins: dict[str, tuple[Twin, ...]] = field(default_factory=dict)


def compare(
    files: Iterable[MeasuredFile],
    source: Source,
    calibration: Calibration,
    settings: ReadSettings,
) -> Comparison:
    """Compare all files of a run.

    Of each file less than a thousand bytes are kept, so that a run may be long.

    Args:
        files: Of the run, in order.
        source: Where they come from, to listen to those that sound alike.
        calibration: For the p-values.
        settings: How files are read.
    """
    ids: list[str] = []
    speakers: list[str | None] = []
    hashes: list[bytes] = []
    p_values: list[float] = []
    embeddings: list[NDArray[np.float32]] = []
    for file in files:
        if file.facts is None or file.measurement is None:
            continue
        ids.append(file.id)
        speakers.append(file.speaker)
        hashes.append(bytes.fromhex(file.facts.content_sha256))
        embeddings.append(file.measurement.embedding.astype(np.float32))
        p_values.append(calibration.tail_p_value(calibration.distance(file.measurement)))
    if not ids:
        return Comparison()

    def read(row: int) -> NDArray[np.float32] | None:
        recording = source.find(ids[row])
        try:
            samples = recording.read(settings).samples
        except AudioError:
            return None  # it is gone, or was changed: the next run measures it again
        return np.asarray(samples.numpy())

    twins: dict[str, list[Twin]] = {}
    for pair in find_duplicates(hashes, np.stack(embeddings), speakers, read):
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            twin = Twin(ids[other], speakers[other], pair.correlation)
            twins.setdefault(ids[one], []).append(twin)
    q = dict(zip(ids, q_values(p_values).tolist(), strict=True))
    return Comparison(q, {name: tuple(found) for name, found in twins.items()})
