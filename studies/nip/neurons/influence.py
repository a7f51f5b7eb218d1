"""Study the neurons that the published NIP uses: their influence, template and consistency.

NIP is neuron-level inverse perturbation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_influence
from nip_audio.core.metrics import bootstrap
from nip_audio.core.seeds import seed_of
from nip_audio.errors import InputError
from nip_audio.evaluation.statistics import spearman
from nip_audio.purifiers.noise import MATCHED
from studies.nip.neurons.subject import (
    BATCH,
    USUAL,
    Hits,
    Subject,
    in_parts,
    mean_of,
    noise_like,
    share_of,
)

Values = NDArray[np.float64]

QUORUMS = (1.0, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25)
PERMUTATIONS = 2000


# --- 3. influence of benign against adversarial ---


def study_influence(subject: Subject) -> dict[str, Any]:
    """Measure whether front neurons fall and tail neurons rise, under attacks and without.

    Front and tail are those of the clean original. Influence is normalised to [0, 1] per item, as
    in the paper's Fig. 1. The first front neuron is then at 1 and the last tail neuron at 0, so
    that any change can only lower the one and raise the other. Noise of the attack's energy and
    another clip of the same speaker show how much of the pattern comes from that.
    """
    bounds = subject.model.input_bounds
    rows, curves = [], {}
    for attacked in subject.attacks:
        seed = seed_of(subject.seed, attacked.name, "influence noise")
        change = noise_like(attacked.x - attacked.clean, seed=seed)
        after = {"attack": attacked.x, "noise": bounds.clip(attacked.clean + change)}
        moved, curve = _moved(subject, attacked.clean, attacked.labels, after)
        rows.append(attacked.describe() | _summary(moved, attacked.speakers, seed=subject.seed))
        curves[attacked.name] = curve
    first, second = same_speaker_pairs(subject)
    moved, curve = _moved(
        subject, subject.clean[first], subject.labels[first], {"attack": subject.clean[second]}
    )
    curves["another clip of the speaker"] = curve
    speakers = [subject.speakers[i] for i in first]
    other_clip = {"pairs": len(first)} | _summary(moved, speakers, seed=subject.seed)
    return {
        "k": [USUAL.front, USUAL.tail],
        "rows": rows,
        "other_clip": other_clip,
        "curves": curves,
    }


def same_speaker_pairs(subject: Subject) -> tuple[list[int], list[int]]:
    """Pair each correctly classified clean clip with the next one of its speaker."""
    right = np.flatnonzero(subject.is_correct)
    by_speaker: dict[str, list[int]] = {}
    for i in right.tolist():
        by_speaker.setdefault(subject.speakers[i], []).append(i)
    groups = [group for group in by_speaker.values() if len(group) > 1]
    return (
        [i for group in groups for i in group],
        [i for group in groups for i in [*group[1:], group[0]]],
    )


def _moved(
    subject: Subject, clean: Tensor, labels: Tensor, after: Mapping[str, Tensor]
) -> tuple[dict[str, Values], dict[str, list[float]]]:
    """Compute the change of normalised influence at front and tail, and the curves by rank.

    Returns:
        (B,) changes by name and ``front`` or ``tail``; and (N,) mean influence by name, with the
        neurons in the order of the clean original.
    """
    before = influence(subject, clean, labels)
    order = before.argsort(dim=1, descending=True, stable=True)
    ranked = {"clean": normalised(before).gather(1, order)}
    for name, x in after.items():
        for of, target in (("true", labels), ("named", None)):
            values = normalised(influence(subject, x, target))
            ranked[f"{name}_{of}"] = values.gather(1, order)
    moved = {}
    for name, values in ranked.items():
        change = (values - ranked["clean"]).double().numpy()
        moved[f"{name}_front"] = change[:, : USUAL.front].mean(axis=1)
        moved[f"{name}_tail"] = change[:, change.shape[1] - USUAL.tail :].mean(axis=1)
    curves = {n: [round(float(v), 4) for v in c.mean(dim=0)] for n, c in ranked.items()}
    return {n: v for n, v in moved.items() if not n.startswith("clean")}, curves


def influence(subject: Subject, x: Tensor, target: Tensor | None) -> Tensor:
    """Return the influence σ on the logit of given or, for None, predicted classes, (B, N)."""
    targets = [None] * -(-len(x) // BATCH) if target is None else in_parts(target)
    return torch.cat(
        [
            neuron_influence(subject.model, Batch(part), subject.layer, target=wanted)
            for part, wanted in zip(in_parts(x), targets, strict=True)
        ]
    )


def normalised(values: Tensor) -> Tensor:
    """Scale each item to [0, 1]."""
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    return (values - low) / (high - low).clamp_min(1e-12)


def _summary(
    moved: Mapping[str, Values], speakers: Sequence[str], *, seed: int
) -> dict[str, dict[str, float]]:
    """Average the changes and count items in which front falls and tail rises, also minus noise."""
    means = {name: mean_of(values, speakers, seed=seed) for name, values in moved.items()}
    for stem in {name.rsplit("_", 1)[0] for name in moved}:
        both = (moved[f"{stem}_front"] < 0) & (moved[f"{stem}_tail"] > 0)
        means[f"{stem}_both"] = share_of(both, speakers, seed=seed)
    for name in [n for n in moved if n.startswith("noise")]:
        attack = name.replace("noise", "attack")
        difference = moved[attack] - moved[name]
        means[name.replace("noise", "excess")] = mean_of(difference, speakers, seed=seed)
    return means


# --- 4. template and overlap ---


def study_template(subject: Subject) -> dict[str, Any]:
    """Count the neurons of the template, and measure whether it or its match depends on speaker."""
    pool = subject.large
    items, neurons = pool.order.shape
    cut = pool.selection(torch.arange(items))
    within = {
        part: membership(getattr(cut, part), neurons) for part in ("front", "remaining", "tail")
    }
    shares = {part: mask.mean(axis=0) for part, mask in within.items()}
    classes = subject.crop_classes
    matched = subject.usual
    return {
        "items": items,
        "neurons": neurons,
        "classes": len(np.unique(classes)),
        "quorums": [
            {"quorum": q, **{part: int((s >= q - 1e-9).sum()) for part, s in shares.items()}}
            for q in QUORUMS
        ],
        "intersections": [
            {"items": n, "remaining": int(within["remaining"][:n].all(axis=0).sum())}
            for n in (1, 3, 10, 30, 100, 300, items)
            if n <= items
        ],
        "overlap": {
            part: overlap(within[part], classes, seed=subject.seed) for part in ("front", "tail")
        },
        "similarity_and_class": explained(
            matched.similarities.numpy(), classes[: len(matched.rho)], seed=subject.seed
        ),
        "matches": _matches(subject, classes[: len(matched.rho)]),
    }


def membership(indices: Tensor, neurons: int) -> NDArray[np.float64]:
    """Turn indices (t, k) into zeros and ones (t, N)."""
    return np.asarray(torch.zeros(len(indices), neurons).scatter_(1, indices.long(), 1.0).double())


def overlap(mask: Values, classes: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """Measure how many chosen neurons two items share: of one class, of two, and by chance.

    Means are over classes with at least two items, which the bootstrap resamples.
    """
    shared = mask @ mask.T
    same = classes[:, None] == classes[None, :]
    others = ~np.eye(len(classes), dtype=bool)
    names = [c for c in np.unique(classes) if (classes == c).sum() > 1]
    within, between = (
        np.array([shared[classes == c][wanted[classes == c]].mean() for c in names])
        for wanted in (same & others, ~same)
    )
    counted = [str(c) for c in names]
    return {
        "same_class": mean_of(within, counted, seed=seed),
        "other_class": mean_of(between, counted, seed=seed),
        "by_chance": float(mask.sum(axis=1).mean() ** 2 / mask.shape[1]),
        "classes": len(names),
    }


def explained(values: Values, classes: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """Return the share of variance that the class explains (η²), and its value by permutation."""
    if np.ptp(values) == 0:
        return {"share": None, "by_chance": None, "p": None, "items": len(values)}
    rng = np.random.default_rng(seed)
    _, group = np.unique(classes, return_inverse=True)
    counts = np.bincount(group)
    centred = values - values.mean()

    def share(of: NDArray[np.intp]) -> float:
        sums = np.bincount(of, weights=centred)
        return float((sums**2 / counts).sum() / (centred**2).sum())

    found = share(group)
    chance = np.array([share(rng.permutation(group)) for _ in range(PERMUTATIONS)])
    p = float((1 + (chance >= found).sum()) / (1 + PERMUTATIONS))
    return {"share": found, "by_chance": float(chance.mean()), "p": p, "items": len(values)}


def _matches(subject: Subject, classes: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Measure how often the chosen candidate is of the input's class, beside a random candidate."""
    rows = []
    groups = [
        ("nobody attacks", subject.clean, subject.labels, subject.speakers),
        *((a.name, a.x, a.labels, a.speakers) for a in subject.attacks),
    ]
    frequency = np.bincount(classes, minlength=len(subject.model.labels)) / len(classes)
    for name, x, labels, speakers in groups:
        chosen = np.concatenate([subject.usual.choose(Batch(p)).numpy() for p in in_parts(x)])
        own: Hits = classes[chosen] == labels.numpy()
        rows.append(
            {
                "attack": name,
                "items": len(labels),
                "used": len(np.unique(chosen)),
                "own_class": share_of(own, speakers, seed=subject.seed),
                "by_chance": float(frequency[labels.numpy()].mean()),
            }
        )
    return rows


