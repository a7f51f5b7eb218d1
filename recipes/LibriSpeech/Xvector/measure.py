r"""Measure a published x-vector and its calibration; write one JSON of results.

    python measure.py --model xvector-libri251 --data_folder /path/to/LibriSpeech \
        --split_file /path/to/LibriSpeech/split.csv --work_folder results/measure \
        --results ../../../docs/results/xvector.json

Three parts: closed-set accuracy on the training speakers, verification of strangers, and detection
of adversarial files. These are written to the work folder as 16-bit wav and judged as read back;
the run continues where it was interrupted. ``--limit`` takes fewer files for a try.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from sklearn.pipeline import Pipeline, make_pipeline

from nip_audio import CosineHead, WaveformAdapter, embed_audio, enrol, load_pretrained, read_audio
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.audio.io import Audio
from nip_audio.audio.manifest import Recording, read_manifest
from nip_audio.core.adapter import Batch
from nip_audio.core.metrics import auroc, bootstrap, detection_rate, equal_error_rate
from nip_audio.core.nccr import measure_nccr
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.rates import LogRates
from nip_audio.errors import InputError
from nip_audio.evaluation.adversarial_files import AttackGoal, attack_file, read_back
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import noise_generator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from librispeech_prepare import prepare_librispeech

ATTACKS = (("fgsm", 0.002), ("pgd", 0.0005), ("pgd", 0.002), ("pgd", 0.01))
GOALS = ("reject", "accept")
SEED = 1234


@dataclass(frozen=True)
class Clip:
    """One recording of a manifest, read."""

    recording: Recording
    audio: Audio

    @property
    def speaker(self) -> str:
        """Whose voice it is."""
        return self.recording.speaker or ""

    @property
    def chapter(self) -> str:
        """Recording session."""
        return self.recording.path.parent.name


def read_clips(manifest: Path, data_folder: Path) -> list[Clip]:
    """Read all recordings of a manifest."""
    adapter = WaveformAdapter()
    return [
        Clip(r, read_audio(r.path, adapter.settings, span=r.span))
        for r in read_manifest(manifest, data_root=data_folder)
    ]


# --- closed set -------------------------------------------------------------------------------


def closed_set(pretrained: PretrainedModel, clips: list[Clip]) -> dict[str, object]:
    """Accuracy on the training speakers: clean, 0.002 rms and 20 dB SNR white noise."""
    head = pretrained.model.head
    assert head is not None  # noqa: S101 - the published model has one
    truth = np.array([pretrained.card.labels.index(c.speaker) for c in clips])
    generator = torch.Generator().manual_seed(SEED)
    results: dict[str, object] = {"clips": len(clips), "speakers": len(set(truth))}
    conditions = {
        "clean": lambda x: torch.zeros(()),
        "noise_0.002_rms": lambda x: torch.tensor(0.002),
        "noise_20_db_snr": lambda x: x.square().mean().sqrt() / 10,
    }
    for name, level in conditions.items():
        predicted = []
        for clip in clips:
            x = clip.audio.samples
            noisy = (x + level(x) * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
            with torch.no_grad():
                scores = head(embed_audio(pretrained, noisy)[None])
            predicted.append(int(scores.argmax()))
        hit = (np.array(predicted) == truth).astype(float)
        results[name] = bootstrap(
            lambda i, h=hit: float(h[i].mean()), len(hit), seed=SEED
        ).to_json()
    return results


# --- verification -----------------------------------------------------------------------------


def verification(pretrained: PretrainedModel, clips: list[Clip]) -> dict[str, object]:
    """EER over all pairs of clips; intervals by resampling speakers."""
    embeddings = torch.stack([embed_audio(pretrained, c.audio.samples) for c in clips])
    cosines = (embeddings @ embeddings.T).numpy()
    speaker = np.array([c.speaker for c in clips])
    chapter = np.array([c.chapter for c in clips])
    names = np.unique(speaker)
    members = {name: np.flatnonzero(speaker == name) for name in names}

    def eer(chosen: np.ndarray, across: bool | None) -> float:
        """EER over a resample of speakers; ``across``: target trials from different chapters."""
        targets, impostors = [], []
        picked = names[chosen]
        for a, name in enumerate(picked):
            rows = members[name]
            upper = np.triu_indices(len(rows), 1)
            pairs = rows[upper[0]], rows[upper[1]]
            other = chapter[pairs[0]] != chapter[pairs[1]]
            keep = slice(None) if across is None else other == across
            targets.append(cosines[pairs][keep])
            impostors += [
                cosines[np.ix_(rows, members[name2])].ravel()
                for name2 in picked[a + 1 :]
                if name2 != name
            ]
        return equal_error_rate(np.concatenate(targets), np.concatenate(impostors)).rate

    same = (speaker[:, None] == speaker[None])[np.triu_indices(len(speaker), 1)]
    return {
        "clips": len(clips),
        "speakers": len(names),
        "target_trials": int(same.sum()),
        "impostor_trials": int((~same).sum()),
        "eer": bootstrap(lambda i: eer(i, None), len(names), seed=SEED, rounds=300).to_json(),
    }


def enrolled_eer(
    pretrained: PretrainedModel, clips: list[Clip], voices: Enrolment, enrolled: list[Clip]
) -> dict[str, object]:
    """EER of test clips against voices enrolled from other clips, by whether the chapter is new."""
    head = CosineHead(voices.voices)
    with torch.no_grad():
        scores = head(
            torch.stack([embed_audio(pretrained, c.audio.samples) for c in clips])
        ).numpy()
    known = {(c.speaker, c.chapter) for c in enrolled}
    column = np.array([voices.speakers.index(c.speaker) for c in clips])
    fresh = np.array([(c.speaker, c.chapter) not in known for c in clips])
    by_speaker = [np.flatnonzero(column == s) for s in range(len(voices.speakers))]

    def eer(chosen: np.ndarray, subset: np.ndarray) -> float:
        rows = np.concatenate([r[subset[r]] for s in chosen for r in [by_speaker[s]]])
        target = scores[rows, column[rows]]
        impostor = np.concatenate([np.delete(scores[r], column[r]) for r in rows] or [[]])
        return equal_error_rate(target, impostor).rate

    everyone = np.ones(len(clips), bool)
    return {
        name: {"clips": int(subset.sum())}
        | bootstrap(lambda i, s=subset: eer(i, s), len(by_speaker), seed=SEED, rounds=300).to_json()
        for name, subset in (("all", everyone), ("new_chapter", fresh), ("same_chapter", ~fresh))
        if subset.any()
    }


# --- detection --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """What detectors see of one file and the trial it stands in."""

    rates: np.ndarray
    score_changes: np.ndarray

    @property
    def score_rates(self) -> np.ndarray:
        """Score changes and, last, the length: a row for ``LogRates``."""
        return np.append(self.score_changes, self.rates[-1])


def features(
    pretrained: PretrainedModel, calibration: Calibration, audio: Audio, voice: torch.Tensor
) -> Features:
    """NCCR vector, and |change of the trial's score| under the very same noise."""
    result = measure_nccr(
        pretrained.model,
        Batch(audio.samples[None]),
        calibration.config,
        generator=noise_generator(0, audio.sha256),
    )
    head = CosineHead(voice[None])
    clean = head(result.embedding[None])[0, 0]
    noisy = head(result.draw_embeddings.flatten(0, 1)).reshape(result.draw_embeddings.shape[:2])
    return Features(
        result.vector.double().numpy(), (noisy - clean).abs().mean(dim=1).double().numpy()
    )


