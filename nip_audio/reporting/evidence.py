"""What a verdict rests on, as a table: noises, and what they change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.decision import evidence_names
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measured import Measurement, PictureMeasurement
from nip_audio.screening.records import ScreenRecord

__all__ = ["Evidence", "require_unchanged"]


@dataclass(frozen=True)
class Evidence:
    """How unusual each thing is that was measured of a file.

    Attributes:
        table: Robust deviations from clean files, (noises, rows); None without a calibration.
        noises: The detector's.
        rows: Names of the layers and of the changes of the decision.
    """

    table: NDArray[np.float64] | None = None
    noises: tuple[Noise, ...] = ()
    rows: tuple[str, ...] = ()

    @staticmethod
    def of(calibration: Calibration, measured: Measurement | PictureMeasurement) -> Evidence:
        """Return the evidence of a measurement, by the calibration it was judged with."""
        config = calibration.config
        deviations = calibration.detector.explain(
            calibration.rates.transform([measured.evidence])[0]
        )
        names = [name.split(" | ") for name in evidence_names(config, head=calibration.names)]
        rows = tuple(dict.fromkeys(row for _, row in names))
        places = [noise.name for noise in config.noises]
        table = np.full((len(places), len(rows)), np.nan)
        for (noise, row), value in zip(names, deviations, strict=True):
            table[places.index(noise), rows.index(row)] = value
        return Evidence(table, config.noises, rows)


def require_unchanged(
    record: ScreenRecord, sha256: str, path: Path | str, error: type[FileError]
) -> None:
    """Refuse to show a file under a verdict that another one got.

    Args:
        record: What the run says of the file.
        sha256: Of the file as it is now.
        path: Where it lies.
        error: Of its kind.

    Raises:
        FileError: If it is not what was screened.
    """
    if sha256 != record.sha256:
        raise error(
            path,
            code="changed",
            found="the file is not the one that was screened: its SHA-256 is another",
            remedy="screen again",
        )