def study_distributions(subject: Subject) -> list[dict[str, Any]]:
    """Measure how far attacks move the values of inputs and of activations (NIP, Fig. 12).

    The distance is that of Kolmogorov and Smirnov: the largest difference between the distribution
    functions of the values of adversarial examples and of their originals.
    """
    rows = []
    for attacked in subject.attacks:
        found: dict[str, Any] = {}
        pair = {"adversarial": attacked.x, "clean": attacked.clean}
        activations = {name: _activations(subject, x) for name, x in pair.items()}
        for place, values in (("input", pair), ("activation", activations)):
            first, second = (
                values[n].flatten(1).double().numpy() for n in ("adversarial", "clean")
            )
            found[place] = _distance(first, second, attacked.speakers, seed=subject.seed)
        rows.append(attacked.describe() | found)
    return rows


@torch.no_grad()
def _activations(subject: Subject, x: Tensor) -> Tensor:
    taken = []
    for part in in_parts(x):
        with subject.model.tap(subject.layer) as tap:
            subject.model.embed_input(Batch(part))
            taken.append(tap[subject.layer])
    return torch.cat(taken)


def _distance(
    first: Values, second: Values, speakers: Sequence[str], *, seed: int
) -> dict[str, float]:
    """Return the largest difference of two distribution functions; speakers are resampled."""
    edges = np.quantile(np.concatenate([first, second]), np.linspace(0, 1, 201))
    names, group = np.unique(np.asarray(speakers), return_inverse=True)
    below = []
    for values in (first, second):
        counts = np.stack([np.searchsorted(np.sort(row), edges, side="right") for row in values])
        below.append(np.stack([counts[group == g].sum(axis=0) for g in range(len(names))]))
    sizes = np.bincount(group) * first.shape[1]

    def statistic(chosen: NDArray[np.intp]) -> float:
        a, b = (part[chosen].sum(axis=0) / sizes[chosen].sum() for part in below)
        return float(np.abs(a - b).max())

    return bootstrap(statistic, len(names), seed=seed).to_json()


