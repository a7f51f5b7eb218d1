"""Measure how well detectors tell attacked from clean trials of a verification system."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from scipy.stats import binomtest
from sklearn.pipeline import make_pipeline

from nip_audio import (
    CosineHead,
    ReadSettings,
    WaveformAdapter,
)
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Guarded
from nip_audio.audio.adapter import read_back
from nip_audio.audio.io import Audio, to_16_bits
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.metrics import Interval, auroc, bootstrap, detection_rate
from nip_audio.core.nccr import measure_nccr
from nip_audio.core.seeds import seed_of
from nip_audio.core.state import write_atomic
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.conformal import conformal_threshold, out_of_fold_distances
from nip_audio.detectors.differentiable import KnownDetector, NccrDistance
from nip_audio.detectors.rates import LogRates
from nip_audio.evaluation.controls import CONTROLS
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import FileMeasurer, noise_generator
from nip_audio.screening.recordings import Recordings
from nip_audio.workflows.attack import attack_file
from nip_audio.workflows.files import AttackGoal
from studies._lib.shares import share_of

ATTACKS = (("fgsm", 0.002), ("pgd", 0.0005), ("pgd", 0.002), ("pgd", 0.01))
GOALS = ("reject", "accept")
SEED = 1234
MIN_SUCCESSES = 30
RATES = (0.05, 0.01)
ADAPTIVE_EPS = (0.0005, 0.002)
ADAPTIVE_STEPS = 30
ADAPTIVE_EVERY = 8  # one in so many test clips is attacked by somebody who knows the detector


@dataclass(frozen=True)
class Clip:
    """One recording of a manifest with its audio."""

    recording: Recording
    audio: Audio

    @property
    def speaker(self) -> str:
        """Name of the speaker."""
        return self.recording.speaker or ""

    @property
    def chapter(self) -> str:
        """Name of the recording session."""
        return Path(self.recording.path).parent.name


def read_clips(manifest: Path, data_folder: Path) -> list[Clip]:
    """Read all recordings of a manifest, including very short spans."""
    adapter = WaveformAdapter(ReadSettings(min_duration_s=0.2))
    return [
        Clip(r, r.read(adapter.settings)) for r in read_recordings(manifest, data_root=data_folder)
    ]


@dataclass(frozen=True)
class Features:
    """Measurements of one file in its trial, for the detectors."""

    evidence: np.ndarray
    score_changes: np.ndarray

    @property
    def score_rates(self) -> np.ndarray:
        """Score changes followed by the length: a row for ``LogRates``."""
        return np.append(self.score_changes, self.evidence[-1])


def features(
    pretrained: PretrainedModel, calibration: Calibration, audio: Audio, voice: torch.Tensor
) -> Features:
    """Measure NCCR evidence, and |change of the trial's score| under the same noise."""
    model = pretrained.model.without_head()
    result = measure_nccr(
        model,
        Batch(audio.samples[None]),
        calibration.clean_only.probe.config,
        generator=noise_generator(0, audio.sha256),
    )
    head = CosineHead(voice[None])
    clean = head(result.embedding[None])[0, 0]
    noisy = head(result.draw_embeddings.flatten(0, 1)).reshape(result.draw_embeddings.shape[:2])
    vector = evidence_vector(model, result).double().numpy()
    evidence = np.append(vector, float(len(audio.samples)))
    return Features(evidence, (noisy - clean).abs().mean(dim=1).double().numpy())


def rounded(values: np.ndarray | list[float]) -> list[float]:
    """Round values to plain numbers, to keep the results small."""
    return [round(float(v), 3) for v in values]


