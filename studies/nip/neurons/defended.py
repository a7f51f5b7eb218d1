"""Study what the published NIP recovers: with an oracle, over settings, as NIP_n, and its cost.

NIP is neuron-level inverse perturbation. The oracle is the published script's protocol, which uses
the clean original and the label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import seed_of
from nip_audio.purifiers.nip_activation import ActivationNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.noise import MatchedNoise
from studies.nip.neurons.subject import (
    BATCH,
    CANDIDATES,
    Attacked,
    Hits,
    Subject,
    changed,
    in_parts,
    mean_of,
    noise_like,
    quietly,
    share_of,
)

SWEPT = ("pgd", "deepfool")
"""Attacks of the sweeps, by name in the registry."""

SWEPT_EXAMPLES = 100
"""Number of successful examples of each attack that are used."""

DRAWS = 3
SCRIPT = PoolSettings(front=1, tail=5)
"""Values k1 and k2 of the published script."""

SCRIPT_STEP = 0.001
TIMED = 5


# --- 1. the oracle ---


def paired_directions(subject: Subject, clean: Tensor, settings: PoolSettings) -> Tensor:
    """Return ∇(Σ_front φ − Σ_tail φ) at each clean original, up to a positive factor, (B, *S).

    These are the candidates of a pool fitted to the clean originals, which no defender has.
    """
    batches = (Batch(part) for part in in_parts(clean))
    pool = quietly(
        lambda: NipPool.fit(
            subject.model,
            batches,
            layer=subject.layer,
            model_id=subject.model_id,
            settings=settings,
        )
    )
    return -pool.rho


def of_script(directions: Tensor, x: Tensor) -> Tensor:
    """Scale like the published script: 0.001 times the gradient over its root mean square."""
    rms = directions.square().flatten(1).mean(dim=1).sqrt().clamp_min(1e-12)
    return SCRIPT_STEP * directions / rms.reshape(-1, *[1] * (x.dim() - 1))


def of_paper(directions: Tensor, x: Tensor) -> Tensor:
    """Scale like Eq. 8: Mean(x̂) over Max − Min of the gradient."""
    flat = directions.flatten(1)
    span = (flat.amax(dim=1) - flat.amin(dim=1)).clamp_min(1e-12)
    return directions * (x.flatten(1).mean(dim=1) / span).reshape(-1, *[1] * (x.dim() - 1))


def oracle_rights(subject: Subject, attacked: Attacked, change: Tensor) -> tuple[Hits, Hits]:
    """Return which examples a change recovers, and which it recovers with either sign.

    The second is the script's rule: if the prediction is not the clean label, flip the sign and try
    again. It needs the label, so that no defender can follow it.
    """
    bounds = subject.model.input_bounds
    first, flipped = (
        subject.right(bounds.clip(attacked.x + sign * change), attacked.labels) for sign in (1, -1)
    )
    return first, first | flipped


def of_own_class(subject: Subject, labels: Tensor) -> tuple[Tensor, Hits]:
    """Return a candidate of the pool for each label, one that the model predicts as that class.

    Returns:
        (B, *S) candidates, and (B,) whether each is of the label's class; a class without a
        candidate gets the first of the pool.
    """
    pool = subject.usual
    classes = subject.crop_classes[: len(pool.rho)]
    rows = [np.flatnonzero(classes == label) for label in labels.numpy()]
    chosen = torch.tensor([int(found[0]) if len(found) else 0 for found in rows])
    return pool.rho[chosen], np.array([len(found) > 0 for found in rows])


def study_oracle(subject: Subject) -> list[dict[str, Any]]:
    """Compare the published script's protocol with one without labels, attack by attack."""
    pool = changed(subject.usual, sign="paper")
    descent = changed(pool, sign="descent")
    rows = []
    for attacked in subject.attacks:
        x, labels = attacked.x, attacked.labels
        directions = paired_directions(subject, attacked.clean, SCRIPT)
        script, stronger = of_script(directions, x), of_paper(directions, x)
        noise = noise_like(stronger, seed=seed_of(subject.seed, attacked.name, "oracle noise"))
        class_only, known = of_own_class(subject, labels)
        with torch.no_grad():
            own = pool.purify(Batch(x), generator=torch.Generator()).x - x
        tried = {
            "script": script,
            "stronger": stronger,
            "noise": noise,
            "own_class": of_paper(-class_only, x),
            "honest": own,
        }
        found: dict[str, Hits] = {
            "honest": subject.right(x, labels, pool),
            "honest_descent": subject.right(x, labels, descent),
            "honest_noise": subject.right(x, labels, MatchedNoise(pool, bounds=pool.bounds)),
        }
        for name, change in tried.items():
            first, either = oracle_rights(subject, attacked, change)
            found |= {f"oracle_{name}_once": first, f"oracle_{name}": either}
        rows.append(
            attacked.describe()
            | {"classes_with_candidate": float(known.mean())}
            | {k: share_of(v, attacked.speakers, seed=subject.seed) for k, v in found.items()}
        )
    return rows


