"""Compare the neurons that NIP, CAS and SNS select (the NIP paper's Fig. 11).

NIP is neuron-level inverse perturbation, CAS channel-wise activation suppressing and SNS sensitive
neuron stabilizing. Each selects ten neurons of one layer for each image.
"""

from __future__ import annotations

from itertools import combinations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from nip_audio.attacks.objectives import Identification
from nip_audio.attacks.registry import make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_influence, neuron_outputs, select_neurons
from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.core.seeds import seed_of
from studies._lib.attacks import fraction
from studies._lib.command import tell
from studies.images.results import OverlapResults
from studies.images.setup import Setup
from studies.images.systems import ImageSystem

__all__ = ["overlap", "shared"]

CHOSEN = 10
"""Neurons that each method selects: for NIP half of them front, half of them tail."""


def outputs(system: ImageSystem, layer: str, pixels: Tensor) -> Tensor:
    """Return the neuron outputs of a layer, (n, N)."""
    parts = []
    with torch.no_grad(), system.model.tap(layer) as tap:
        for part in torch.split(pixels, 100):
            system.model.embed(Batch(part))
            parts.append(neuron_outputs(tap[layer]))
    return torch.cat(parts)


def of_nip(system: ImageSystem, layer: str, benign: Tensor) -> Tensor:
    """Return NIP's front and tail neurons of benign images, (n, 10)."""
    influence = neuron_influence(system.model, Batch(benign), layer)
    half = CHOSEN // 2
    chosen = select_neurons(influence, front=half, tail=half)
    return torch.cat([chosen.front, chosen.tail], dim=1)


def of_sns(benign: Tensor, attacked: Tensor) -> Tensor:
    """Return the most sensitive neurons: those that the attack changes most, (n, 10)."""
    return (attacked - benign).abs().topk(CHOSEN, dim=1).indices


def of_cas(known: Tensor, classes: Tensor, attacked: Tensor) -> Tensor:
    """Return the channels that CAS weighs most for the class that its classifier predicts, (n, 10).

    Deviation: the classifier is fitted to the finished network instead of being trained in it.

    Args:
        known: (m, N) outputs for training images, and their ``classes`` (m,).
        classes: Classes that the model predicts for them, of three or more.
        attacked: (n, N) outputs for attacked images.
    """
    auxiliary = LogisticRegression(max_iter=500).fit(known.numpy(), classes.numpy())
    rows = auxiliary.decision_function(attacked.numpy()).argmax(axis=1)
    weights = torch.from_numpy(auxiliary.coef_[rows])
    return (weights * attacked).topk(CHOSEN, dim=1).indices


def shared(*chosen: Tensor, neurons: int) -> Tensor:
    """Count the neurons that all selections of an image share, (n,)."""
    masks = [torch.zeros(len(c), neurons, dtype=torch.bool).scatter_(1, c, True) for c in chosen]
    return torch.stack(masks).all(dim=0).sum(dim=1)


def overlap(setup: Setup) -> None:
    """Measure how many neurons the selections share."""
    system, plan = setup.system(), setup.plan["overlap"]
    layer = system.pretrained.card.default_taps[-1]
    rows = system.correct_rows[: plan["images"]]
    benign, labels = system.test.pixels[rows], system.test.labels[rows]
    eps = fraction(setup.chosen["overlap_eps"])
    tell(f"pgd {eps:g}")
    attacked = make_attack("pgd", eps=eps, level="input")(
        Identification(system.model, labels),
        Batch(benign),
        generator=torch.Generator().manual_seed(seed_of(setup.seed, "overlap")),
    ).batch.x
    known = setup.train(system)[: plan["learn"]]
    before, after = (outputs(system, layer, x) for x in (benign, attacked))
    chosen = {
        "NIP": of_nip(system, layer, benign),
        "CAS": of_cas(outputs(system, layer, known), system.predict(known), after),
        "SNS": of_sns(before, after),
    }
    neurons = before.shape[1]

    def mean(names: tuple[str, ...]) -> Interval:
        counts = shared(*(chosen[name] for name in names), neurons=neurons).double().numpy()
        return bootstrap(lambda r: float(counts[r].mean()), len(counts), seed=setup.seed)

    groups = [names for size in (2, 3) for names in combinations(chosen, size)]
    setup.keep(
        OverlapResults(
            model=system.name,
            seed=setup.seed,
            layer=layer,
            neurons=neurons,
            images=len(rows),
            eps=eps,
            shared={" and ".join(names): mean(names) for names in groups},
        )
    )