@dataclass(frozen=True)
class Trials:
    """Clean and attacked trials; everything that takes long is kept in ``work``."""

    pretrained: PretrainedModel
    calibration: Calibration
    voices: Enrolment
    work: Path
    tolerant: Calibration | None = None

    @property
    def threshold(self) -> float:
        """Cosine from which the system accepts."""
        threshold = self.calibration.verification_threshold
        if threshold is None:
            raise SystemExit(
                "the calibration has no verification threshold; calibrate on at least two "
                "recordings of each speaker"
            )
        return threshold

    def claimed(self, clip: Clip, index: int, goal: str) -> str:
        """Return the claimed speaker: to be rejected, the clip's own; else a fixed other one."""
        if goal == "reject":
            return clip.speaker
        others = [s for s in self.voices.speakers if s != clip.speaker]
        return others[index % len(others)]

    def clean(self, clip: Clip, index: int, goal: str, role: str) -> Features:
        """Measure an unattacked trial."""
        speaker = self.claimed(clip, index, goal)
        return self._features(f"{role}-{clip.recording.id}-{goal}", speaker, lambda: clip.audio)

    def noisy(self, clip: Clip, index: int, goal: str, eps: float) -> Features:
        """Measure a trial with random noise of ±eps, rounded to 16 bits, instead of an attack."""

        def read() -> Audio:
            seed = int.from_bytes(bytes.fromhex(clip.audio.sha256[:14]), "big")
            generator = torch.Generator().manual_seed(seed)
            x = clip.audio.samples
            x = x + eps * torch.randn(x.shape, generator=generator).sign()
            x = (x.clamp(-1, 1) * 32768).round().clamp(-32768, 32767) / 32768
            digest = hashlib.sha256(x.numpy().tobytes()).hexdigest()
            return replace(clip.audio, samples=x, sha256=digest)

        name = f"noise-{clip.recording.id}-{eps}-{goal}"
        return self._features(name, self.claimed(clip, index, goal), read)

    def attacked(
        self, clip: Clip, index: int, goal: str, name: str, eps: float
    ) -> tuple[dict[str, Any], Features | None]:
        """Return the attack's report, and the measurements of the written file if it succeeds."""
        speaker = self.claimed(clip, index, goal)
        out = self.work / "files" / f"{clip.recording.id}-{name}-{eps}-{goal}.wav"
        sidecar = out.with_name(out.name + ".json")
        adapter = WaveformAdapter()
        if not sidecar.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            attack = GradientAttack(name, eps=eps)
            aim = AttackGoal(self.threshold, goal, self.voices, speaker)  # type: ignore[arg-type]
            path = Path(clip.recording.path)
            attack_file(self.pretrained, path, out, attack, aim, adapter, seed=SEED, force=True)
        report = json.loads(sidecar.read_text())
        settings = report["attack"]["name"], report["attack"]["eps"], report["threshold"]
        if (settings, report["seed"], report["model_id"]) != (
            (name, eps, round(self.threshold, 6)),
            SEED,
            self.pretrained.model_id,
        ):
            raise SystemExit(f"{sidecar} belongs to another run; use another --work_folder")
        if not report["fools"]:
            return report, None
        return report, self._features(out.stem, speaker, lambda: read_back(out, adapter.settings))

    def adaptive(self, clip: Clip, index: int, goal: str, eps: float) -> dict[str, Any]:
        """Attack a trial knowing the detector, except for its random draws.

        The attack is PGD on the smaller of two margins, the trial's and the detector's at 5 %, with
        new noise in every step.
        """
        path = self.work / "adaptive" / f"{clip.recording.id}-{eps}-{goal}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        known, speaker = self.calibration, self.claimed(clip, index, goal)
        aim = AttackGoal(self.threshold, goal, self.voices, speaker)  # type: ignore[arg-type]
        objective = aim.objective(self.pretrained, clip.audio.samples)
        limit = known.threshold(max(RATES))
        seeded = torch.Generator().manual_seed(SEED)
        evidence = NccrDistance(
            self.pretrained.model.without_head(),
            known.clean_only.probe.config,
            KnownDetector(known.clean_only.rates, known.clean_only.estimator),
            generator=seeded,
        )
        attack = GradientAttack("pgd", eps=eps, steps=ADAPTIVE_STEPS, step_share=0.1)
        guarded = Guarded(objective, evidence, threshold=limit, scale=limit)
        batch = Batch(clip.audio.samples[None])
        written = to_16_bits(attack(guarded, batch, generator=seeded).batch.x[0])
        digest = hashlib.sha256(written.numpy().tobytes()).hexdigest()
        heard = replace(clip.audio, samples=written, sha256=digest)
        seen = features(self.pretrained, known, heard, self.voices.voice(speaker))
        found = {
            "fools": bool(objective.succeeded(Batch(written[None]))[0]),
            "succeeded_before": bool(objective.succeeded(batch)[0]),
            "distance": float(known.clean_only.distances_of([seen.evidence])[0]),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(found).encode(), force=True)
        return found

    def _features(self, name: str, speaker: str, read: Callable[[], Audio]) -> Features:
        path = self.work / "features" / f"{name}.json"
        if path.exists():
            data = json.loads(path.read_text())
            return Features(np.array(data["evidence"]), np.array(data["score_changes"]))
        voice = self.voices.voice(speaker)
        made = features(self.pretrained, self.calibration, read(), voice)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"evidence": made.evidence.tolist(), "score_changes": made.score_changes.tolist()}
        )
        write_atomic(path, text.encode(), force=True)
        return made


