"""Attack and purify recordings; the 16-bit file that is written is what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nip_audio.attacks.objectives import Verification
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, to_16_bits, write_audio
from nip_audio.audio.quality import snr_db
from nip_audio.audio.resynthesis import ROUNDS
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import noise_generator
from nip_audio.workflows.files import (
    Assessment,
    AttackGoal,
    AttackRun,
    PlannedFile,
    Purified,
    Workflow,
    rounded,
)
from nip_audio.workflows.purified_sound import purify_samples

__all__ = ["AttackedFile", "PurifiedAudio", "PurifiedFile", "RecordingWorkflow", "purify_audio"]

_FULL_SCALE = 32767 / 32768


@dataclass(frozen=True)
class AttackedFile:
    """An attacked recording, as described in its JSON sidecar.

    Attributes:
        source: Path of the recording that was attacked.
        written: Path of the 16-bit file that was written.
        written_sha256: SHA-256 of the bytes of the written file.
        attack: Name and settings of the attack.
        aim: Goal of the attacker in words.
        threshold: Cosine from which the system accepts; None for a target label.
        score_before: Cosine, or score of the target, of the recording.
        score_after: Cosine, or score of the target, of the *written file*.
        succeeded_before: Whether the recording already reached the attacker's goal.
        fools: Whether the *written file* reaches the goal and the recording did not.
        linf: Largest absolute change of a sample in the written file.
        snr_db: Ratio of the recording to the change in the written file, in decibels.
        queries: Number of inputs that were scored.
        gradients: Number of inputs that were differentiated.
        seed: Seed of the random start.
        model_id: Identity of the attacked model.
    """

    source: str
    written: str
    written_sha256: str
    attack: dict[str, Any]
    aim: str
    threshold: float | None
    score_before: float
    score_after: float
    succeeded_before: bool
    fools: bool
    linf: float
    snr_db: float
    queries: float
    gradients: float
    seed: int
    model_id: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return rounded(asdict(self))

    @property
    def line(self) -> str:
        """Outcome in one line of text."""
        word = (
            "fools the model"
            if self.fools
            else "the recording fools the model without an attack"
            if self.succeeded_before
            else "does not fool the model"
        )
        return (
            f"{self.written}: {word} ({self.aim}; score {self.score_before:.3f} → "
            f"{self.score_after:.3f} in the written file, SNR {self.snr_db:.1f} dB)"
        )


@dataclass(frozen=True)
class PurifiedAudio:
    """A purified recording, assessed as the 16-bit file that holds it.

    Attributes:
        samples: (N,) samples in [-1, 1], exactly as in the file.
        sample_rate_hz: Sample rate of the recording and of the model.
        purifier: Settings of the purifier.
        seed: Seed of the purifier's randomness and the detector's noise.
        model_id: Identity of the model.
        before: Prediction and verdict for the original.
        after: Prediction and verdict for ``samples``.
        cosine: Cosine between the embeddings of the original and of ``samples``.
        snr_db: Ratio of the original to the change, in decibels; None if nothing changed.
        clipped_samples: Number of samples at full scale that were not so before.
        rounds: Number of corrections in the resynthesis from the spectrogram; None for a purifier
            of waveforms.
        change_asked: Mean absolute change of the spectrogram that the purifier requested, in units
            of the model's input; None for a purifier of waveforms.
        change_missed: Mean absolute difference between the requested spectrogram and that of
            ``samples``, since not every spectrogram belongs to a waveform with the original's
            phase; None for a purifier of waveforms.
        spectrogram_before: (F, T) model input of the original.
        spectrogram_after: (F, T) model input of ``samples``.
    """

    samples: Tensor
    sample_rate_hz: int
    purifier: Mapping[str, Any]
    seed: int
    model_id: str
    before: Assessment
    after: Assessment
    cosine: float
    snr_db: float | None
    clipped_samples: int
    rounds: int | None
    change_asked: float | None
    change_missed: float | None
    spectrogram_before: Tensor
    spectrogram_after: Tensor

    @property
    def speaker_changed(self) -> bool | None:
        """Whether the predicted speaker has changed; None if the model has no speakers."""
        if self.before.label is None:
            return None
        return self.before.label != self.after.label

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write the purified recording as a 16-bit WAV or FLAC file.

        Args:
            path: File to write.
            force: Overwrite an existing file.

        Raises:
            InputError: If the name has another ending.
            OutputError: If the file exists and ``force`` is false, or cannot be written.
        """
        write_audio(Path(path), self.samples, self.sample_rate_hz, force=force)

    def to_json(self) -> dict[str, Any]:
        """Return everything except samples and spectrograms as plain JSON values."""
        return rounded(
            {
                "purifier": dict(self.purifier),
                "before": _assessed(self.before),
                "after": _assessed(self.after),
                "renamed": self.speaker_changed,
                "cosine": self.cosine,
                "snr_db": self.snr_db,
                "clipped_samples": self.clipped_samples,
                "rounds": self.rounds,
                "change_asked": self.change_asked,
                "change_missed": self.change_missed,
                "sample_rate_hz": self.sample_rate_hz,
                "seed": self.seed,
                "model_id": self.model_id,
            }
        )


