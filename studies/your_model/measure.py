"""Attack, detect and purify on a model of others, for docs/results/your_model.md.

    python -m studies.your_model.measure MODEL --data-folder LibriSpeech --results RESULTS.json

MODEL is an adopted directory with a calibration and a purifier. Its users are the 30 speakers of
test-clean, strangers to the calibration and the purifier: each is enrolled from three clips of the
train role, and attacked on clips of the test role, cut to four seconds. Steps that are done are
kept in the work folder.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio import PretrainedModel, load_pretrained
from nip_audio.attacks.base import Attack
from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.objectives import Goal, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.metrics import Interval, auroc, bootstrap, equal_error_rate
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of, seed_of
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError
from nip_audio.evaluation.controls import CONTROLS
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.speechbrain import Guard
from studies._lib.command import command, run, tell, write_results
from studies._lib.shares import share_of

Array = NDArray[np.float64]

RATE = 16_000
CROP = 4 * RATE
CLIPS = 2
ENROLLED = 3
BATCH = 15
SEED = 0
ADAPTIVE_SPEAKERS = 15
ATTACKS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "PGD, ε .0005": ("pgd", 0.0005, {"steps": 10}),
    "PGD, ε .002": ("pgd", 0.002, {"steps": 10}),
    "PGD, ε .01": ("pgd", 0.01, {"steps": 10}),
    "FGSM, ε .002": ("fgsm", 0.002, {}),
}
GOALS: tuple[Goal, ...] = ("reject", "accept")
RATES = (0.01, 0.05)


@dataclass(frozen=True)
class Clips:
    """Clips of the test role.

    Attributes:
        samples: (n, CROP) waveforms.
        speakers: Index of the speaker of each.
        voices: (speakers, D) enrolled voices, of unit length.
        threshold: Cosine at and above which a clip is accepted.
    """

    samples: Tensor
    speakers: tuple[int, ...]
    voices: Tensor
    threshold: float

    def references(self, goal: Goal) -> Tensor:
        """Return the voice that each clip claims: its own, or for ``accept`` the next speaker's."""
        step = 0 if goal == "reject" else 1
        return self.voices[[(one + step) % len(self.voices) for one in self.speakers]]


def read(root: Path, span: Span) -> Tensor:
    """Read one utterance."""
    samples = read_audio(root / span.path, ReadSettings(RATE, min_duration_s=0.1)).samples
    return samples[round(span.start_s * RATE) : round(span.end_s * RATE)]


@torch.no_grad()
def embed(model: InstrumentedModel, clips: Sequence[Tensor]) -> Tensor:
    """Embed waveforms one by one; returns (n, D) of unit length."""
    rows = torch.cat([model.embed(Batch(clip[None])) for clip in clips])
    return torch.nn.functional.normalize(rows, dim=1)


