"""Find what a command works with: model, calibration, files; imports most of the library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording, read_recordings, walk_audio, walk_files
from nip_audio.cli._options import DEFAULT_MODEL, DEFAULT_PICTURE_MODEL, Modality
from nip_audio.errors import CalibrationError, InputError
from nip_audio.image.adapter import IMAGE_SUFFIXES, ImageAdapter
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.calibration import Calibration, choose_calibration
from nip_audio.screening.engines.base import Engine
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.judge import Judge
from nip_audio.screening.kinds import Images
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.reading import Kind
from nip_audio.screening.sources import FolderSource, ManifestSource, Source


def load_model(model: str | None, modality: Modality | None) -> PretrainedModel:
    """Load the model asked for, or the default one of a modality.

    Raises:
        InputError: As ``require_modality``.
    """
    default = DEFAULT_PICTURE_MODEL if modality is Modality.image else DEFAULT_MODEL
    pretrained = load_pretrained(default if model is None else model)
    require_modality(pretrained, modality)
    return pretrained


def require_modality(pretrained: PretrainedModel, modality: Modality | None) -> None:
    """Refuse a model of another modality than the one asked for.

    Raises:
        InputError: If it is one.
    """
    takes = pretrained.card.modality
    if modality is not None and takes != modality.value:
        raise InputError(
            f"{pretrained.card.name} is of modality {takes}, asked for was {modality.value}; "
            "choose another --model (nip-audio models lists them)"
        )


def make_adapter(pretrained: PretrainedModel, max_duration_s: float | None) -> WaveformAdapter:
    """Return how recordings are read for this model."""
    rate = pretrained.card.sample_rate_hz
    settings = ReadSettings(sample_rate_hz=rate)
    if max_duration_s is not None:
        settings = replace(settings, max_duration_s=max_duration_s)
    return WaveformAdapter(settings)


def make_reader(
    pretrained: PretrainedModel, max_duration_s: float | None
) -> WaveformAdapter | ImageAdapter:
    """Return how files of the kind that this model takes are read."""
    if pretrained.card.modality == "image":
        return ImageAdapter(*pretrained.card.image_shape)
    return make_adapter(pretrained, max_duration_s)


def refuse_of_audio(pretrained: PretrainedModel, given: Mapping[str, object]) -> None:
    """Refuse options that say nothing of pictures, where the model takes pictures.

    Args:
        pretrained: The model.
        given: By the option's name its value; None are those not given.

    Raises:
        InputError: If one is given.
    """
    named = [name for name, value in given.items() if value is not None]
    if named and pretrained.card.modality == "image":
        raise InputError(
            f"{pretrained.card.name} takes pictures and got {', '.join(named)}, expected no option "
            "that is for audio alone; leave it out"
        )


def find_calibration(pretrained: PretrainedModel, path: Path | None) -> Calibration:
    """Load the calibration asked for, or the one that came with the model."""
    chosen = choose_calibration(pretrained, path)
    return Calibration.load(chosen, model_id=pretrained.model_id)


def find_threshold(
    pretrained: PretrainedModel, path: Path | None, asked: float | None, plda: Plda | None = None
) -> float:
    """Return the verification threshold asked for, or the PLDA's, or the calibration's."""
    if plda is not None and path is not None:
        raise CalibrationError(
            "a calibration's threshold is a cosine, --plda scores by log-likelihood ratio; pass "
            "only one of --calibration and --plda"
        )
    if asked is not None:
        if not math.isfinite(asked):
            raise InputError(f"--threshold is {asked}, expected a number, e.g. a cosine of 0.4")
        return asked
    if plda is not None:
        if plda.threshold is None:
            raise CalibrationError(
                "the PLDA has no threshold; pass --threshold, or fit it with --calibrate"
            )
        return plda.threshold
    calibrated = find_calibration(pretrained, path).verification_threshold
    if calibrated is None:
        raise CalibrationError(
            "the calibration knows no speaker twice, so it has no threshold; pass --threshold"
        )
    return calibrated


def make_screener(
    pretrained: PretrainedModel,
    calibration: Path | None,
    *,
    fpr: float,
    fdr: float | None = None,
    seed: int,
    max_duration_s: float | None,
    engine: Engine | None = None,
) -> Screener:
    """Put together what detect and screen judge with."""
    refuse_of_audio(pretrained, {"--max-duration": max_duration_s})
    judge = Judge(find_calibration(pretrained, calibration), fpr, fdr)
    adapter = make_reader(pretrained, max_duration_s)
    return Screener(pretrained, judge, adapter, seed, engine or LocalEngine())


def find_source(kind: Kind, source: Path, data_root: str | None, *, follow_links: bool) -> Source:
    """Return a folder, or a manifest of recordings, as something to screen.

    Raises:
        InputError: If pictures do not come as a folder.
    """
    if isinstance(kind, Images) and (data_root is not None or not source.is_dir()):
        raise InputError(
            f"pictures are screened as a folder, got {source}"
            f"{'' if data_root is None else ' and --data-root'}; give the folder that holds them"
        )
    if source.is_dir() or not source.suffix:
        return FolderSource(source, follow_links, kind.suffixes)
    recordings = read_recordings(source, data_root=data_root, follow_links=follow_links)
    return ManifestSource(source, recordings)


def find_recordings(source: Path, data_root: str | None, *, follow_links: bool) -> list[Recording]:
    """List a folder's recordings, or a manifest's."""
    if source.is_dir() or not source.suffix:
        return list(walk_audio(source, follow_links=follow_links))
    return read_recordings(source, data_root=data_root, follow_links=follow_links)


def find_files(
    pretrained: PretrainedModel, source: Path, data_root: str | None, *, follow_links: bool
) -> list[Recording]:
    """List the files of the kind that a model takes: a folder's, or a manifest's recordings.

    Raises:
        InputError: If pictures do not come as a folder, or recordings neither as that nor as a
            manifest.
    """
    if pretrained.card.modality == "image":
        refuse_of_audio(pretrained, {"--data-root": data_root})
        return list(walk_files(source, IMAGE_SUFFIXES, follow_links=follow_links))
    return find_recordings(source, data_root, follow_links=follow_links)