# --- 2. the sweeps ---


@dataclass(frozen=True)
class Variant:
    """One setting of a sweep.

    Attributes:
        sweep: Name of the setting that is varied.
        setting: Value of the setting.
        pools: Pools with this setting; several if candidates are drawn at random.
    """

    sweep: str
    setting: str
    pools: Sequence[NipPool]


def variants(subject: Subject) -> Iterator[Variant]:
    """List pools that differ from the usual one in one setting each."""
    usual = subject.usual
    settings = usual.pool_settings
    yield Variant("as usual", "", [usual])
    yield Variant("sign", "descent", [changed(usual, sign="descent")])
    yield Variant(
        "influence", "confidence", [subject.fit(replace(settings, influence="confidence"))]
    )
    for factor in (0.25, 0.5, 2.0, 4.0):
        yield Variant("step, times Eq. 8", f"{factor:g}", [times(usual, factor)])
    for factor in (2.0, 4.0):
        turned = changed(times(usual, factor), sign="descent")
        yield Variant("step, times Eq. 8", f"{factor:g}, descent", [turned])
    neurons = usual.order.shape[1]
    for front, tail in ((1, 1), (1, 5), (5, 1), (5, 0), (0, 5), (10, 10), (20, 20)):
        if front + tail < neurons:
            pool = subject.fit(replace(settings, front=front, tail=tail))
            yield Variant("k1 / k2", f"{front} / {tail}", [pool])
    for layer in subject.layers[:-1]:
        pool = subject.fit(settings, layer=layer)
        yield Variant("layer", layer, [pool])
        yield Variant("layer", f"{layer}, descent", [changed(pool, sign="descent")])
    for quorum in (1.0, 0.95, 0.9, 0.75, 0.5, 0.25):
        if quorum != settings.quorum:
            yield Variant("quorum", f"{quorum:g}", [changed(usual, quorum=quorum)])
    for eta in (0.01, 0.1, 0.3):
        yield Variant("η, share of the candidates", f"{eta:g}", list(_drawn(usual, eta)))
    yield Variant("candidates", f"{len(subject.crops)}", [subject.large])


def times(pool: NipPool, factor: float) -> NipPool:
    """Return a pool whose changes are scaled by a factor."""
    return quietly(
        lambda: NipPool(
            pool.model,
            layer=pool.layer,
            model_id=pool.model_id,
            settings=pool.pool_settings,
            rho=factor * pool.rho,
            order=pool.order,
            seen=pool.seen,
            eta=pool.eta,
        )
    )


def _drawn(pool: NipPool, eta: float) -> Iterator[NipPool]:
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        yield quietly(lambda g=generator: pool.with_share(eta, generator=g))  # type: ignore[misc]


def study_sweeps(subject: Subject) -> list[dict[str, Any]]:
    """Measure what each setting recovers, beside noise of equal energy, and its benign accuracy."""
    swept = [attacked for attacked in subject.attacks if attacked.attack in SWEPT]
    return [
        {
            "sweep": variant.sweep,
            "setting": variant.setting,
            "candidates": len(variant.pools[0].rho),
            "draws": len(variant.pools),
            "template": [len(pool.template) for pool in variant.pools],
            "accuracy": _beside_noise(
                subject, variant.pools, subject.clean, subject.labels, subject.speakers
            ),
            "attacks": [
                attacked.describe()
                | {"judged": min(len(attacked.labels), SWEPT_EXAMPLES)}
                | _beside_noise(
                    subject,
                    variant.pools,
                    attacked.x[:SWEPT_EXAMPLES],
                    attacked.labels[:SWEPT_EXAMPLES],
                    attacked.speakers[:SWEPT_EXAMPLES],
                )
                for attacked in swept
            ],
        }
        for variant in variants(subject)
    ]


