"""Read a ResNet of WeSpeaker: a directory with ``config.yaml`` and ``avg_model.pt``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from nip_audio.errors import InputError, ModelCardError
from nip_audio.models.safe_yaml import measured_first
from nip_audio.models.sources.base import (
    MOST_VALUES,
    SourceModel,
    SourceSpec,
    embedder,
    file_hash,
    read_plain,
)
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures
from nip_audio.models.sources.plain_weights import fit_weights, read_checkpoint, state_of
from nip_audio.models.sources.wespeaker_resnet import DEPTHS, POOLINGS, WeSpeakerResNet

__all__ = ["load", "read_settings"]

CONFIG, WEIGHTS = "config.yaml", "avg_model.pt"
_MAX_YAML_BYTES = 1 << 16
_ANCHOR = re.compile(
    rb"(^|[\s\[{,:-])&\w"
)  # a few lines of anchors may stand for billions of nodes
_FBANK = {"num_mel_bins": 80, "frame_length": 25, "frame_shift": 10, "dither": 0.0}
_MODEL = {"feat_dim": 80, "embed_dim": 256, "pooling_func": "TSTP", "two_emb_layer": False}


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:  # noqa: ARG001
    """Load a ResNet of WeSpeaker from a directory.

    Args:
        spec: Source ``wespeaker:DIRECTORY``; the option ``window`` (``hamming``, ``povey``) is that
            of the training.
        trust: Has no effect: no code is run.

    Raises:
        ModelCardError: If a file is missing, malformed or of another architecture.
    """
    options = spec.take({"window": "hamming"})
    directory = Path(spec.location)
    config_data, weights_data = (
        spec.verified(name, read_plain(directory, name)) for name in (CONFIG, WEIGHTS)
    )
    config = read_settings(config_data, directory / CONFIG)
    where = str(directory / CONFIG)
    name = str(config.get("model"))
    if name not in DEPTHS:
        raise ModelCardError(
            f"{where} describes the model {name!r}, expected one of {', '.join(DEPTHS)}; export "
            "others to ONNX and use onnx:FILE"
        )
    args = _values(config.get("model_args", {}), _MODEL, f"model_args in {where}")
    dataset = config.get("dataset_args") or config.get("feature_args") or {}
    fbank, rate = _features(dataset, where)
    if args["pooling_func"] not in POOLINGS:
        raise ModelCardError(
            f"{where} has the pooling {args['pooling_func']!r}, expected one of "
            f"{', '.join(POOLINGS)}; export the model to ONNX and use onnx:FILE"
        )
    if fbank["num_mel_bins"] != args["feat_dim"]:
        raise ModelCardError(
            f"{where} has {fbank['num_mel_bins']} mel bands and feat_dim {args['feat_dim']}, "
            "expected the same number; restore the file"
        )
    try:
        front_end = KaldiFbank(
            rate,
            bands=fbank["num_mel_bins"],
            window=options["window"],
            frame_length_ms=fbank["frame_length"],
            frame_shift_ms=fbank["frame_shift"],
        )
        network = measured_first(
            partial(
                WeSpeakerResNet,
                name,
                KaldiFeatures(front_end.band_range),
                bands=args["feat_dim"],
                embedding_dim=args["embed_dim"],
                pooling=args["pooling_func"],
                two_layers=args["two_emb_layer"],
            ),
            directory / CONFIG,
            most_values=MOST_VALUES,
        )
    except (InputError, RuntimeError, TypeError, ValueError, OverflowError) as err:
        raise ModelCardError(f"{where} describes no model ({err}); restore the file") from err
    weights = directory / WEIGHTS
    state = state_of(read_checkpoint(weights_data, weights), weights)
    # the classifier of the training speakers is not part of the embedding
    state = {key: value for key, value in state.items() if not key.startswith("projection.")}
    fit_weights(network, state, weights)
    return SourceModel(
        embedder(network, front_end),
        name=directory.resolve().name,
        sample_rate_hz=rate,
        files={CONFIG: file_hash(config_data), WEIGHTS: file_hash(weights_data)},
        architecture=f"{name} of WeSpeaker, {args['pooling_func']}, Kaldi filter bank of "
        f"{args['feat_dim']} bands",
        notes=(
            "Waveforms are not dithered, and the mean of each band is removed, as WeSpeaker does "
            "when it embeds a file.",
        ),
    )


def read_settings(data: bytes, path: Path) -> dict[str, Any]:
    """Read a small YAML file of plain values.

    Raises:
        ModelCardError: If it is large, malformed or no mapping.
    """
    if len(data) > _MAX_YAML_BYTES or _ANCHOR.search(data):
        raise ModelCardError(
            f"{path} has {len(data)} bytes, expected at most {_MAX_YAML_BYTES} and no anchors; "
            "restore the file"
        )
    try:
        config = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise ModelCardError(f"{path} is no YAML ({err}); restore the file") from err
    if not isinstance(config, dict):
        raise ModelCardError(f"{path} is no mapping; restore the file")
    return config


def _features(dataset: Any, where: str) -> tuple[dict[str, Any], int]:
    """Return the settings of the filter bank and the sample rate."""
    if not isinstance(dataset, Mapping):
        raise ModelCardError(f"dataset_args in {where} is no mapping; restore the file")
    front_end = dataset.get("frontend", "fbank")
    normalised = dataset.get("cmvn_args") or {}
    variance = not isinstance(normalised, Mapping) or normalised.get("norm_var", False)
    if front_end != "fbank" or variance:
        raise ModelCardError(
            f"{where} has the front end {front_end!r} with norm_var {variance}, expected fbank "
            "without; export the model to ONNX and use onnx:FILE"
        )
    fbank = _values(dataset.get("fbank_args", {}), _FBANK, f"fbank_args in {where}")
    rate = dataset.get("resample_rate", 16000)
    if isinstance(rate, bool) or not isinstance(rate, int) or not 4000 <= rate <= 192000:
        raise ModelCardError(f"{where} has the sample rate {rate!r}, expected 4000 to 192000")
    return fbank, rate


def _values(given: Any, known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fill in defaults; values must have the type of the default."""
    if not isinstance(given, Mapping):
        raise ModelCardError(f"{where} is no mapping; restore the file")
    for key, value in given.items():
        if key not in known:
            raise ModelCardError(
                f"{where} has {key!r}, expected one of {', '.join(known)}; export the model to "
                "ONNX and use onnx:FILE"
            )
        wanted = (int, float) if type(known[key]) in (int, float) else (type(known[key]),)
        if type(value) not in wanted:
            raise ModelCardError(
                f"{key} in {where} is {value!r}, expected a value such as {known[key]!r}"
            )
    return {**known, **given}
