"""Find the inputs of a command: model, calibration and files. Imports most of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nip_audio.audio.manifest import Recording
from nip_audio.cli._console import print_note
from nip_audio.cli._options import Modality
from nip_audio.core.modality import Modality as AnyModality
from nip_audio.core.modality import Reader
from nip_audio.errors import InputError
from nip_audio.models.cards import DEFAULT_MODELS
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.engines.base import Engine
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.sources import find_source
from nip_audio.screening.survey import Survey


def load_model(model: str | None, modality: Modality | None) -> PretrainedModel:
    """Load the model given, or the default model of a modality.

    Raises:
        InputError: If the model takes another modality than the one given.
    """
    default = DEFAULT_MODELS[(modality or Modality.audio).value]
    pretrained = load_pretrained(default if model is None else model)
    require_modality(pretrained, modality)
    return pretrained


def require_modality(pretrained: PretrainedModel, modality: Modality | None) -> None:
    """Refuse a model of another modality than the one given.

    Raises:
        InputError: If the model takes another modality; None accepts every model.
    """
    takes = pretrained.card.modality
    if modality is not None and takes != modality.value:
        raise InputError(
            f"{pretrained.card.name} takes modality {takes}, but --modality is {modality.value}; "
            "choose another --model (nip-audio models lists them)"
        )


def make_reader(
    pretrained: PretrainedModel, max_duration_s: float | None, channel: int | None = None
) -> Reader:
    """Return the reader of the files that this model takes: recordings or images."""
    card = pretrained.card
    return modality_of(card).reader(card, max_duration_s=max_duration_s, channel=channel)


def refuse_options(pretrained: PretrainedModel, command: str, given: Mapping[str, object]) -> None:
    """Refuse options of a command that do not apply to the files that a model takes.

    Args:
        pretrained: Model to use.
        command: Name of the command.
        given: Value of each option that may not apply; None if it was not given.

    Raises:
        InputError: If an option was given that does not apply.
    """
    modality = modality_of(pretrained.card)
    missing = modality.missing_options.get(command, frozenset())
    named = [name for name, value in given.items() if value is not None and name in missing]
    if named:
        raise InputError(
            f"{pretrained.card.name} takes {modality.plural} and got {', '.join(named)}, expected "
            f"no option that does not apply to {modality.plural}; leave it out"
        )


def make_screener(
    pretrained: PretrainedModel,
    calibration: Path | None,
    *,
    command: str,
    fpr: float | None,
    fdr: float | None = None,
    seed: int,
    max_duration_s: float | None,
    channel: int | None = None,
    engine: Engine | None = None,
    fitted: VerificationThreshold | None = None,
) -> Screener:
    """Make the screener that detect, screen and serve use."""
    named: dict[str, object] = {"--max-duration": max_duration_s, "--channel": channel}
    refuse_options(pretrained, command, named)
    judge = Calibration.of(pretrained, calibration)
    if fitted is not None:
        judge = judge.at(fitted)
    screener = Screener.from_pretrained(pretrained, judge, fpr, fdr=fdr)
    reader = make_reader(pretrained, max_duration_s, channel)
    return replace(screener, adapter=reader, seed=seed, engine=engine or LocalEngine())


def make_gate(given: str, *, outside: Path | None = None, strict: bool = False) -> EnrolmentGate:
    """Make the enrolment gate that screen and serve use.

    Args:
        given: Path of a TOML file of limits, or ``defaults``.
        outside: Folder that is screened, in which the file must not lie; None if there is none.
        strict: Whether a failure is a verdict, or a note only.

    Raises:
        InputError: If the file cannot be used.
    """
    limits = None if given == "defaults" else Path(given)
    return EnrolmentGate.at(limits, outside=outside, strict=strict)


def load_fitted(pretrained: PretrainedModel, path: Path | None) -> VerificationThreshold | None:
    """Load the file of ``--threshold-file``; None if it was not given.

    Raises:
        StateError: If it is for another model, or cannot be read.
    """
    if path is None:
        return None
    return VerificationThreshold.load(path, model_id=pretrained.model_id)


def find_files(
    pretrained: PretrainedModel,
    source: Path,
    data_root: str | None,
    *,
    follow_links: bool,
    speaker_from: str | None = None,
) -> list[Recording]:
    """List the files that a model takes: those of a folder, or the recordings of a manifest.

    What the folder holds besides is told on standard error.

    Raises:
        InputError: If images are not given as a folder, or recordings neither as a folder nor as a
            manifest.
    """
    modality = modality_of(pretrained.card)
    found = find_source(
        modality, source, data_root, follow_links=follow_links, speaker_from=speaker_from
    )
    print_survey(found.survey(), modality)
    return list(found)


def print_survey(survey: Survey, modality: AnyModality) -> None:
    """Tell what a folder holds besides the files to read."""
    for note in survey.notes(modality):
        print_note(note)


def print_enrolled(
    fitted: VerificationThreshold | None, voices: Enrolment, speakers: Sequence[str]
) -> None:
    """Tell if voices are enrolled from more or fewer recordings than a threshold was set for."""
    if fitted is None:
        return
    note = fitted.note([len(voices.embeddings_of(speaker)) for speaker in speakers])
    if note is not None:
        print_note(note)
