"""Export a model, or the guided purifier of a model, to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nip_audio.audio.front_ends import SpectralFrontEnd
from nip_audio.core.state import require_new
from nip_audio.errors import InputError
from nip_audio.models.exporting import (
    EMBEDDING,
    PURIFIED,
    SPECTROGRAM,
    WAVEFORM,
    export_onnx,
    export_purifier,
)
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.nip_guided import GuidedNip

__all__ = ["Exported", "Part", "export_part"]

Part = Literal["model", "purifier"]
"""What is exported: a model, or the guided purifier of a model."""


@dataclass(frozen=True)
class Exported:
    """A graph that was written.

    Attributes:
        out: File of the graph.
        part: What it holds.
        model: Name of the model.
        model_id: Identity of the model.
        sample_rate_hz: Sample rate of the model's waveforms.
        takes: Name of the graph's input.
        returns: Name of the graph's output.
    """

    out: Path
    part: Part
    model: str
    model_id: str
    sample_rate_hz: int
    takes: str
    returns: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "out": str(self.out)}


def export_part(
    pretrained: PretrainedModel,
    path: Path,
    *,
    part: Part = "model",
    purifier: Path | None = None,
    force: bool = False,
) -> Exported:
    """Write a model, or its guided purifier, as an ONNX graph.

    Args:
        pretrained: Model.
        path: File to write; its folder must exist.
        part: What to export.
        purifier: File of a guided purifier of this model; None takes the one that comes with it.
        force: Whether an existing file is overwritten.

    Raises:
        InputError: If the model or the purifier cannot be exported, or there is no purifier.
        ModelCardError: If the model takes images.
        OutputError: If the file exists and ``force`` is false, or it cannot be written.
        StateError: If the purifier cannot be read, or belongs to another model.
        MissingDependencyError: If onnx or onnxscript is not installed.
    """
    card, front_end = pretrained.card, pretrained.model.front_end
    require_new(path, force=force)
    if part == "model":
        export_onnx(pretrained, path, force=force)
        takes, returns = WAVEFORM, EMBEDDING
    else:
        file = purifier or card.purifier_path
        if file is None:
            raise InputError(
                f"model {card.name} comes without a guided purifier; pass `purifier=FILE` "
                "(nip-audio fit-purifier makes one)"
            )
        if not isinstance(front_end, SpectralFrontEnd):
            raise InputError(
                f"the input of {card.name} is not a spectrogram of bands but comes from "
                f"{type(front_end).__name__}, expected bands; only such purifiers are exported"
            )
        export_purifier(
            GuidedNip.load(file, model_id=pretrained.model_id),
            path,
            bands=len(front_end.framing.band_centres_hz),
            model_id=pretrained.model_id,
            force=force,
        )
        takes, returns = SPECTROGRAM, PURIFIED
    return Exported(path, part, card.name, pretrained.model_id, card.sample_rate_hz, takes, returns)
