"""The verbs of nip-audio, from screen and detect to enroll, fit_threshold and verify.

Each takes paths and a model, and returns a typed result. ``import nip_audio`` offers all of them.
A model is given by its name, by its directory, or as what ``load_model`` returned; load it once
when several calls use it.

>>> import nip_audio
>>> model = nip_audio.load_model("xvector-libri251")
>>> records = nip_audio.detect(["a.wav", "b.wav"], model=model)  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from nip_audio.attacks.registry import make_attack
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, read_audio
from nip_audio.audio.manifest import Recording
from nip_audio.errors import CalibrationError, InputError
from nip_audio.models.cards import DEFAULT_MODELS
from nip_audio.models.enrolment import Enrolment, VerificationResult, embed_audio, enrol
from nip_audio.models.enrolment import verify as verify_audio
from nip_audio.models.modalities import modality_of
from nip_audio.models.operating_point import Aim
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.registry import make_purifier
from nip_audio.reporting.examine import examiner_of_screening
from nip_audio.reporting.export import write_csv
from nip_audio.reporting.report import write_report
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.calibrating import calibrate as fit_calibration
from nip_audio.screening.calibrating import calibrate_with_attacks
from nip_audio.screening.calibration import Calibration, find_threshold
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.measure import default_config
from nip_audio.screening.pipeline import Screener, choose_seed
from nip_audio.screening.records import ScreenRecord
from nip_audio.screening.sources import Source, find_source
from nip_audio.workflows.attack import attack_file
from nip_audio.workflows.calibrate import without_attacks
from nip_audio.workflows.files import AttackGoal, FileGoal
from nip_audio.workflows.flagged import shipped_purifier
from nip_audio.workflows.recordings import AttackedFile, PurifiedAudio, purify_audio
from nip_audio.workflows.threshold import FittedThreshold
from nip_audio.workflows.threshold import fit_threshold as fit_to_trials
from nip_audio.workflows.trials import plan_trials

__all__ = [
    "attack",
    "calibrate",
    "detect",
    "embed",
    "enroll",
    "fit_threshold",
    "load_model",
    "purify",
    "screen",
    "verify",
]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = DEFAULT_MODELS["audio"]

AnyPath = str | PathLike[str]
AnyModel = AnyPath | PretrainedModel
AnyCalibration = AnyPath | Calibration
AnyThreshold = AnyPath | VerificationThreshold


def load_model(model: AnyModel = DEFAULT_MODEL) -> PretrainedModel:
    """Load a model, offline; its files are checked against the hashes in its card.

    Args:
        model: Name of a shipped model (``list_pretrained`` lists them), or a directory with a card.

    Raises:
        ModelCardError: If there is no such model, or its card is malformed.
        HashMismatchError: If a file differs from the card.
        UnsafeYamlError: If its description holds anything but the description of a model.
    """
    if isinstance(model, PretrainedModel):
        return model
    return load_pretrained(model if isinstance(model, str) else Path(model))


def screen(
    source: AnyPath,
    out: AnyPath,
    *,
    model: AnyModel = DEFAULT_MODEL,
    calibration: AnyCalibration | None = None,
    threshold_file: AnyThreshold | None = None,
    fpr: float | None = None,
    fdr: float | None = None,
    gate: AnyPath | GateLimits | bool = False,
    strict: bool = False,
    workers: int | None = None,
    report: bool = True,
    seed: int | None = None,
    data_root: str | None = None,
    speaker_from: str | None = None,
    follow_links: bool = False,
    progress: Callable[[str], None] = lambda file: None,
) -> ScreenedRun:
    """Judge every file of an enrolment folder, alone and beside its speaker's others.

    Called again with the same ``out`` it measures only what is new or has changed.

    Args:
        source: Folder with one sub-folder per speaker or flat, or a manifest of recordings.
        out: Folder for results.jsonl, speakers.jsonl, summary.json and the report.
        model: Model to screen for.
        calibration: What clean audio looks like; default: the one that comes with the model.
        threshold_file: Cosine from which recordings are of one voice, as ``fit_threshold`` returned
            it or its file; default: that of the calibration.
        fpr: False-positive rate on clean audio like the calibration's; default: 0.01, or the lowest
            that the calibration allows.
        fdr: Flag so that about this share of the flagged files is clean, instead of ``fpr``.
        gate: Also check what an enrolment needs: against the limits of a ``gate.toml``, or True for
            the defaults. Needs the extra ``gate``.
        strict: Make each failure of the gate a verdict, ``unfit``; otherwise it is a note. Without
            ``gate`` it takes the default limits.
        workers: Processes that measure; default: one per core.
        report: Write report.html and results.csv as well.
        seed: Seed of the detector's noise, to repeat a run; None is that of the run in ``out``, or
            else a secret one, which is written into summary.json.
        data_root: Folder or URL that replaces ``$data_root`` in a manifest.
        speaker_from: Where the speaker's name is in the paths of a folder, e.g.
            ``{speaker}/*/*`` (see ``SpeakerPattern``); default: the first sub-folder.
        follow_links: Read what symbolic links lead to outside the source as well.
        progress: Called with the id of each file that is done.

    Returns:
        The finished run: ``verdicts`` counts, ``flagged()`` lists, ``record(id)`` finds.

    Raises:
        InputError: If there is no file, a number makes no sense, or ``gate`` cannot be used.
        MissingDependencyError: If the gate is asked for and silero-vad is not installed.
        CalibrationError: If the model has no calibration, or it does not allow ``fpr``.
        ResumeError: If ``out`` holds a run with another model, seed or source.
        OutputError: If ``out`` cannot be written.
    """
    pretrained = load_model(model)
    judge = Calibration.of(pretrained, _calibration(calibration))
    if (fitted := _threshold(pretrained, threshold_file)) is not None:
        judge = judge.at(fitted)
    screener = Screener.from_pretrained(pretrained, judge, fpr, fdr=fdr)
    seed = choose_seed(seed, Path(out))
    screener = replace(
        screener,
        seed=seed,
        engine=LocalEngine(workers),
        gate=_gate(gate, Path(source), strict=strict),
    )
    modality = screener.kind.modality
    files = find_source(
        modality, Path(source), data_root, follow_links=follow_links, speaker_from=speaker_from
    )
    screener.screen(files, Path(out), progress=progress)
    run = ScreenedRun.open(Path(out))
    if report:
        write_report(run, files, examiner_of_screening(screener))
        write_csv(run)
    return run


def detect(
    files: AnyPath | Iterable[AnyPath],
    *,
    model: AnyModel = DEFAULT_MODEL,
    calibration: AnyCalibration | None = None,
    fpr: float | None = None,
    seed: int | None = None,
) -> list[ScreenRecord]:
    """Judge files one by one, without comparing them to each other.

    Args:
        files: One file or several.
        model: Model that an attack would be aimed at.
        calibration: What clean audio looks like; default: the one that comes with the model.
        fpr: False-positive rate on clean audio like the calibration's; default: 0.01, or the lowest
            that the calibration allows.
        seed: Seed of the detector's noise; None draws a secret one. Whoever knows it can compute
            the noise.

    Returns:
        One record a file; a file that cannot be read has the verdict ``error`` and says why.

    Raises:
        CalibrationError: If the model has no calibration, or it does not allow ``fpr``.
    """
    screener = Screener.from_pretrained(load_model(model), _calibration(calibration), fpr)
    paths = [files] if isinstance(files, str | PathLike) else files
    recordings = (Recording(str(path), Path(path)) for path in paths)
    return list(replace(screener, seed=choose_seed(seed)).judge_files(recordings))


def calibrate(
    sources: AnyPath | Iterable[AnyPath],
    *,
    model: AnyModel = DEFAULT_MODEL,
    clean_only: bool = False,
    names: bool | None = None,
    tolerated_noise_rms: float | None = None,
    draws: int = 1,
    seed: int = 0,
    description: str = "",
    keep_outliers: bool = False,
    progress: Callable[[Recording], None] = lambda recording: None,
) -> Calibration:
    """Learn what clean audio of your own looks like to a model, and attacks on it.

    The command of this name also fits a purifier to a model that has none, resumes, and tells what
    the calibration finds.

    Args:
        sources: Folders or manifests of clean recordings. 20 allow a false-positive rate of 5 %,
            99 one of 1 %. One sub-folder per speaker allows voices to be compared as well.
        model: Model to calibrate; for attacks it needs its guided purifier.
        clean_only: Make no attacks: quicker, and takes noise for an attack more often. Draws and
            tolerated noise belong to it, and imply it.
        names: Judge by the predicted speaker (the model's own speakers) or by the voice (anybody);
            default: by prediction where the model scores its speakers by logits.
        tolerated_noise_rms: Noise up to this rms (full scale is 1) shall be no alarm.
        draws: Draws of each noise for each file.
        seed: Seed of all random draws.
        description: What these files are, for the record.
        keep_outliers: With attacks, learn from files that look attacked as well; they are left out
            otherwise.
        progress: Called after each recording.

    Returns:
        The calibration; ``save(path)`` writes it. Files that were left out are in its
        ``failures``, and those to listen to in ``farthest``.

    Raises:
        CalibrationError: With fewer than 20 usable recordings, or if the model has no purifier.
    """
    pretrained = load_model(model)
    folders = [sources] if isinstance(sources, str | PathLike) else list(sources)
    files = [file for part in folders for file in _files(pretrained, Path(part))]
    told = description or ", ".join(Path(part).name for part in folders)
    plain = clean_only or draws != 1 or tolerated_noise_rms is not None
    if plain or without_attacks(pretrained) is not None:
        return fit_calibration(
            pretrained,
            files,
            modality_of(pretrained.card).reader(pretrained.card),
            default_config(pretrained, draws=draws),
            names=names,
            seed=seed,
            tolerated_noise_rms=tolerated_noise_rms,
            sources=told,
            progress=progress,
        )
    path = pretrained.card.purifier_path
    if path is None:
        raise CalibrationError(
            f"model {pretrained.card.name} comes without a purifier, expected one to calibrate "
            "with attacks; use the command nip-audio calibrate, which fits one first, or pass "
            "clean_only=True"
        )
    return calibrate_with_attacks(
        pretrained,
        files,
        _reader(pretrained),
        GuidedNip.load(path, model_id=pretrained.model_id),
        names=names,
        seed=seed,
        sources=told,
        keep_outliers=keep_outliers,
        progress=progress,
    ).calibration


def purify(
    file: AnyPath | Audio,
    *,
    model: AnyModel = DEFAULT_MODEL,
    purifier: AnyPath | Purifier | None = None,
    method: str = "guided",
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> PurifiedAudio:
    """Remove an adversarial perturbation from one recording; the file itself is not changed.

    Args:
        file: Recording, as a file or as ``read_audio`` returned it.
        model: Model to defend.
        purifier: Fitted purifier, as a file or an object; default: the one that comes with the
            model, for the method ``guided``.
        method: Name of the purifier; the command ``nip-audio purify --help`` lists them.
        settings: Settings of the method, e.g. ``{"snr_db": 20}`` for ``noise``.
        seed: Seed of a random method; None draws a secret one, which the result has. Anyone who
            knows it can foresee the method's draws.

    Returns:
        The purified recording with the model's predictions before and after; ``write(path)``
        writes it.

    Raises:
        AudioError: If the file cannot be used.
        InputError: If the model comes without a purifier and none is given.
    """
    pretrained = load_model(model)
    audio = _read(pretrained, file)
    chosen = purifier if isinstance(purifier, Purifier) else None
    if chosen is None and purifier is None and method == "guided" and not settings:
        chosen = shipped_purifier(pretrained)
    if chosen is None:
        given = dict(settings or {}) | ({} if purifier is None else {"path": Path(str(purifier))})
        model_id = pretrained.model_id
        chosen = make_purifier(method, model=pretrained.model, model_id=model_id, settings=given)
    return purify_audio(pretrained, chosen, audio, seed=choose_seed(seed))


def attack(
    file: AnyPath,
    out: AnyPath,
    *,
    model: AnyModel = DEFAULT_MODEL,
    method: str = "pgd",
    eps: float | None = 0.002,
    settings: Mapping[str, Any] | None = None,
    goal: FileGoal = "reject",
    enrolment: Enrolment | None = None,
    speaker: str | None = None,
    target: str | None = None,
    threshold: float | None = None,
    seed: int = 0,
    force: bool = False,
) -> AttackedFile:
    """Make an adversarial copy of a recording of your own, to test a defence with.

    Args:
        file: Clean recording.
        out: File to write (.wav or .flac); a JSON file with the details is written beside it.
        model: Model to attack.
        method: Name of the attack; the command ``nip-audio attack --help`` lists them.
        eps: Largest change of a sample, where full scale is 1; None for attacks without a bound.
        settings: Settings of the attack, e.g. ``{"steps": 40}``.
        goal: ``accept`` or ``reject`` (of ``speaker``), or ``misidentify``. Without a speaker or a
            target, ``reject`` means: no longer to be verified against the recording itself.
        enrolment: Enrolled voices, among them ``speaker``.
        speaker: Enrolled speaker the goal is about.
        target: Label of the model to be classified as.
        threshold: Cosine from which the system accepts; default: that of the model's calibration.
        seed: Seed of the attack's random start.
        force: Overwrite ``out``.

    Raises:
        AudioError: If the file cannot be used.
        AttackError: If the attack is unknown or cannot work on this model.
        OutputError: If ``out`` exists and ``force`` is false.
    """
    pretrained = load_model(model)
    if threshold is None and target is None and goal != "misidentify":
        threshold = find_threshold(pretrained)
    done: AttackedFile = attack_file(
        pretrained,
        Path(file),
        Path(out),
        make_attack(method, eps=eps, settings=settings),
        AttackGoal(threshold, goal, enrolment, speaker, target),
        _reader(pretrained),
        seed=seed,
        force=force,
    )
    return done


def embed(file: AnyPath | Audio, *, model: AnyModel = DEFAULT_MODEL) -> Tensor:
    """Return the embedding of one recording.

    Args:
        file: Recording, as a file or as ``read_audio`` returned it.
        model: Model that embeds.

    Returns:
        (D,) of unit length; the dot product of two embeddings is their cosine.

    Raises:
        AudioError: If the file cannot be used.
    """
    pretrained = load_model(model)
    audio = _read(pretrained, file)
    return embed_audio(pretrained, audio.samples)


def enroll(source: AnyPath, *, model: AnyModel = DEFAULT_MODEL) -> Enrolment:
    """Enrol the speakers of a folder or manifest; screen it first, and leave out what was flagged.

    Args:
        source: Folder with one sub-folder per speaker, or a manifest that names speakers.
        model: Model that embeds.

    Returns:
        The enrolled voices; ``save(path)`` writes them. Unusable files are in its ``failures``.

    Raises:
        EnrolmentError: If a recording has no speaker, or nobody could be enrolled.
    """
    pretrained = load_model(model)
    return enrol(pretrained, list(_files(pretrained, Path(source))), _reader(pretrained))


def verify(
    file: AnyPath | Audio,
    enrolment: Enrolment,
    speaker: str,
    *,
    model: AnyModel = DEFAULT_MODEL,
    threshold: float | None = None,
    calibration: AnyCalibration | None = None,
    plda: Plda | None = None,
    threshold_file: AnyThreshold | None = None,
    prior: float | None = None,
) -> VerificationResult:
    """Verify that a recording is an enrolled speaker's.

    Args:
        file: Recording, as a file or as ``read_audio`` returned it.
        enrolment: Enrolled voices of the same model.
        speaker: Speaker who is claimed.
        model: Model that embeds.
        threshold: Score from which the claim is accepted; default: that of the PLDA, or of the
            calibration.
        calibration: Calibration with a threshold; default: the one that comes with the model.
        plda: Back end that scores by log-likelihood ratio instead of the cosine.
        threshold_file: Threshold that was set on trials, as ``fit_threshold`` returned it or its
            file, instead of any other. The result then has a calibrated log-likelihood ratio.
        prior: Prior probability of a true claim, for a probability from this ratio.

    Raises:
        AudioError: If the file cannot be used.
        EnrolmentError: If the speaker is not enrolled.
        CalibrationError: If there is no threshold, or both a calibration and a PLDA are given.
        InputError: If the threshold given is not finite, several are given, or there is a prior
            without a threshold that was set on trials.
    """
    pretrained = load_model(model)
    audio = _read(pretrained, file)
    fitted = _threshold(pretrained, threshold_file)
    if prior is not None and fitted is None:
        raise InputError(
            "got a prior without threshold_file, expected both: only a threshold that was set on "
            "trials turns scores into probabilities; make one with fit_threshold"
        )
    threshold = find_threshold(
        pretrained, _calibration(calibration), threshold, plda, fitted=fitted
    )
    result = verify_audio(pretrained, audio, enrolment, speaker, threshold=threshold, plda=plda)
    return result if fitted is None else fitted.judge(result.score, prior=prior)


def fit_threshold(
    trials: AnyPath,
    *,
    model: AnyModel = DEFAULT_MODEL,
    far: float | None = None,
    prior: float | None = None,
    c_miss: float = 1.0,
    c_false_alarm: float = 1.0,
    enrol: int = 1,
    plda: Plda | None = None,
    recordings: AnyPath | None = None,
    data_root: str | None = None,
    cache: AnyPath | None = None,
    rounds: int = 1000,
    seed: int = 0,
    description: str = "",
    progress: Callable[[Recording], None] = lambda recording: None,
) -> FittedThreshold:
    """Set a verification threshold on recordings of your own.

    ``find_operating_point`` does the same with scores that you have already.

    Args:
        trials: Trial list (VoxCeleb's, SpeechBrain's, Kaldi's or CSV), or a folder with one
            sub-folder per speaker or a manifest, of which all pairs are trials.
        model: Model that embeds.
        far: False-acceptance rate that is not to be exceeded; default: the equal error rate.
        prior: Prior probability of a true claim, whose expected cost is to be least, instead.
        c_miss: Cost of a false rejection.
        c_false_alarm: Cost of a false acceptance.
        enrol: Recordings that a voice is enrolled from; with a trial list 1.
        plda: Back end that scores by log-likelihood ratio instead of the cosine.
        recordings: Manifest whose ids a trial list names.
        data_root: Folder or URL that the names of a list are below, or that replaces
            ``$data_root`` in a manifest.
        cache: Folder that keeps embeddings, so that an interrupted run goes on.
        rounds: Resamples of speakers.
        seed: Seed of the resampling.
        description: What these recordings are, for the record.
        progress: Called after each recording.

    Returns:
        ``threshold``, whose ``save(path)`` writes the file; ``point``, what was measured;
        ``warnings``, what makes the numbers lie; ``failures``, files that were left out.

    Raises:
        InputError: If the trials cannot be read, or do not allow a threshold.
    """
    pretrained = load_model(model)
    source = Path(trials)
    plan = plan_trials(
        source,
        lambda: find_source(modality_of(pretrained.card), source, data_root, follow_links=False),
        enrol=enrol,
        recordings=None if recordings is None else Path(recordings),
        data_root=data_root,
    )
    return fit_to_trials(
        pretrained,
        plan,
        _reader(pretrained),
        aim=Aim(far, prior, c_miss, c_false_alarm),
        plda=plda,
        cache=None if cache is None else Path(cache),
        rounds=rounds,
        seed=seed,
        sources=description or source.name,
        progress=progress,
    )


def _threshold(
    pretrained: PretrainedModel, given: AnyThreshold | None
) -> VerificationThreshold | None:
    if given is None:
        return None
    chosen = given if isinstance(given, VerificationThreshold) else Path(given)
    return VerificationThreshold.of(chosen, model_id=pretrained.model_id)


def _calibration(given: AnyCalibration | None) -> Calibration | Path | None:
    return given if given is None or isinstance(given, Calibration) else Path(given)


def _gate(
    given: AnyPath | GateLimits | bool, source: Path, *, strict: bool
) -> EnrolmentGate | None:
    if given is False and not strict:
        return None
    if isinstance(given, bool):
        return EnrolmentGate.at(outside=source, strict=strict)
    limits = given if isinstance(given, GateLimits) else Path(given)
    return EnrolmentGate.at(limits, outside=source, strict=strict)


def _reader(pretrained: PretrainedModel) -> WaveformAdapter:
    return WaveformAdapter.at(pretrained.card.sample_rate_hz)


def _read(pretrained: PretrainedModel, file: AnyPath | Audio) -> Audio:
    return file if isinstance(file, Audio) else read_audio(Path(file), _reader(pretrained).settings)


def _files(pretrained: PretrainedModel, source: Path) -> Source:
    modality = modality_of(pretrained.card)
    found = find_source(modality, source, None, follow_links=False)
    for note in found.survey().notes(modality):
        logger.warning("%s", note)
    return found