def detection(
    trials: Trials, clips: list[Clip], calibration_clips: list[Clip]
) -> dict[str, object]:
    """Detect attacked trials among clean ones, both read from 16-bit files."""
    calibration = trials.calibration
    tested = [clip.audio.content_sha256 for clip in clips]
    for fitted in (calibration, trials.tolerant):
        if fitted is not None:
            refuse_overlap(fitted.seen, tested, what="calibration")
    clean = {
        goal: [
            Scored(c.speaker, trials.clean(c, i, goal, "test"))
            for i, c in enumerate(track(clips, f"clean {goal}"))
        ]
        for goal in GOALS
    }
    detectors = {
        goal: make_detectors(
            calibration,
            trials.tolerant,
            [
                Scored(c.speaker, trials.clean(c, i, goal, "calibrate"))
                for i, c in enumerate(track(calibration_clips, f"calibrate {goal}"))
            ],
        )
        for goal in GOALS
    }
    noisy = {
        (goal, eps): [
            Scored(c.speaker, trials.noisy(c, i, goal, eps))
            for i, c in enumerate(track(clips, f"random ±{eps} {goal}"))
        ]
        for goal in GOALS
        for eps in sorted({eps for _, eps in ATTACKS})
    }
    rows = []
    for name, eps in ATTACKS:
        for goal in GOALS:
            results = [
                (clip.speaker, *trials.attacked(clip, index, goal, name, eps))
                for index, clip in enumerate(track(clips, f"{name} {eps} {goal}"))
            ]
            # if the system errs on the clean file, no attack is needed
            tried = [(s, r, f) for s, r, f in results if not r["succeeded_before"]]
            found = [Scored(s, f) for s, _, f in tried if f is not None]
            noise = [r["snr_db"] for _, r, f in tried if f is not None]
            rows.append(
                {
                    "attack": name,
                    "eps": eps,
                    "goal": goal,
                    "attempted": len(tried),
                    "successes": len(found),
                    "median_snr_db": float(np.median(noise)) if noise else None,
                    "distances": rounded(nccr_distances(calibration, found)),
                    "detectors": None
                    if len(found) < MIN_SUCCESSES
                    else {
                        d.name: d.against(found, clean[goal])
                        | {"auroc_against_noise": d.auroc(found, noisy[goal, eps])}
                        | {"auroc_against_own_trials": d.auroc(found, clean["reject"])}
                        for d in detectors[goal]
                    },
                }
            )
    controls = [
        {
            "eps": eps,
            "clips": len(items),
            "distances": rounded(nccr_distances(calibration, items)),
            "detectors": {d.name: d.against(items, clean["reject"]) for d in detectors["reject"]},
        }
        for (goal, eps), items in noisy.items()
        if goal == "reject"
    ]
    distances = nccr_distances(calibration, clean["reject"])
    return {
        "threshold": trials.threshold,
        "distance_thresholds": {str(r): calibration.threshold(r) for r in RATES},
        "clean_flagged_at_calibrated": {
            d.name: {str(r): d.flagged(clean["reject"], r) for r in RATES}
            for d in detectors["reject"]
        },
        "clean_clips": len(clips),
        "clean_distances": rounded(distances),
        "calibration_clips": calibration.files,
        "baseline_calibration_clips": len(calibration_clips),
        "inconsistent_share_of_calibration": calibration.inconsistent_share,
        "controls": controls,
        "harmless": control_rows(trials, clips),
        "adaptive": adaptive_rows(trials, clips[::ADAPTIVE_EVERY]),
        "rows": rows,
    }


