"""Tabulate the detector's evidence for a verdict: what each noise changes, and how unusually."""

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

__all__ = ["Evidence", "require_unchanged"]


@dataclass(frozen=True)
class Evidence:
    """How far each measured change of one file deviates from those of clean files.

    Attributes:
        table: (noises, rows) deviations from the clean median in robust standard deviations, NaN
            where nothing is measured; None without a calibration.
        noises: Noises of the detector.
        rows: Names of the layers and of the changes of the decision.
    """

    table: NDArray[np.float64] | None = None
    noises: tuple[Noise, ...] = ()
    rows: tuple[str, ...] = ()

    @staticmethod
    def of(detector: Detector, measured: Measured) -> Evidence:
        """Make the table of a measurement, with the detector it was judged by.

        The response of a purifier has no such table; the record says what it resembles.
        """
        if not isinstance(detector, NccrDetector):
            return Evidence()
        config = detector.probe.config
        deviations = detector.explain(measured)
        names = [name.split(" | ") for name in evidence_names(config, head=detector.probe.names)]
        rows = tuple(dict.fromkeys(row for _, row in names))
        places = [noise.name for noise in config.noises]
        table = np.full((len(places), len(rows)), np.nan)
        for (noise, row), value in zip(names, deviations, strict=True):
            table[places.index(noise), rows.index(row)] = value
        return Evidence(table, config.noises, rows)


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
