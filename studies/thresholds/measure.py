r"""Count how often the intervals of a threshold hold the truth; write one JSON.

    python -m studies.thresholds.measure --data-folder LibriSpeech --work results/thresholds \
        --results studies/results/thresholds.json

The truth is what all trials of some strangers say. Lists of trials are drawn from them, speakers
with replacement, and each gives an interval of its own. Two copies of one speaker in a list are two
speakers to the bootstrap, and make no impostor trials with each other. The embeddings are kept in
the work folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from nip_audio import PretrainedModel, embed_audio, load_pretrained
from nip_audio.audio.corpus import Span, read_split
from nip_audio.audio.io import read_audio
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.metrics import Interval
from nip_audio.core.state import file_sha256
from nip_audio.models.operating_point import Aim, find_operating_point
from nip_audio.models.trial_scores import ErrorRates, TrialScores, bca_interval, crossing
from studies._lib.command import command, run, tell, write_results

Array = NDArray[np.float64]
Ends = tuple[Array, Array]

MODEL = "xvector-libri251"
SUBSET = "test-clean"
CROP_S = 4.0
FAR = 0.01
SIZES = (30, 15)
LISTS = 500
ROUNDS = 500
CUTS = 400  # thresholds of either kind of trial, to be quick
SEED = 1  # the form of the interval was chosen on lists of seed 0
QUANTITIES = ("threshold", "frr", "eer")


def percentiles(value: Array, drawn: Array, left_out: Array, count: int) -> Ends:  # noqa: ARG001
    """Return the percentile interval."""
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def jackknife(value: Array, drawn: Array, left_out: Array, count: int) -> Ends:  # noqa: ARG001
    """Return Student's interval from the influence of each speaker."""
    spread = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    reach = student.ppf(0.975, count - 1) * np.sqrt((count - 1) / count * spread)
    return value - reach, value + reach


def ours(value: Array, drawn: Array, left_out: Array, count: int) -> Ends:
    """Return the interval of nip-audio."""
    return bca_interval(value, drawn, left_out, count=count)


METHODS: dict[str, Callable[[Array, Array, Array, int], Ends]] = {
    "percentile bootstrap": percentiles,
    "jackknife, Student's t": jackknife,
    "nip-audio": ours,
}


def embed(pretrained: PretrainedModel, root: Path, spans: list[Span], work: Path) -> Array:
    """Embed the recordings, or take what an earlier run kept."""
    kept = work / f"{fingerprint([pretrained.model_id, CROP_S, [s.path for s in spans]])[:16]}.npy"
    if not kept.exists():
        rows = []
        for place, span in enumerate(spans):
            audio = read_audio(root / span.path)
            size = round(CROP_S * audio.sample_rate_hz)
            rows.append(embed_audio(pretrained, audio.samples[:size]))
            if place % 100 == 0:
                tell(f"{place} of {len(spans)} recordings")
        np.save(kept, torch.stack(rows).double().numpy())
    return np.asarray(np.load(kept))


def statistics(rates: ErrorRates, aim: Aim, weights: Array) -> Array:
    """Return threshold, FRR there and EER of every row of weights, (R, 3)."""
    accepted, rejected = rates(weights)
    place = aim.place(accepted, rejected)
    found = [
        rates.thresholds[place],
        rejected[np.arange(len(place)), place],
        crossing(accepted, rejected)[0],
    ]
    return np.stack(found, axis=1)


def coverage(rates: ErrorRates, aim: Aim, truth: Array, size: int) -> list[dict[str, Any]]:
    """Draw lists of some speakers, and count whose intervals hold the truth."""
    rng = np.random.default_rng((SEED, size))
    total = len(rates.trials.groups)
    ends: dict[str, list[Ends]] = {name: [] for name in METHODS}
    for number in range(LISTS):
        drawn = np.eye(total)[rng.integers(0, total, size)]  # (size, total): who each speaker is
        own = drawn.sum(axis=0)
        times = rng.multinomial(size, np.full(size, 1 / size), ROUNDS)
        value = statistics(rates, aim, own[None])[0]
        resampled = statistics(rates, aim, times @ drawn)
        left_out = statistics(rates, aim, own - drawn)
        for name, method in METHODS.items():
            ends[name].append(method(value, resampled, left_out, size))
        if number % 100 == 0:
            tell(f"{size} speakers: {number} of {LISTS} lists")
    rows = []
    for name, found in ends.items():
        low, high = (np.stack([pair[k] for pair in found]) for k in (0, 1))
        for column, quantity in enumerate(QUANTITIES):
            above, below = low[:, column] > truth[column], high[:, column] < truth[column]
            rows.append(
                {
                    "speakers": size,
                    "method": name,
                    "quantity": quantity,
                    "holds": share(~(above | below)),
                    "truth_below": float(above.mean()),
                    "truth_above": float(below.mean()),
                    "width": float((high - low)[:, column].mean()),
                }
            )
    return rows


def share(hits: NDArray[np.bool_]) -> Interval:
    """Return a share of independent lists with its exact interval."""
    exact = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
    return Interval(float(hits.mean()), float(exact.low), float(exact.high))


def main() -> None:
    """Measure, and write the results."""
    parser = command(__doc__, needed=("data-folder", "work", "results"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    split = options.data_folder / "split.csv"
    spans = [s for s in read_split(split) if s.path.startswith(f"{SUBSET}/")]
    pretrained = load_pretrained(MODEL)
    vectors = embed(pretrained, options.data_folder, spans, options.work)
    one, other = np.triu_indices(len(vectors), 1)
    names = np.array([span.speaker for span in spans])
    trials = TrialScores.of((vectors @ vectors.T)[one, other], names[one], names[other])
    aim = Aim(far=FAR)
    started = time.process_time()
    whole = find_operating_point(trials, aim, seed=SEED)
    seconds = time.process_time() - started
    rates = ErrorRates(trials, most=CUTS)
    truth = statistics(rates, aim, np.ones((1, len(trials.groups))))[0]
    rows = [row for size in SIZES for row in coverage(rates, aim, truth, size)]
    write_results(
        options.results,
        {
            "model": MODEL,
            "model_id": pretrained.model_id,
            "split_sha256": file_sha256(split),
            "recordings": len(spans),
            "chapters": len({(span.speaker, Path(span.path).parent) for span in spans}),
            "crop_s": CROP_S,
            "lists": LISTS,
            "list_rounds": ROUNDS,
            "seed": SEED,
            "seconds": round(seconds, 1),
            "truth": dict(zip(QUANTITIES, map(float, truth), strict=True)),
            "whole": whole.to_json(),
            "coverage": rows,
        },
    )


if __name__ == "__main__":
    run(main)