def adaptive_rows(trials: Trials, clips: list[Clip]) -> list[dict[str, Any]]:
    """Measure how often attackers who know the detector fool the system, and are flagged."""
    rows = []
    for eps in ADAPTIVE_EPS:
        for goal in GOALS:
            tried = [
                found | {"speaker": clip.speaker}
                for index, clip in enumerate(track(clips, f"adaptive {eps} {goal}"))
                if not (found := trials.adaptive(clip, index, goal, eps))["succeeded_before"]
            ]
            speakers = [found["speaker"] for found in tried]
            fooling = np.array([found["fools"] for found in tried])
            distance = np.array([found["distance"] for found in tried])
            limits = {rate: trials.calibration.threshold(rate) for rate in RATES}
            rows.append(
                {
                    "eps": eps,
                    "goal": goal,
                    "steps": ADAPTIVE_STEPS,
                    "attempted": len(tried),
                    "fools": share_of(fooling, speakers, seed=SEED).to_json(),
                    "unnoticed": {
                        str(rate): share_of(
                            fooling & (distance <= limit), speakers, seed=SEED
                        ).to_json()
                        for rate, limit in limits.items()
                    },
                }
            )
    return rows


def control_rows(trials: Trials, clips: list[Clip]) -> list[dict[str, Any]]:
    """Count the shipped screening's verdicts on harmless changes, at both thresholds."""
    rows = []
    measurer = FileMeasurer(
        trials.pretrained,
        trials.calibration.detector.probe,
        cast("Any", Recordings(WaveformAdapter())),
        seed=0,
    )
    speakers = [clip.speaker for clip in clips]
    for control in CONTROLS:
        verdicts: dict[float, list[str]] = {rate: [] for rate in RATES}
        for clip in track(clips, control.name):
            seed = seed_of(SEED, control.name, clip.recording.id)
            changed = control.apply(clip.audio.samples, sample_rate_hz=16000, seed=seed)
            changed = to_16_bits(changed)
            digest = hashlib.sha256(changed.numpy().tobytes()).hexdigest()
            file = measurer.measure_item(replace(clip.audio, samples=changed, sha256=digest))
            for rate in RATES:
                verdicts[rate].append(Judge(trials.calibration, rate).judge(file).verdict)
        rows.append(
            {
                "control": control.name,
                "clips": len(clips),
                **{
                    verdict: {
                        str(rate): share_of(
                            np.array(verdicts[rate]) == verdict, speakers, seed=SEED
                        ).to_json()
                        for rate in RATES
                    }
                    for verdict in ("adversarial", "out_of_domain")
                },
            }
        )
    return rows


def fill_shard(trials: Trials, clips: list[Clip], shard: tuple[int, int]) -> None:
    """Do one share of the long computations, so that several processes can split them."""
    chosen = [(i, c) for i, c in enumerate(clips) if i % shard[1] == shard[0]]
    for index, clip in track(chosen, f"share {shard[0] + 1} of {shard[1]}"):
        for goal in GOALS:
            trials.clean(clip, index, goal, "test")
            for name, eps in ATTACKS:
                trials.attacked(clip, index, goal, name, eps)
            for eps in sorted({eps for _, eps in ATTACKS}):
                trials.noisy(clip, index, goal, eps)