@dataclass(frozen=True)
class PurifiedFile:
    """A purified recording, as described in its sidecar.

    Attributes:
        planned: Paths of the recording and of its outputs.
        original: Original recording, as it was read.
        written_sha256: SHA-256 of the bytes of the written wav.
        model: Name of the model.
        result: Changes of the recording, and predictions before and after.
    """

    planned: PlannedFile
    original: Audio
    written_sha256: str
    model: str
    result: PurifiedAudio

    def to_json(self) -> dict[str, Any]:
        """Return the content of the sidecar as plain JSON values."""
        facts = {
            "source": str(self.planned.source),
            "source_sha256": self.original.sha256,
            "written": str(self.planned.written),
            "written_sha256": self.written_sha256,
            "duration_s": round(self.original.duration_s, 6),
            "changes": list(self.original.changes),
            "model": self.model,
        }
        return {**facts, **self.result.to_json()}

    @property
    def line(self) -> str:
        """Outcome in one line of text."""
        result = self.result
        before, after = _words(result.before), _words(result.after)
        heard = f"{before} → {after}; " if before else ""
        changed = "nothing changed" if result.snr_db is None else f"SNR {result.snr_db:.1f} dB"
        return f"{self.planned.written}: {heard}cosine {result.cosine:.2f}, {changed}"


@dataclass(frozen=True)
class RecordingWorkflow(Workflow):
    """What attacks and purifiers do with recordings."""

    start_bits: ClassVar[int] = 56

    reader: WaveformAdapter

    def attacked(self, run: AttackRun) -> AttackedFile:
        """Describe an attack by its written file."""
        audio, written, objective = run.item, run.written, run.objective
        delta = written.samples - audio.samples
        before, after = (
            bool(objective.succeeded(Batch(a.samples[None]))[0]) for a in (audio, written)
        )
        verifies = isinstance(objective, Verification)
        return AttackedFile(
            source=str(run.source),
            written=str(run.out),
            written_sha256=written.sha256,
            attack=run.attack,
            aim=_aim(run.goal),
            threshold=run.goal.threshold if verifies else None,
            score_before=_score(objective, audio.samples),
            score_after=_score(objective, written.samples),
            succeeded_before=before,
            fools=after and not before,
            linf=float(delta.abs().max()),
            snr_db=float(20 * torch.log10(audio.samples.norm() / delta.norm().clamp_min(1e-12))),
            queries=run.result.queries,
            gradients=run.result.gradients,
            seed=self.seed,
            model_id=self.pretrained.model_id,
        )

    def make(self, purifier: Purifier, item: Any, *, rounds: int = ROUNDS) -> Purified:
        """Purify one recording without assessing it.

        A purifier of spectrograms changes the waveform through ``resynthesize``.

        Args:
            purifier: Purifier that is applied.
            item: Recording at the model's sample rate, of any length.
            rounds: Number of corrections in ``resynthesize``, for a purifier of spectrograms.

        Raises:
            InputError: If the recording has another sample rate, or the purifier works on model
                input that is not a spectrogram.
        """
        rate = self.pretrained.card.sample_rate_hz
        if item.sample_rate_hz != rate:
            raise InputError(
                f"the recording is at {item.sample_rate_hz} Hz, this model expects {rate} Hz; read "
                "it at that rate"
            )
        generator = noise_generator(self.seed, item.content_sha256)
        model = self.pretrained.model
        return purify_samples(model, purifier, item.raw, generator=generator, rounds=rounds)

    @torch.no_grad()
    def compare(
        self,
        settings: Mapping[str, Any],
        item: Audio,
        before: Assessment,
        made: Purified,
        written: Audio,
    ) -> PurifiedAudio:
        """Compare a recording with the purified one, as read back from its 16-bit file.

        Args:
            settings: Settings of the purifier.
            item: Original recording.
            before: Prediction and verdict for the original.
            made: Output of the purifier.
            written: Purified recording, as read back from its 16-bit file.
        """
        model = self.pretrained.model
        old, new = (model.to_input(Batch(a.samples[None])).x[0] for a in (item, written))
        voices = [embed_audio(self.pretrained, a.samples) for a in (item, written)]
        changed = not torch.equal(item.samples, written.samples)
        asked = made.asked
        return PurifiedAudio(
            samples=written.samples,
            sample_rate_hz=written.sample_rate_hz,
            purifier=settings,
            seed=self.seed,
            model_id=self.pretrained.model_id,
            before=before,
            # use the noise of the original: a verdict must not change through other draws alone
            after=self.assess(replace(written, sha256=item.sha256)),
            cosine=float(voices[0] @ voices[1]),
            snr_db=snr_db(item.samples, written.samples) if changed else None,
            clipped_samples=int((_at_full_scale(written) & ~_at_full_scale(item)).sum()),
            rounds=made.rounds,
            change_asked=None if asked is None else float((asked - old).abs().mean()),
            change_missed=None if asked is None else float((asked - new).abs().mean()),
            spectrogram_before=old,
            spectrogram_after=new,
        )

    def purified(
        self,
        settings: Mapping[str, Any],
        planned: PlannedFile,
        item: Audio,
        before: Assessment,
        made: Purified,
    ) -> PurifiedFile:
        """Describe a purified recording by its written file."""
        written = self.reader.read_back(planned.written)
        result = self.compare(settings, item, before, made, written)
        return PurifiedFile(planned, item, written.sha256, self.pretrained.card.name, result)

    def plot(self, done: PurifiedFile, *, force: bool = False) -> None:
        """Draw a purified recording."""
        from nip_audio.workflows.plot import plot_purification  # needs matplotlib

        plot_purification(self.pretrained, done.result, done.planned.plot_path, force=force)


