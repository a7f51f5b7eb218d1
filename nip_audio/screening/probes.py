"""Say what is measured of a file for a detector, and with which files it is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.nccr import NccrConfig
from nip_audio.purifiers.nip_guided import GuidedNip

__all__ = ["NccrProbe", "Place", "Probe", "ResponseProbe"]


@dataclass(frozen=True)
class NccrProbe:
    """How noise changes the neurons and the decision, for a file as a whole.

    Attributes:
        config: Settings of NCCR (neuron coverage change rate).
        names: Whether the decision is the predicted label. If not, it is the embedding, for voices
            that the model was not trained on.
    """

    config: NccrConfig
    names: bool

    def to_json(self) -> dict[str, Any]:
        """Return everything that a measurement depends on."""
        return {"nccr": self.config.to_json(), "names": self.names}


@dataclass(frozen=True)
class ResponseProbe:
    """How a purifier responds to each window of a file; see ``purifiers.response``.

    Attributes:
        config: Noise of the copies, and layers whose neurons are compared.
        names: Whether the margins of the predicted label are measured.
        purifier: Purifier whose response is measured.
        window_s: Largest length of a window in seconds.
    """

    config: NccrConfig
    names: bool
    purifier: GuidedNip
    window_s: float

    def to_json(self) -> dict[str, Any]:
        """Return everything that a measurement depends on."""
        return {
            "nccr": self.config.to_json(),
            "names": self.names,
            "purifier": fingerprint(self.purifier.settings()),
            "window_s": self.window_s,
        }


Probe = NccrProbe | ResponseProbe


@dataclass(frozen=True)
class Place:
    """With which clean files a file is compared.

    Attributes:
        narrow: Whether it holds no more than the band of a telephone.
        windows: Number of its windows, those of single channels included; the worst one counts.
    """

    narrow: bool = False
    windows: int = 1