def cached(path: Path, make: object) -> Features:
    """Read features measured earlier, or measure and keep them."""
    if path.exists():
        data = json.loads(path.read_text())
    else:
        made: Features = make()  # type: ignore[operator]
        data = {"rates": made.rates.tolist(), "score_changes": made.score_changes.tolist()}
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(data))
        partial.rename(path)
    return Features(np.array(data["rates"]), np.array(data["score_changes"]))


def rounded(values: np.ndarray | list[float]) -> list[float]:
    """Plain numbers, short enough to commit."""
    return [round(float(v), 3) for v in values]


def impostor_of(speaker: str, voices: Enrolment, index: int) -> str:
    """The claimed speaker of an impostor trial: another one for each clip, always the same."""
    others = [s for s in voices.speakers if s != speaker]
    return others[index % len(others)]


def detection(
    pretrained: PretrainedModel,
    calibration: Calibration,
    clips: list[Clip],
    calibration_clips: list[Clip],
    voices: Enrolment,
    work: Path,
) -> dict[str, object]:
    """Detect attacked trials among clean ones, both written as 16-bit files."""
    refuse_overlap(calibration.seen, [c.audio.content_sha256 for c in clips], what="calibration")
    threshold = calibration.verification_threshold
    assert threshold is not None  # noqa: S101 - the shipped calibration has repeated speakers
    (work / "files").mkdir(parents=True, exist_ok=True)
    (work / "features").mkdir(exist_ok=True)

    def claimed(clip: Clip, index: int, goal: str) -> str:
        return clip.speaker if goal == "reject" else impostor_of(clip.speaker, voices, index)

    def trial(clip: Clip, index: int, goal: str, role: str) -> Features:
        voice = voices.voice(claimed(clip, index, goal))
        path = work / "features" / f"{role}-{clip.recording.id}-{goal}.json"
        return cached(path, lambda: features(pretrained, calibration, clip.audio, voice))

    clean = {
        goal: [trial(c, i, goal, "clean") for i, c in enumerate(track(clips, f"clean {goal}"))]
        for goal in GOALS
    }
    fitted_on = [
        trial(c, i, goal, "calibrate")
        for goal in GOALS
        for i, c in enumerate(track(calibration_clips, f"calibrate {goal}"))
    ]
    baseline = make_pipeline(LogRates(), CleanDistance())
    baseline.fit(np.stack([f.score_rates for f in fitted_on]))
    rows = []
    for name, eps in ATTACKS:
        for goal in GOALS:
            found, pairs, attempted = [], [], 0
            seconds = time.perf_counter()
            for index, clip in enumerate(track(clips, f"{name} {eps} {goal}")):
                speaker = claimed(clip, index, goal)
                out = work / "files" / f"{clip.recording.id}-{name}-{eps}-{goal}.wav"
                sidecar = out.with_name(out.name + ".json")
                if not sidecar.exists():
                    attack_clip(pretrained, clip, out, name, eps, goal, speaker, threshold, voices)
                report = json.loads(sidecar.read_text())
                if report["succeeded_before"]:
                    continue  # the system errs on the clean file: no attack is needed
                attempted += 1
                if not report["fools"]:
                    continue
                audio = read_back(out, WaveformAdapter().settings)
                path = work / "features" / f"{out.stem}.json"
                voice = voices.voice(speaker)
                measured = cached(
                    path, lambda a=audio, v=voice: features(pretrained, calibration, a, v)
                )
                found.append(measured)
                pairs.append(report["snr_db"])
            rows.append(
                {
                    "attack": name,
                    "eps": eps,
                    "goal": goal,
                    "attempted": attempted,
                    "successes": len(found),
                    "median_snr_db": float(np.median(pairs)) if pairs else None,
                    "seconds": round(time.perf_counter() - seconds, 1),
                    "distances": rounded(
                        calibration.distances_of([f.rates for f in found]) if found else []
                    ),
                    "detectors": compare(calibration, baseline, found, clean[goal]),
                }
            )
    clean_distances = calibration.distances_of([f.rates for f in clean["reject"]])
    thresholds = {rate: calibration.threshold(rate) for rate in (0.05, 0.01)}
    false_positives = {
        str(rate): bootstrap(
            lambda i, t=limit: float((clean_distances[i] > t).mean()),
            len(clean_distances),
            seed=SEED,
        ).to_json()
        for rate, limit in thresholds.items()
    }
    return {
        "threshold": threshold,
        "distance_thresholds": {str(rate): limit for rate, limit in thresholds.items()},
        "clean_clips": len(clips),
        "clean_distances": rounded(clean_distances),
        "calibration_clips": len(calibration.distances),
        "false_positives_at_calibrated_threshold": false_positives,
        "rows": rows,
    }