# --- 5. top-k neuron consistency against success ---


def study_consistency(results: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Correlate defence success rate (DSR) and top-k neuron consistency (TKNC).

    Args:
        results: Results of ``nip-audio evaluate``, whose defences and attacks are the points.
        seed: Seed of the bootstrap.
    """
    points = [
        {
            "system": cell["system"],
            "attack": cell["set"],
            "level": cell["level"],
            "defence": row["defence"],
            "noise": row["defence"].startswith(MATCHED),
            "dsr": row["dsr"]["value"],
            "tknc": row["tknc"],
        }
        for cell in results["cells"]
        for row in cell["defences"]
        if cell["protocol"] == "unaware" and row["dsr"] is not None
    ]
    own = [p for p in points if not p["noise"]]
    # only waveform attacks are run against every defence
    raw = [p for p in own if p["level"] == "raw"]
    return {
        "title": results["title"],
        "evaluation_seed": results["seed"],
        "systems": sorted({p["system"] for p in points}),
        "points": points,
        "correlations": [
            {"over": over, **_correlation(chosen, unit, seed=seed), "resampled": unit}
            for over, chosen, unit in (
                ("all cells, matched noise among the defences", points, "attack"),
                ("all cells, without matched noise", own, "attack"),
                ("matched noise alone", [p for p in points if p["noise"]], "attack"),
                ("defences, each its mean over the waveform attacks", means(raw, "defence"), None),
                ("attacks, each its mean over the defences", means(own, "attack"), None),
            )
        ],
        "within_attacks": _within(own, seed=seed),
    }


def means(points: Sequence[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """Average the points of each defence, or of each attack."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault(point[by], []).append(point)
    return [
        {by: name, **{q: float(np.mean([p[q] for p in group])) for q in ("dsr", "tknc")}}
        for name, group in groups.items()
    ]


def _correlation(
    points: Sequence[Mapping[str, Any]], unit: str | None, *, seed: int
) -> dict[str, Any]:
    """Return Spearman's ρ, its p-value, and an interval by bootstrap over units, or points if None.

    Correlation and p-value are None if they are undefined, e.g. with all values on one side equal.
    """
    dsr, tknc = (np.array([p[q] for p in points]) for q in ("dsr", "tknc"))
    names = np.array([str(i) if unit is None else p[unit] for i, p in enumerate(points)])
    members = [np.flatnonzero(names == name) for name in np.unique(names)]

    def statistic(chosen: NDArray[np.intp]) -> float:
        rows = np.concatenate([members[i] for i in chosen])
        return spearman(dsr[rows].tolist(), tknc[rows].tolist())[0]

    try:
        p = spearman(dsr.tolist(), tknc.tolist())[1]
        rho = bootstrap(statistic, len(members), seed=seed).to_json()
    except InputError:
        return {"points": len(points), "rho": None, "p": None}
    return {"points": len(points), "rho": rho, "p": p}


def _within(points: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Average over attacks the ρ over the defences against one attack, as in the paper."""
    found, flat = [], 0
    for attack in dict.fromkeys(p["attack"] for p in points):
        pairs = [(p["dsr"], p["tknc"]) for p in points if p["attack"] == attack]
        if len(pairs) < 4 or np.ptp([d for d, _ in pairs]) == 0:
            flat += 1
            continue
        rho, p_value = spearman(*zip(*pairs, strict=True))
        found.append({"attack": attack, "defences": len(pairs), "rho": rho, "p": p_value})
    rhos = np.array([row["rho"] for row in found])
    mean = mean_of(rhos, [row["attack"] for row in found], seed=seed) if found else None
    return {"mean": mean, "attacks": found, "without_ranks": flat}