def _beside_noise(
    subject: Subject,
    pools: Sequence[NipPool],
    x: Tensor,
    labels: Tensor,
    speakers: Sequence[str],
) -> dict[str, Any]:
    """Measure accuracy behind pools and behind matched noise, and the difference."""
    own = np.concatenate([subject.right(x, labels, pool) for pool in pools])
    noise = np.concatenate(
        [subject.right(x, labels, MatchedNoise(pool, bounds=pool.bounds)) for pool in pools]
    )
    return compared(own, noise, list(speakers) * len(pools), seed=subject.seed)


def compared(own: Hits, other: Hits, speakers: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return two shares and their mean paired difference."""
    return {
        "right": share_of(own, speakers, seed=seed),
        "noise": share_of(other, speakers, seed=seed),
        "gain": mean_of(own.astype(float) - other, speakers, seed=seed),
    }


# --- 6. activations instead of inputs ---


def study_activation(subject: Subject) -> list[dict[str, Any]]:
    """Compare NIP_n with NIP, and with the same change at randomly drawn neurons."""
    usual = subject.usual
    rows = []
    for sign in ("paper", "descent"):
        pool = changed(usual, sign=sign)
        chosen, drawn = (
            ActivationNip(p) for p in (pool, of_other_neurons(pool, seed=subject.seed))
        )
        groups: list[tuple[Mapping[str, Any], Tensor, Tensor, Sequence[str]]] = [
            ({"attack": None}, subject.clean, subject.labels, subject.speakers),
            *((a.describe(), a.x, a.labels, a.speakers) for a in subject.attacks),
        ]
        for described, x, labels, speakers in groups:
            hits = {
                "input": subject.right(x, labels, pool),
                "activation": subject.right(x, labels, chosen),
                "random_neurons": subject.right(x, labels, drawn),
            }
            shares = {k: share_of(v, speakers, seed=subject.seed) for k, v in hits.items()}
            gain = hits["activation"].astype(float) - hits["input"]
            rows.append(
                {
                    "sign": sign,
                    **described,
                    **shares,
                    "gain": mean_of(gain, speakers, seed=subject.seed),
                }
            )
    return rows


def of_other_neurons(pool: NipPool, *, seed: int) -> NipPool:
    """Return a pool whose candidates have front and tail neurons drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(pool.order.shape, generator=generator).argsort(dim=1)
    return quietly(
        lambda: NipPool(
            pool.model,
            layer=pool.layer,
            model_id=pool.model_id,
            settings=pool.pool_settings,
            rho=pool.rho,
            order=drawn.int(),
            seen=pool.seen,
        )
    )


# --- 7. what it costs ---


def study_efficiency(subject: Subject) -> list[dict[str, Any]]:
    """Measure CPU milliseconds per item of fitting and purifying, in batches and one by one."""
    pool = subject.usual
    generator = torch.Generator()
    rows = []
    for size in (BATCH, 1):
        batch = Batch(subject.clean[:size])

        def fit(batch: Batch = batch) -> None:
            quietly(
                lambda: NipPool.fit(
                    subject.model,
                    [batch],
                    layer=subject.layer,
                    model_id="timed",
                    settings=pool.pool_settings,
                )
            )

        parts: Mapping[str, Callable[[], object]] = {
            "the model's own forward pass": lambda b=batch: subject.model.embed_input(b),  # type: ignore[misc]
            "fit": fit,
            "choose a candidate": lambda b=batch: pool.choose(b),  # type: ignore[misc]
            "choose and add: all of purify": lambda b=batch: pool.purify(b, generator=generator),  # type: ignore[misc]
        }
        for part, call in parts.items():
            rows.append(
                {"part": part, "batch": size, "candidates": CANDIDATES, **_timed(call, size)}
            )
    return rows


def _timed(call: Callable[[], object], items: int) -> dict[str, Any]:
    with torch.no_grad():
        call()  # warm up
        taken = []
        for _ in range(TIMED):
            start = time.process_time()
            call()
            taken.append(1000 * (time.process_time() - start) / items)
    return {
        "cpu_ms": float(np.median(taken)),
        "least_cpu_ms": min(taken),
        "most_cpu_ms": max(taken),
        "runs": TIMED,
    }
