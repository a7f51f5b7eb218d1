"""Tabulate the detector's evidence for a verdict: unusual changes, or suspicious windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.decision import evidence_names
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError
from nip_audio.screening.calibration import Detector
from nip_audio.screening.measured import Measured
from nip_audio.screening.nccr_detector import NccrDetector
from nip_audio.screening.records import ScreenRecord
from nip_audio.screening.response import ResponseDetector

__all__ = ["Evidence", "JudgedWindow", "require_unchanged"]

_MOST_WINDOWS = 10


@dataclass(frozen=True)
class JudgedWindow:
    """One window of a recording, as a ``ResponseDetector`` judges it.

    Attributes:
        channel: Number of its channel, from 1; 0 is the mean of all channels.
        start_s: Where it begins, in seconds.
        seconds: Length of its sound.
        distance: Its distance: log(1 + odds of an attack).
        resembles: Condition that it resembles most.
    """

    channel: int
    start_s: float
    seconds: float
    distance: float
    resembles: str


@dataclass(frozen=True)
class Evidence:
    """Why a detector judges one file as it does.

    A ``NccrDetector`` goes by how far each measured change deviates from those of clean files, a
    ``ResponseDetector`` by the worst window.

    Attributes:
        table: (noises, rows) deviations from the clean median in robust standard deviations, NaN
            where nothing is measured; None without a calibration.
        noises: Noises of the detector.
        rows: Names of the layers and of the changes of the decision.
        windows: The most suspicious windows, the worst one first.
    """

    table: NDArray[np.float64] | None = None
    noises: tuple[Noise, ...] = ()
    rows: tuple[str, ...] = ()
    windows: tuple[JudgedWindow, ...] = ()

    @staticmethod
    def of(detector: Detector, measured: Measured) -> Evidence:
        """Make the table of a measurement, with the detector it was judged by."""
        if not isinstance(detector, NccrDetector):
            return Evidence(windows=_worst_windows(detector, measured))
        config = detector.probe.config
        deviations = detector.explain(measured)
        names = [name.split(" | ") for name in evidence_names(config, head=detector.probe.names)]
        rows = tuple(dict.fromkeys(row for _, row in names))
        places = [noise.name for noise in config.noises]
        table = np.full((len(places), len(rows)), np.nan)
        for (noise, row), value in zip(names, deviations, strict=True):
            table[places.index(noise), rows.index(row)] = value
        return Evidence(table, config.noises, rows)


def _worst_windows(detector: ResponseDetector, measured: Measured) -> tuple[JudgedWindow, ...]:
    rows = detector.rows(measured)
    distances = detector.distances_of(rows)
    channels = measured.channels if len(measured.channels) else np.zeros(len(rows))
    return tuple(
        JudgedWindow(
            channel=int(channels[i]),
            start_s=float(measured.windows[2 * i]),
            seconds=float(measured.windows[2 * i + 1]),
            distance=float(distances[i]),
            resembles=detector.resembles(rows[i]),
        )
        for i in (-distances).argsort(kind="stable")[:_MOST_WINDOWS]
    )


def require_unchanged(
    record: ScreenRecord, sha256: str, path: Path | str, error: type[FileError]
) -> None:
    """Refuse a file that was changed since the screening, so that no verdict is shown for it.

    Args:
        record: Record of the file in the run.
        sha256: SHA-256 of the file as it is now.
        path: Path of the file.
        error: Class of the error to raise, a ``FileError``.

    Raises:
        FileError: If the file is not the one that was screened.
    """
    if sha256 != record.sha256:
        raise error(
            path,
            code="changed",
            found="the file is not the one that was screened, because its SHA-256 differs",
            remedy="screen the folder again",
        )
