"""Read WeSpeaker's ResNets as pyannote.audio publishes them, without pyannote.audio.

The file is a checkpoint of Lightning: a state dict whose names begin with ``resnet.``, and objects
that say which class of pyannote.audio it belongs to. None of these classes is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nip_audio.errors import InputError, ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, embedder, file_hash, read_plain
from nip_audio.models.sources.hub import (
    HubDirectory,
    hub_directory,
    local_directory,
    split_hub_id,
)
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures
from nip_audio.models.sources.plain_weights import fit_weights, read_checkpoint, state_of
from nip_audio.models.sources.wespeaker_resnet import WeSpeakerResNet

__all__ = ["load"]

WEIGHTS = "pytorch_model.bin"
_PREFIX = "resnet."
_CLASSES = {f"WeSpeakerResNet{depth}": f"ResNet{depth}" for depth in (34, 152, 221, 293)}
# what pyannote.audio writes beside the weights: what the model was trained for, and versions
_IGNORED = (
    "pyannote.audio.core.model.Introspection",
    "pyannote.audio.core.task.Problem",
    "pyannote.audio.core.task.Resolution",
    "pyannote.audio.core.task.Specifications",
    "torch.torch_version.TorchVersion",
)
_SIZES = {"sample_rate": (4000, 192_000), "num_mel_bins": (4, 1000)}
_EXPECTED = {  # settings of the features that this reader has; others are refused
    "num_channels": 1,
    "frame_length": 25,
    "frame_shift": 10,
    "round_to_power_of_two": True,
    "snip_edges": True,
    "dither": 0.0,
    "use_energy": False,
    "fbank_centering_span": None,
}


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:  # noqa: ARG001
    """Load a speaker embedding of pyannote.audio from a directory or from the hub.

    Args:
        spec: Source ``pyannote:DIRECTORY`` or ``pyannote:OWNER/NAME[@REVISION]``.
        trust: Has no effect: no code is run.

    Raises:
        ModelCardError: If there is no such model, or its checkpoint is another one's.
    """
    spec.take({})
    place = _place(spec.location)
    path = place.directory / WEIGHTS
    data = spec.verified(WEIGHTS, read_plain(place.directory, WEIGHTS, root=place.root))
    checkpoint = read_checkpoint(data, path, ignored=_IGNORED)
    depth = _depth(checkpoint, path)
    settings = _settings(checkpoint, path)
    try:
        front_end = KaldiFbank(
            settings["sample_rate"], bands=settings["num_mel_bins"], window=settings["window_type"]
        )
        network = WeSpeakerResNet(
            depth,
            KaldiFeatures(front_end.band_range),
            bands=settings["num_mel_bins"],
            variance_floor=0.0,
        )
    except (InputError, TypeError, ValueError, RuntimeError) as err:
        raise ModelCardError(f"{path} describes no model ({err}); restore the file") from err
    state = state_of(checkpoint, path)
    kept = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    fit_weights(network, kept, path)
    commit = f" at commit {place.commit}" if place.commit else ""
    return SourceModel(
        embedder(network, front_end),
        name=spec.location if place.commit else place.directory.resolve().name,
        sample_rate_hz=settings["sample_rate"],
        files={WEIGHTS: file_hash(data)},
        architecture=f"{depth} of WeSpeaker as in pyannote.audio, TSTP, Kaldi filter bank of "
        f"{settings['num_mel_bins']} bands",
        notes=(f"Read from {place.directory}{commit}.",),
    )


def _place(location: str) -> HubDirectory:
    directory = local_directory(location)
    if directory is not None:
        return HubDirectory(directory, "", directory)
    hub_id, revision = split_hub_id(location)
    return hub_directory(hub_id, revision, files=[WEIGHTS])


def _depth(checkpoint: Any, path: Path) -> str:
    """Return the architecture that the checkpoint names."""
    described = checkpoint.get("pyannote.audio") if isinstance(checkpoint, Mapping) else None
    architecture = described.get("architecture") if isinstance(described, Mapping) else None
    name = architecture.get("class") if isinstance(architecture, Mapping) else None
    if name not in _CLASSES:
        raise ModelCardError(
            f"{path} is a checkpoint of {name or 'no class of pyannote.audio'}, expected one of "
            f"{', '.join(_CLASSES)}; a checkpoint of WeSpeaker itself is read by "
            "wespeaker:DIRECTORY"
        )
    return _CLASSES[name]


def _settings(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the sample rate, the bands and the window; they default to pyannote.audio's."""
    given = checkpoint.get("hyper_parameters", {})
    if not isinstance(given, Mapping):
        raise ModelCardError(f"hyper_parameters in {path} is no mapping; restore the file")
    settings = {"sample_rate": 16000, "num_mel_bins": 80, "window_type": "hamming"}
    for key, value in given.items():
        if key in settings:
            settings[key] = value
        elif key in _EXPECTED and value != _EXPECTED[key]:
            raise ModelCardError(
                f"{path} was trained with {key} = {value!r}, expected {_EXPECTED[key]!r}; export "
                "the model to ONNX and use onnx:FILE"
            )
    for key, (low, high) in _SIZES.items():
        size = settings[key]
        if not isinstance(size, int) or not low <= size <= high:
            raise ModelCardError(
                f"{path} has {key} = {size!r}, expected a whole number of {low} to "
                f"{high}; restore the file"
            )
    return settings
