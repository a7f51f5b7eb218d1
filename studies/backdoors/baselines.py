"""STRIP and activation clustering: by the rules of their papers, and in ART's versions.

ART is the Adversarial Robustness Toolbox. Both methods get model inputs (spectrograms) and
embeddings, because ART's classifiers have no front end. Differences from the papers are stated at
each function.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from nip_audio.attacks._art import classifier, preserved_logging, seeded_globals
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, MissingDependencyError

__all__ = [
    "Analysis",
    "Clusters",
    "activation_clustering",
    "exclusionary_reclassification",
    "low_entropies",
    "overlay_entropies",
    "strip",
    "strip_of_art",
]

Mask = NDArray[np.bool_]
Clusters = list[NDArray[np.intp]]
"""For each label, the cluster (0 or 1) of each of its items, in the order of the set."""

Analysis = Literal["smaller", "silhouette-scores", "silhouette"]
"""Rule that selects clusters: two of ART's, and the paper's silhouette score."""

_LEAST = 11
_SILHOUETTE = 0.1  # the paper: "between .10 and .15 is reasonable"


def _missing(what: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{what} needs the Adversarial Robustness Toolbox", extra="attacks"
    )


class _Probabilities(nn.Module):
    """Network from spectrograms to probabilities, which hides its parameters from ART."""

    def __init__(self, model: InstrumentedModel) -> None:
        super().__init__()
        self._model = (model,)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        (model,) = self._model
        scores = model.score_embeddings(model.embed_input(Batch(x)))
        return model.logits(scores).softmax(dim=1)


def overlay_entropies(probabilities: Tensor) -> Tensor:
    """Return STRIP's entropy of each input (Gao et al. 2019, Eq. 2 to 4): (n,), in bits.

    For each copy it is the Shannon entropy over the classes, and then the mean over the copies.

    Args:
        probabilities: (n, overlays, C) predictions of the copies of each input.
    """
    bits: Tensor = torch.special.entr(probabilities.double()).sum(dim=2) / math.log(2)
    return bits.mean(dim=1)


def low_entropies(entropies: Tensor, clean: Tensor, *, false_rejection_rate: float) -> Mask:
    """Return which entropies are as low as those of few clean inputs: (n,).

    The threshold is the quantile at ``false_rejection_rate`` of a normal distribution fitted to the
    entropies of clean inputs (Gao et al. 2019).
    """
    mean, deviation = norm.fit(clean.numpy())
    threshold = norm.ppf(false_rejection_rate, loc=mean, scale=deviation)
    return np.asarray(entropies.numpy() <= threshold)


@torch.no_grad()
def strip(
    model: InstrumentedModel,
    inputs: Tensor,
    clean: Tensor,
    *,
    overlays: int = 100,
    false_rejection_rate: float = 0.01,
    generator: torch.Generator,
) -> Mask:
    """Return which inputs STRIP flags (Gao et al. 2019).

    Each input is blended with clean inputs; a trigger decides the prediction whatever it is blended
    with, so a low entropy is suspicious. STRIP needs clean data, which NCCR (neuron coverage change
    rate) does not.

    Deviation: inputs are blended half and half, as ART does, where the authors' code adds images
    and lets them saturate; and there are fewer clean inputs than the paper's 2,000.

    Args:
        model: Model with a head.
        inputs: (n, F, T) model inputs to judge.
        clean: (m, F, T) clean model inputs to blend with, and to set the threshold with.
        overlays: Number of clean inputs that each input is blended with; the paper uses 100.
        false_rejection_rate: Share of clean inputs that may be flagged; the paper uses 0.01 mostly.
        generator: Random generator that chooses the clean inputs.

    Returns:
        (n,) whether each input is flagged.
    """
    predict = _Probabilities(model)

    def entropies(x: Tensor) -> Tensor:
        found = []
        for one in x:
            chosen = torch.randint(len(clean), (overlays,), generator=generator)
            found.append(predict((one + clean[chosen]) / 2))
        return overlay_entropies(torch.stack(found))

    known = entropies(clean)
    return low_entropies(entropies(inputs), known, false_rejection_rate=false_rejection_rate)


def strip_of_art(
    model: InstrumentedModel,
    inputs: Tensor,
    clean: Tensor,
    *,
    overlays: int = 20,
    false_acceptance_rate: float = 0.01,
    generator: torch.Generator,
) -> Mask:
    """Return which inputs STRIP flags with the entropy that ART takes; see ``strip``.

    Deviation of ART from the paper: it scales each class's probabilities to sum to one over the
    copies, and takes the entropy over the copies for each class. An input whose copies are all
    predicted alike, as one with a trigger, then has the highest entropy, not the lowest.

    Args:
        model: Model with a head.
        inputs: (n, F, T) model inputs to judge.
        clean: (m, F, T) clean model inputs to blend with, and to set the threshold with.
        overlays: Number of clean inputs that each input is blended with.
        false_acceptance_rate: Share of clean inputs that may be flagged, in ART's words.
        generator: Random generator that chooses the clean inputs.

    Returns:
        (n,) whether each input is flagged.

    Raises:
        MissingDependencyError: If ART is not installed.
    """
    try:
        with preserved_logging():
            from art.defences.transformer.poisoning import STRIP
    except ImportError as err:
        raise _missing("STRIP") from err
    wrapped = classifier(
        _Probabilities(model),
        shape=tuple(inputs.shape[1:]),
        classes=len(model.labels),
        bounds=model.input_bounds,
    )
    with seeded_globals(generator), redirect_stderr(io.StringIO()):  # hides ART's progress bars
        defence = STRIP(wrapped)(num_samples=overlays, false_acceptance_rate=false_acceptance_rate)
        defence.mitigate(clean.numpy())
        answers = defence.predict(inputs.numpy())
    return np.asarray((np.asarray(answers) == defence.abstain()).all(axis=1))


def activation_clustering(
    activations: Tensor,
    labels: Tensor,
    classes: int,
    *,
    analysis: Analysis,
    generator: torch.Generator,
) -> tuple[Mask, Clusters]:
    """Return which items activation clustering (Chen et al. 2018) flags.

    The activations of each label are reduced to ten components and split in two by k-means. Rules
    that select clusters:

    - ``silhouette``, a rule of the paper: independent components, as far as 1,000 steps bring them;
      the smaller cluster of each label whose silhouette score is at least 0.1.
    - ``smaller``, of ART: principal components; the smaller cluster of every label.
    - ``silhouette-scores``, of ART: principal components; a cluster with less than 35 % of the
      items of its label, if the silhouette score is above 0.1.

    Args:
        activations: (n, D) outputs of the last hidden layer.
        labels: (n,) labels of the training set.
        classes: Number of labels.
        analysis: Rule that selects clusters.
        generator: Random generator of the starting points of k-means.

    Returns:
        (n,) whether each item is flagged, and the clusters.

    Raises:
        InputError: If a label has too few items for ten components.
        MissingDependencyError: If ART is not installed.
    """
    members = _members(labels, classes)
    if min(len(m) for m in members) < _LEAST:
        raise InputError(
            f"a label has {min(len(m) for m in members)} items, activation clustering needs "
            f"{_LEAST}; give more clips"
        )
    parts = [activations.numpy()[m] for m in members]
    if analysis == "silhouette":
        clusters, points = zip(*(_independent(part, generator) for part in parts), strict=True)
        suspects = [
            _smaller(own) & (silhouette_score(reduced, own) >= _SILHOUETTE)
            for own, reduced in zip(clusters, points, strict=True)
        ]
    else:
        clusters, suspects = _by_art(parts, analysis, generator)
    return _spread(suspects, members, len(labels)), [np.asarray(own) for own in clusters]


def _independent(
    points: NDArray[Any], generator: torch.Generator
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Reduce points to ten independent components, and split them in two by k-means."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reduced = FastICA(10, max_iter=1000, tol=0.005, random_state=seed).fit_transform(points)
    return KMeans(2, n_init=10, random_state=seed).fit_predict(reduced), reduced


def _by_art(
    parts: list[NDArray[Any]], analysis: Analysis, generator: torch.Generator
) -> tuple[Sequence[NDArray[np.intp]], list[Mask]]:
    """Return the clusters that ART makes, and the items that one of its analyses flags."""
    try:
        with preserved_logging():
            from art.defences.detector.poison.activation_defence import cluster_activations
            from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer
    except ImportError as err:
        raise _missing("activation clustering") from err
    with seeded_globals(generator):
        clusters, reduced = cluster_activations(
            parts, nb_clusters=2, nb_dims=10, reduce="PCA", clustering_method="KMeans"
        )
    suspects = [_smaller(own) for own in clusters]
    if analysis == "silhouette-scores":
        analyzer: Any = ClusteringAnalyzer()
        _, _, report = analyzer.analyze_by_silhouette_score(
            clusters, reduced_activations_by_class=reduced
        )
        # for the items that it clears, ART returns memory that it never set: its report is right
        for label, suspect in enumerate(suspects):
            suspect &= report[f"class_{label}"]["suspicious"]
    return clusters, suspects


def exclusionary_reclassification(
    clusters: Clusters,
    labels: Tensor,
    retrained: Callable[[Mask], Tensor],
    *,
    threshold: float = 1.0,
) -> Mask:
    """Return which items activation clustering flags by the paper's exclusionary reclassification.

    A model is trained without the smaller cluster of every label, and classifies these clusters. Of
    a legitimate cluster, most items are classified as their label (l of them), of a poisoned one as
    the class that they come from (p of them: the class other than the label with the most items). A
    cluster is flagged if l / p is below the threshold; the paper recommends 1.

    Args:
        clusters: Clusters of ``activation_clustering``.
        labels: (n,) labels of the training set.
        retrained: Function that trains a model on the items of a mask and returns the classes that
            it gives all items, (n,).
        threshold: Ratio l / p below which a cluster is flagged.
    """
    members = _members(labels, len(clusters))
    smaller = [_smaller(own) for own in clusters]
    named = retrained(~_spread(smaller, members, len(labels))).numpy()
    suspects = []
    for label, (rows, suspect) in enumerate(zip(members, smaller, strict=True)):
        counts = np.bincount(named[rows[suspect]], minlength=len(clusters))
        own = int(counts[label])
        counts[label] = 0
        suspects.append(suspect & (own < threshold * int(counts.max())))
    return _spread(suspects, members, len(labels))


def _members(labels: Tensor, classes: int) -> Clusters:
    """Return the rows of each label."""
    return [np.flatnonzero(labels.numpy() == c) for c in range(classes)]


def _smaller(clusters: NDArray[np.intp]) -> Mask:
    return np.asarray(clusters == np.bincount(clusters, minlength=2).argmin())


def _spread(suspects: Sequence[Mask], members: Clusters, size: int) -> Mask:
    """Join the labels' masks into one of the whole set."""
    accused = np.zeros(size, dtype=bool)
    for rows, suspect in zip(members, suspects, strict=True):
        accused[rows] = suspect
    return accused