def choose(model: InstrumentedModel, root: Path, split: Path) -> Clips:
    """Enrol the speakers, find the threshold on the calibrate role, and choose the test clips."""
    by_role: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in read_split(split):
        if span.path.startswith("test-clean"):
            by_role[span.role][span.speaker].append(span)
    names = sorted(by_role["test"])
    voices = torch.stack(
        [
            embed(model, [read(root, s) for s in by_role["train"][name][:ENROLLED]]).mean(dim=0)
            for name in names
        ]
    )
    voices = torch.nn.functional.normalize(voices, dim=1)
    own, other = [], []
    for index, name in enumerate(names):
        for row in embed(model, [read(root, span) for span in by_role["calibrate"][name]]):
            scores = voices @ row
            own.append(float(scores[index]))
            other += [float(s) for i, s in enumerate(scores) if i != index]
    threshold = equal_error_rate(np.array(own), np.array(other)).threshold
    samples, speakers = [], []
    for index, name in enumerate(names):
        for span in by_role["test"][name][:CLIPS]:
            clip = read(root, span)
            samples.append(clip.repeat(-(-CROP // len(clip)))[:CROP])
            speakers.append(index)
    return Clips(torch.stack(samples), tuple(speakers), voices, float(threshold))


@torch.no_grad()
def accepted(
    model: InstrumentedModel, samples: Tensor, references: Tensor, threshold: float
) -> NDArray[np.bool_]:
    """Tell which clips are accepted as the voices that they claim."""
    rows = torch.cat([model.embed(Batch(part)) for part in torch.split(samples, BATCH)])
    scores = torch.cosine_similarity(rows, references)
    return np.asarray((scores >= threshold).numpy(), bool)


def attack_all(
    model: InstrumentedModel, clips: Clips, rows: Sequence[int], attack: Attack, goal: Goal
) -> Tensor:
    """Attack clips, and round the result to 16 bits as in a file."""
    done = []
    for start in range(0, len(rows), BATCH):
        part = list(rows[start : start + BATCH])
        objective = Verification(
            model, clips.references(goal)[part], threshold=clips.threshold, goal=goal
        )
        generator = generator_of(SEED, goal, start)
        found = attack(objective, Batch(clips.samples[part]), generator=generator)
        done.append((found.batch.x * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15)
    return torch.cat(done)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what an earlier run of a step has kept, or make and keep it."""
    if path.exists():
        return torch.load(path, weights_only=True)  # noqa: TID251 - this study wrote it
    found = make()
    torch.save(found, path)
    return found


def suspicion(guard: Guard, samples: Tensor) -> Array:
    """Return the detector's p-value of each clip, as a suspicion: 1 − p and the distance."""
    records = guard.judge_waveforms(samples)
    missing = [record for record in records if record.distance is None]
    if missing:
        raise InputError(f"{len(missing)} clips were not judged: {missing[0].findings}")
    return np.array([[record.distance, record.p_value] for record in records], dtype=float)


def interval_of_auroc(positive: Array, negative: Array, owners: Array) -> Interval:
    """Return the AUROC with an interval by resampling clips."""

    def statistic(drawn: NDArray[np.intp]) -> float:
        hits = np.concatenate([positive[owners == one] for one in drawn])
        return auroc(hits, negative[drawn])

    return bootstrap(statistic, len(negative), seed=SEED, rounds=500)


def main() -> None:
    """Measure one model."""
    parser = command(__doc__, "model", needed=("data-folder", "results", "work"))
    parser.add_argument("--noises", type=int, nargs="*", default=[20, 10], help="dB SNR, compared")
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    split = options.data_folder / "split.csv"
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    clips = choose(pretrained.model, options.data_folder, split)
    results: dict[str, Any] = {
        "model": pretrained.card.name,
        "architecture": pretrained.card.data["architecture"],
        "model_id": pretrained.model_id,
        "split_sha256": file_sha256(split),
        "seed": SEED,
        "clips": len(clips.samples),
        "speakers": len(clips.voices),
        "threshold": clips.threshold,
        "noises": [noise["scale"] for noise in pretrained.card.data["noises"]],
        "layers": list(pretrained.card.default_taps),
        "detection": detection(pretrained, clips, work),
    }
    path = pretrained.card.purifier_path
    if path is None:
        raise InputError(
            f"{options.model} has no purifier; fit one into it: nip-audio fit-purifier"
        )
    guided = GuidedNip.load(path, model_id=pretrained.model_id)
    results["steps"] = guided.training["steps"]
    purifiers: dict[str, Purifier] = {"guided NIP": guided}
    for snr_db in options.noises:
        noise = GaussianNoise(snr_db=snr_db, bounds=Bounds(-1.0, 1.0))
        purifiers[f"white noise, {snr_db} dB"] = noise
    results["purification"] = {
        name: purification(pretrained, clips, purifier, work)
        for name, purifier in purifiers.items()
    }
    write_results(options.results, results)


def examples(
    pretrained: PretrainedModel, clips: Clips, goal: Goal, name: str, work: Path
) -> tuple[list[int], Tensor, NDArray[np.bool_]]:
    """Return the clips that are decided rightly, their attacked versions, and which succeed."""
    model, references = pretrained.model, clips.references(goal)
    clean = accepted(model, clips.samples, references, clips.threshold)
    rows = [i for i, yes in enumerate(clean) if yes == (goal == "reject")]
    method, eps, settings = ATTACKS[name]

    def make() -> Tensor:
        started = time.monotonic()
        attack = make_attack(method, eps=eps, settings=settings)
        found = attack_all(model, clips, rows, attack, goal)
        tell(f"{goal}, {name}: {len(rows)} clips, {time.monotonic() - started:.0f} s")
        return found

    attacked: Tensor = kept(work / f"{goal}-{method}-{eps}.pt", make)
    now = accepted(model, attacked, references[rows], clips.threshold)
    return rows, attacked, now == (goal == "accept")


def detection(pretrained: PretrainedModel, clips: Clips, work: Path) -> dict[str, Any]:
    """Measure the detector on clean, harmlessly changed and attacked clips."""
    guard = Guard(pretrained, fpr=RATES[0], seed=SEED, workers=1)

    def judged(name: str, samples: Tensor) -> Array:
        def make() -> Tensor:
            tell(f"judging {name}")
            return torch.from_numpy(suspicion(guard, samples))

        return np.asarray(kept(work / f"judged-{name.replace('/', '-')}.pt", make).numpy())

    def flagged(values: Array, owners: Sequence[int]) -> dict[str, Interval]:
        return {
            f"{rate:g}": share_of(values[:, 1] <= rate, list(owners), seed=SEED) for rate in RATES
        }

    clean = judged("clean", clips.samples)
    found: dict[str, Any] = {"attacks": {}, "benign": {}}
    for control in CONTROLS:
        changed = torch.stack(
            [
                control.apply(clip, sample_rate_hz=RATE, seed=seed_of(SEED, control.name, place))
                for place, clip in enumerate(clips.samples)
            ]
        )
        found["benign"][control.name] = flagged(judged(control.name, changed), clips.speakers)
    generator = generator_of(SEED, "uniform")
    noise = (torch.rand(clips.samples.shape, generator=generator) * 2 - 1) * 0.002
    changed = (clips.samples + noise).clamp(-1, 1)
    uniform = judged("uniform noise, ±.002", changed)
    found["benign"]["uniform noise, ±.002"] = flagged(uniform, clips.speakers)
    for goal in GOALS:
        for name in ATTACKS:
            rows, attacked, success = examples(pretrained, clips, goal, name, work)
            values = judged(f"{goal}-{name}", attacked)
            owners = np.array(rows)[success]
            cell: dict[str, Any] = {
                "attacked": len(rows),
                "succeed": int(success.sum()),
                "success": share_of(success, [clips.speakers[i] for i in rows], seed=SEED),
            }
            if success.sum() >= 5:
                hits = values[success]
                cell["auroc"] = interval_of_auroc(hits[:, 0], clean[:, 0], owners)
                cell["auroc_uniform"] = interval_of_auroc(hits[:, 0], uniform[:, 0], owners)
                cell["flagged"] = flagged(hits, [clips.speakers[i] for i in owners])
            found["attacks"][f"{goal}, {name}"] = cell
    return found


def purification(
    pretrained: PretrainedModel, clips: Clips, purifier: Purifier, work: Path
) -> dict[str, Any]:
    """Measure what a purifier restores, unaware attackers and one who knows it."""
    model = pretrained.model
    behind = defend(model, purifier, generator=generator_of(SEED, purifier.name))
    found: dict[str, Any] = {"clean": {}, "restored": {}, "adaptive": {}}
    for goal in GOALS:
        references = clips.references(goal)
        clean = accepted(model, clips.samples, references, clips.threshold)
        rows = [i for i, yes in enumerate(clean) if yes == (goal == "reject")]
        owners = [clips.speakers[i] for i in rows]
        now = accepted(behind, clips.samples[rows], references[rows], clips.threshold)
        found["clean"][goal] = share_of(now == (goal == "reject"), owners, seed=SEED)
        for name in ATTACKS:
            rows, attacked, success = examples(pretrained, clips, goal, name, work)
            if success.sum() < 5:
                continue
            claimed = references[rows][torch.from_numpy(success)]
            chosen = attacked[torch.from_numpy(success)]
            now = accepted(behind, chosen, claimed, clips.threshold)
            owners = [clips.speakers[i] for i, yes in zip(rows, success, strict=True) if yes]
            right = now == (goal == "reject")
            found["restored"][f"{goal}, {name}"] = share_of(right, owners, seed=SEED)
        found["adaptive"][goal] = adaptive(behind, clips, goal, purifier, work)
    found["eer"] = {
        name: _eer(one, clips) for name, one in (("without", model), ("behind it", behind))
    }
    return found


def adaptive(
    behind: InstrumentedModel, clips: Clips, goal: Goal, purifier: Purifier, work: Path
) -> dict[str, Any]:
    """Attack through the purifier, on one clip of each of some speakers (ε .002)."""
    references = clips.references(goal)
    clean = accepted(behind, clips.samples, references, clips.threshold)
    firsts = {speaker: place for place, speaker in reversed(list(enumerate(clips.speakers)))}
    rows = [
        place
        for speaker, place in sorted(firsts.items())
        if clean[place] == (goal == "reject") and speaker < ADAPTIVE_SPEAKERS
    ]
    attack = EndToEndPgd(eps=0.002, steps=40, restarts=1, draws=4 if purifier.random else 1)

    def make() -> Tensor:
        tell(f"adaptive, {goal}, {purifier.name}: {len(rows)} clips")
        return attack_all(behind, clips, rows, attack, goal)

    name = purifier.name.replace("/", "-").replace(" ", "_")
    attacked: Tensor = kept(work / f"adaptive-{goal}-{name}.pt", make)
    now = accepted(behind, attacked, references[rows], clips.threshold)
    fooled = now == (goal == "accept")
    share = share_of(fooled, [clips.speakers[i] for i in rows], seed=SEED)
    return {"clips": len(rows), "success": share}


@torch.no_grad()
def _eer(model: InstrumentedModel, clips: Clips) -> float:
    rows = torch.cat([model.embed(Batch(part)) for part in torch.split(clips.samples, BATCH)])
    scores = (torch.nn.functional.normalize(rows, dim=1) @ clips.voices.T).numpy()
    own = np.zeros(scores.shape, bool)
    own[np.arange(len(own)), list(clips.speakers)] = True
    return float(equal_error_rate(scores[own], scores[~own]).rate)


if __name__ == "__main__":
    run(main)