def purify_audio(
    pretrained: PretrainedModel,
    purifier: Purifier,
    audio: Audio,
    *,
    seed: int,
    judge: Judge | None = None,
    rounds: int = ROUNDS,
) -> PurifiedAudio:
    """Purify one recording in memory; the result has the samples of the 16-bit file it would be.

    Args:
        pretrained: Model to defend.
        purifier: Purifier that is applied.
        audio: Recording at the model's sample rate, of any length.
        seed: Seed of the purifier and the detector, as in ``RecordingWorkflow``.
        judge: Detector that judges the recording before and after; None skips the verdict.
        rounds: Number of corrections in ``resynthesize``, for a purifier of spectrograms.

    Raises:
        InputError: If the purifier works on model input that is not a spectrogram, or the
            recording has another sample rate.
    """
    workflow = RecordingWorkflow(pretrained, WaveformAdapter(), seed, judge)
    before = workflow.assess(audio)
    made = workflow.make(purifier, audio, rounds=rounds)
    written = replace(audio, samples=to_16_bits(made.raw), channels=())
    return workflow.compare(purifier.settings(), audio, before, made, written)


@torch.no_grad()
def _score(objective: Any, samples: Tensor) -> float:
    batch = Batch(samples[None])
    if isinstance(objective, Verification):
        return float(objective.scores(batch)[0])
    return float(objective.logits(batch)[0, int(objective.label[0])])


def _aim(goal: AttackGoal) -> str:
    if goal.target is not None:
        return f"identified as {goal.target}"
    if goal.goal == "misidentify":
        return "identified as anybody else"
    if goal.probe is not None:
        word = "accepted as" if goal.goal == "accept" else "rejected from"
        whom = "the voice enrolled from the copy"
        if goal.speaker is not None:
            whom = f"{goal.speaker}, enrolled with the copy"
        return f"{goal.probe.path.name} {word} {whom}"
    if goal.speaker is not None:
        return f"{'accepted as' if goal.goal == 'accept' else 'rejected from'} {goal.speaker}"
    return "no longer verified against the recording itself"


def _assessed(found: Assessment) -> dict[str, Any]:
    values = asdict(found)
    return rounded({"speaker": values.pop("label"), **values})


def _words(heard: Assessment) -> str:
    name = "" if heard.label is None else f"{heard.label} {heard.score:.2f}"
    return ", ".join(part for part in (name, heard.verdict) if part)


def _at_full_scale(audio: Audio) -> Tensor:
    return audio.samples.abs() >= _FULL_SCALE
