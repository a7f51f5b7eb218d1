"""Run ART's versions of STRIP and activation clustering on this project's models.

ART is the Adversarial Robustness Toolbox. Both methods get model inputs (spectrograms) and
embeddings, because ART's classifiers have no front end. Differences from the papers are stated at
each function.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nip_audio.attacks._art import classifier, preserved_logging, seeded_globals
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, MissingDependencyError

__all__ = ["Analysis", "activation_clustering", "strip"]

Mask = NDArray[np.bool_]
Analysis = Literal["smaller", "silhouette-scores"]

_LEAST = 11


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


def strip(
    model: InstrumentedModel,
    inputs: Tensor,
    clean: Tensor,
    *,
    overlays: int = 20,
    false_acceptance_rate: float = 0.01,
    generator: torch.Generator,
) -> Mask:
    """Return which inputs STRIP (Gao et al. 2019) flags, in ART's version.

    Each input is blended half and half with clean inputs; a low entropy of the predictions is
    suspicious. STRIP needs clean data, which NCCR (neuron coverage change rate) does not. Deviation
    of ART from the paper: the entropy is taken over the blended copies for each class, not over the
    classes for each copy.

    Args:
        model: Model with a head.
        inputs: (n, F, T) model inputs to judge.
        clean: (m, F, T) clean model inputs to blend with, and to set the threshold with.
        overlays: Number of clean inputs that each input is blended with.
        false_acceptance_rate: Share of clean inputs that may be flagged.
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
) -> tuple[Mask, list[NDArray[np.intp]]]:
    """Return which items activation clustering (Chen et al. 2018) flags, with ART's functions.

    The activations of each label are reduced to ten principal components and split in two by
    k-means. ``smaller`` flags the smaller cluster of every label; ``silhouette-scores`` only where
    the clusters are far enough apart and unequal, by ART's own limits.

    Args:
        activations: (n, D) outputs of the last hidden layer.
        labels: (n,) labels of the training set.
        classes: Number of labels.
        analysis: Rule of ART that selects clusters.
        generator: Random generator of the starting points of k-means.

    Returns:
        (n,) whether each item is flagged, and for each label the cluster of each of its items.

    Raises:
        InputError: If a label has too few items for ten components.
        MissingDependencyError: If ART is not installed.
    """
    try:
        with preserved_logging():
            from art.defences.detector.poison.activation_defence import cluster_activations
            from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer
    except ImportError as err:
        raise _missing("activation clustering") from err
    members = [np.flatnonzero(labels.numpy() == c) for c in range(classes)]
    if min(len(m) for m in members) < _LEAST:
        raise InputError(
            f"a label has {min(len(m) for m in members)} items, activation clustering needs "
            f"{_LEAST}; give more clips"
        )
    parts = [activations.numpy()[m] for m in members]
    with seeded_globals(generator):
        clusters, reduced = cluster_activations(
            parts, nb_clusters=2, nb_dims=10, reduce="PCA", clustering_method="KMeans"
        )
    analyzer: Any = ClusteringAnalyzer()
    if analysis == "smaller":
        kept, _, _ = analyzer.analyze_by_size(clusters)
    else:
        kept, _, _ = analyzer.analyze_by_silhouette_score(
            clusters, reduced_activations_by_class=reduced
        )
    accused = np.zeros(len(labels), dtype=bool)
    for rows, clean in zip(members, kept, strict=True):
        accused[rows] = np.asarray(clean) == 0
    return accused, [np.asarray(c) for c in clusters]
