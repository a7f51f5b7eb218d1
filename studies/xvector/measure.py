r"""Measure a published x-vector and its calibration; write one JSON of results.

    python -m studies.xvector.measure --model xvector-libri251 --data_folder /path/to/LibriSpeech \
        --split_file /path/to/LibriSpeech/split.csv --work_folder results/measure \
        --tolerant tolerant.calibration --results studies/results/xvector.json

There are three parts: closed-set accuracy on the training speakers, verification of unknown
speakers, and detection of adversarial files. These files are written to the work folder as 16-bit
wav and judged as read back; an interrupted run continues. ``--tolerant`` adds a second calibration,
made by ``nip-audio calibrate --tolerate-noise 0.016`` from the same recordings. ``--limit`` takes
fewer files for a trial run. Two processes with ``--shard 1/2`` and ``--shard 2/2`` split the long
computations; the command without ``--shard`` then combines them.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio import (
    CosineHead,
    WaveformAdapter,
    embed_audio,
    enrol,
    load_pretrained,
)
from nip_audio.core.metrics import bootstrap, equal_error_rate
from nip_audio.evaluation.identification import WHITE_NOISES, Crop, correct_crops
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.response import ResponseDetector
from nip_audio.training.corpora import prepare_librispeech
from studies._lib.command import command, run, write_results
from studies.xvector.detection import SEED, Clip, Trials, detection, fill_shard, read_clips


def closed_set(pretrained: PretrainedModel, clips: list[Clip]) -> dict[str, object]:
    """Measure accuracy on the training speakers: clean, 0.002 rms and 20 dB SNR white noise."""
    crops = [Crop(c.recording, c.audio.samples, c.audio.content_sha256) for c in clips]
    generator = torch.Generator().manual_seed(SEED)
    results: dict[str, object] = {"clips": len(clips), "speakers": len({c.speaker for c in clips})}
    for name, level in WHITE_NOISES.items():
        hit = correct_crops(pretrained, crops, level, generator=generator)
        results[name] = bootstrap(partial(_mean, hit), len(hit), seed=SEED).to_json()
    return results


def _mean(values: NDArray[np.float64], rows: NDArray[np.intp]) -> float:
    return float(values[rows].mean())


def embed_clips(pretrained: PretrainedModel, clips: list[Clip]) -> torch.Tensor:
    """Embed clips as (N, D) vectors of unit length."""
    return torch.stack([embed_audio(pretrained, c.audio.samples) for c in clips])


def verification(embeddings: torch.Tensor, clips: list[Clip]) -> dict[str, object]:
    """Measure the EER over all pairs of clips; intervals come from resampling speakers."""
    cosines = (embeddings @ embeddings.T).numpy()
    speaker = np.array([c.speaker for c in clips])
    chapter = np.array([c.chapter for c in clips])
    names = np.unique(speaker)
    members = {name: np.flatnonzero(speaker == name) for name in names}

    def eer(chosen: NDArray[np.intp]) -> float:
        """Return the EER over a bootstrap sample of speakers."""
        targets, impostors = [], []
        picked = names[chosen]
        for a, name in enumerate(picked):
            rows = members[name]
            upper = np.triu_indices(len(rows), 1)
            pairs = rows[upper[0]], rows[upper[1]]
            targets.append(cosines[pairs])
            impostors += [
                cosines[np.ix_(rows, members[name2])].ravel()
                for name2 in picked[a + 1 :]
                if name2 != name
            ]
        return equal_error_rate(np.concatenate(targets), np.concatenate(impostors)).rate

    upper = np.triu_indices(len(speaker), 1)
    same = (speaker[:, None] == speaker[None])[upper]
    one_chapter = (chapter[:, None] == chapter[None])[upper]
    return {
        "clips": len(clips),
        "speakers": len(names),
        "target_trials": int(same.sum()),
        "target_trials_of_one_chapter": int((same & one_chapter).sum()),
        "impostor_trials": int((~same).sum()),
        "eer": bootstrap(eer, len(names), seed=SEED, rounds=300).to_json(),
    }


def enrolled_eer(
    head: torch.nn.Module,
    embeddings: torch.Tensor,
    clips: list[Clip],
    voices: Enrolment,
    enrolled: list[Clip],
) -> dict[str, dict[str, Any]]:
    """Measure the EER of clips against enrolled speakers, separately for new chapters.

    Speakers are enrolled from other clips; the head scores the clips' embeddings against them.
    """
    with torch.no_grad():
        scores = head(embeddings).numpy()
    known = {(c.speaker, c.chapter) for c in enrolled}
    column = np.array([voices.speakers.index(c.speaker) for c in clips])
    fresh = np.array([(c.speaker, c.chapter) not in known for c in clips])
    by_speaker = [np.flatnonzero(column == s) for s in range(len(voices.speakers))]

    def eer(subset: NDArray[np.bool_], chosen: NDArray[np.intp]) -> float:
        rows = np.concatenate([r[subset[r]] for s in chosen for r in [by_speaker[s]]])
        target = scores[rows, column[rows]]
        others = [np.delete(scores[r], column[r]) for r in rows]
        impostor = np.concatenate(others) if others else np.array([])
        return equal_error_rate(target, impostor).rate

    everyone = np.ones(len(clips), bool)
    return {
        name: {
            "clips": int(subset.sum()),
            "speakers": len({c.speaker for c, s in zip(clips, subset, strict=True) if s}),
        }
        | bootstrap(partial(eer, subset), len(by_speaker), seed=SEED, rounds=300).to_json()
        for name, subset in (("all", everyone), ("new_chapter", fresh), ("same_chapter", ~fresh))
        if subset.any()
    }


def read_role(options: Namespace, subset: str, role: str) -> list[Clip]:
    """Read the recordings of a role and subset of LibriSpeech."""
    folder = options.work_folder / subset
    prepare_librispeech(
        str(options.data_folder), str(folder), subsets=[subset], split_file=str(options.split_file)
    )
    return read_clips(folder / f"{role}.csv", options.data_folder)


def main() -> None:
    """Measure all three parts and write the results."""
    needed = ("data_folder", "split_file", "work_folder", "results")
    parser = command(__doc__, needed=needed, paths=("tolerant", "calibration"))
    parser.add_argument("--model", default="xvector-libri251")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shard", help="1/2: only do the first of two shares, for two processes")
    options = parser.parse_args()
    pretrained = load_pretrained(options.model)
    # the page is about the clean-only detector: nip-audio calibrate --clean-only
    calibration = Calibration.of(pretrained, options.calibration)
    if isinstance(calibration.detector, ResponseDetector):
        raise SystemExit("pass --calibration with one that was made with --clean-only")
    read = partial(read_role, options)
    known_test, strangers_test = read("train-clean-100", "test"), read("test-clean", "test")
    strangers_train = read("test-clean", "train")
    voices = enrol(pretrained, [c.recording for c in strangers_train], WaveformAdapter())
    clips = strangers_test[: options.limit]
    key = f"{pretrained.model_id[:12]}-{calibration.fingerprint[:12]}"
    tolerant = None
    if options.tolerant is not None:
        tolerant = Calibration.load(options.tolerant, model_id=pretrained.model_id)
        if tolerant.detector.probe.config != calibration.detector.probe.config:
            raise SystemExit(
                "the two calibrations measure different noises; make both with the same noises"
            )
    trials = Trials(pretrained, calibration, voices, options.work_folder / key, tolerant)
    if options.shard:
        share, total = map(int, options.shard.split("/"))
        fill_shard(trials, clips, (share - 1, total))
        return
    embeddings, cosines = embed_clips(pretrained, strangers_test), CosineHead(voices.voices)
    results = {
        "model": pretrained.card.name,
        "model_id": pretrained.model_id,
        "calibration": calibration.fingerprint,
        "seed": SEED,
        "closed_set": closed_set(pretrained, known_test),
        "verification": verification(embeddings, strangers_test)
        | {"enrolled": enrolled_eer(cosines, embeddings, strangers_test, voices, strangers_train)},
        "detection": detection(trials, clips, read("test-clean", "calibrate")[: options.limit]),
    }
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