def attack_clip(
    pretrained: PretrainedModel,
    clip: Clip,
    out: Path,
    name: str,
    eps: float,
    goal: str,
    speaker: str,
    threshold: float,
    voices: Enrolment,
) -> None:
    """Attack one trial and write the file."""
    attack = GradientAttack(name, eps=eps)  # type: ignore[arg-type]
    aim = AttackGoal(threshold, goal, voices, speaker)  # type: ignore[arg-type]
    adapter = WaveformAdapter()
    attack_file(pretrained, clip.recording.path, out, attack, aim, adapter, seed=SEED, force=True)


def compare(
    calibration: Calibration,
    baseline: Pipeline,
    attacked: list[Features],
    clean: list[Features],
) -> dict[str, object] | None:
    """AUROC and detection rates of NCCR and of |Δscore|; None under 30 successes."""
    if len(attacked) < 30:
        return None
    detectors = {
        "nccr": lambda fs: calibration.distances_of([f.rates for f in fs]),
        "score_change_mean": lambda fs: np.array([f.score_changes.mean() for f in fs]),
        "score_change_two_sided": lambda fs: -baseline.score_samples([f.score_rates for f in fs]),
    }
    table: dict[str, object] = {}
    for name, score in detectors.items():
        positive, negative = score(attacked), score(clean)
        both = np.r_[positive, negative]
        split = len(positive)

        def resampled(index: np.ndarray, statistic: object, b=both, s=split) -> float:
            hit = index[index < s], index[index >= s]
            if len(hit[0]) == 0 or len(hit[1]) == 0:
                raise InputError("one class is missing")
            return statistic(b[hit[0]], b[hit[1]])  # type: ignore[operator]

        table[name] = {
            label: bootstrap(lambda i, f=f: resampled(i, f), len(both), seed=SEED).to_json()
            for label, f in {
                "auroc": auroc,
                "detected_at_5_percent": lambda p, n: detection_rate(
                    p, n, false_positive_rate=0.05
                ),
                "detected_at_1_percent": lambda p, n: detection_rate(
                    p, n, false_positive_rate=0.01
                ),
            }.items()
        }
        if name == "nccr":
            for rate in (0.05, 0.01):
                over = (positive > calibration.threshold(rate)).astype(float)
                table[name][f"detected_at_calibrated_{rate}"] = bootstrap(  # type: ignore[index]
                    lambda i, o=over: float(o[i].mean()), len(over), seed=SEED
                ).to_json()
    return table