@dataclass(frozen=True)
class Scored:
    """Measurements of one file with its speaker, since the bootstrap resamples speakers."""

    speaker: str
    features: Features


@dataclass(frozen=True)
class Detector:
    """A score that is high for attacked files, with thresholds set on ``calibrate``."""

    name: str
    score: Callable[[list[Features]], np.ndarray]
    thresholds: dict[float, float]

    def against(self, positive: list[Scored], negative: list[Scored]) -> dict[str, Any]:
        """Measure AUROC, and detection at rates set on the negatives and at the thresholds."""
        return {
            "auroc": self.auroc(positive, negative),
            **{
                f"detected_at_{rate}": self._interval(
                    positive, negative, partial(detection_rate, false_positive_rate=rate)
                )
                for rate in RATES
            },
            **{f"detected_at_calibrated_{rate}": self.flagged(positive, rate) for rate in RATES},
        }

    def auroc(self, positive: list[Scored], negative: list[Scored]) -> dict[str, float]:
        """Return the area under the ROC curve with its interval."""
        return self._interval(positive, negative, auroc)

    def flagged(self, items: list[Scored], rate: float) -> dict[str, float]:
        """Return the share of files above the calibrated threshold, with its interval."""
        limit = self.thresholds[rate]
        flags = self.score([i.features for i in items]) > limit
        if flags.all() or not flags.any():  # all bootstrap samples would agree: exact binomial
            exact = binomtest(int(flags.sum()), len(flags)).proportion_ci(0.95)
            return Interval(float(flags.mean()), exact.low, exact.high).to_json()
        return self._interval(items, items, lambda p, _: float((p > limit).mean()))

    def _interval(
        self,
        positive: list[Scored],
        negative: list[Scored],
        statistic: Callable[[np.ndarray, np.ndarray], float],
    ) -> dict[str, float]:
        sides = []
        speakers = sorted({i.speaker for i in [*positive, *negative]})
        for items in (positive, negative):
            scores = self.score([i.features for i in items])
            owner = np.array([i.speaker for i in items])
            sides.append([scores[owner == s] for s in speakers])

        def resampled(chosen: np.ndarray) -> float:
            return statistic(*(np.concatenate([side[i] for i in chosen]) for side in sides))

        return bootstrap(resampled, len(speakers), seed=SEED, rounds=500).to_json()


def nccr_detector(name: str, calibration: Calibration) -> Detector:
    """Make a detector of a calibration, with its own thresholds."""
    limits = {rate: calibration.threshold(rate) for rate in RATES}
    known = calibration.clean_only
    return Detector(name, lambda fs: known.distances_of([f.evidence for f in fs]), limits)


def make_detectors(
    calibration: Calibration, tolerant: Calibration | None, fitted_on: list[Scored]
) -> list[Detector]:
    """Make NCCR as shipped, and two |Δscore| baselines calibrated in the same way on one goal."""
    features = [i.features for i in fitted_on]
    means = [f.score_changes.mean() for f in features]
    rows = np.stack([f.score_rates for f in features])
    two_sided = make_pipeline(LogRates(), CleanDistance()).fit(rows)
    held_out = out_of_fold_distances(two_sided, rows, [i.speaker for i in fitted_on])
    return [
        nccr_detector("nccr", calibration),
        *([] if tolerant is None else [nccr_detector("nccr_tolerant", tolerant)]),
        Detector(
            "score_change_mean",
            lambda fs: np.array([f.score_changes.mean() for f in fs]),
            {rate: conformal_threshold(means, rate) for rate in RATES},
        ),
        Detector(
            "score_change_two_sided",
            lambda fs: -two_sided.score_samples([f.score_rates for f in fs]),
            {rate: conformal_threshold(held_out, rate) for rate in RATES},
        ),
    ]


def nccr_distances(calibration: Calibration, items: list[Scored]) -> list[float]:
    """Return the NCCR distances of files for the plot."""
    evidence = [item.features.evidence for item in items]
    return list(calibration.clean_only.distances_of(evidence)) if items else []