def main() -> None:
    """Measure all three parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="xvector-libri251")
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--split_file", type=Path, required=True)
    parser.add_argument("--work_folder", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    if pretrained.card.calibration_path is None:
        raise SystemExit("the model has no calibration yet; run: nip-audio calibrate")
    calibration = Calibration.load(pretrained.card.calibration_path, model_id=pretrained.model_id)
    folders = {}
    for name, subset in (("known", "train-clean-100"), ("strangers", "test-clean")):
        folders[name] = options.work_folder / name
        prepare_librispeech(
            str(options.data_folder),
            str(folders[name]),
            subsets=[subset],
            split_file=str(options.split_file),
        )
    read = lambda name, role: read_clips(folders[name] / f"{role}.csv", options.data_folder)  # noqa: E731
    known_test, strangers_test = read("known", "test"), read("strangers", "test")
    strangers_train = read("strangers", "train")
    voices = enrol(pretrained, [c.recording for c in strangers_train], WaveformAdapter())
    results = {
        "model": pretrained.card.name,
        "model_id": pretrained.model_id,
        "calibration": calibration.fingerprint,
        "seed": SEED,
        "closed_set": closed_set(pretrained, known_test),
        "verification": verification(pretrained, strangers_test)
        | {"enrolled": enrolled_eer(pretrained, strangers_test, voices, strangers_train)},
        "detection": detection(
            pretrained,
            calibration,
            strangers_test[: options.limit],
            read("strangers", "calibrate")[: options.limit],
            voices,
            options.work_folder,
        ),
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
