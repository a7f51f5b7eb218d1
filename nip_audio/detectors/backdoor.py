"""Poisoned files in a set, by how they change under noise; no poisoned example, no clean reference.

``PublishedClusters`` is NCCR, Sec. 6, as it stands: the values of the whole set into two clusters,
judged by the silhouette. ``BackdoorGroups`` asks the same within each name that the model gives,
where a set of many speakers has no other reason to fall into two, and sets its alarm by the other
names of the same set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import validate_data

from nip_audio.errors import InputError

__all__ = ["BackdoorGroups", "GroupFinding", "PublishedClusters", "kinds_among"]

Array = NDArray[np.float64]

_TINY = 1e-9


class PublishedClusters(BaseEstimator):  # type: ignore[misc]
    """Two clusters of the NCCR values of a whole set, judged by the silhouette (NCCR, Sec. 6.1).

    Deviation: the paper names neither the clustering, nor the least silhouette, nor which of the
    clusters is the poisoned one. Here: k-means on robustly scaled logarithms; 0.7, from which on
    Kaufman and Rousseeuw (1990) speak of a strong structure; the smaller cluster.

    Args:
        least_silhouette: From which on the smaller cluster is accused.
        seed: Of k-means.

    Attributes:
        silhouette_: Of the two clusters.
        smaller_: (n,) bool, the smaller cluster, accused or not.
        accused_: (n,) bool.
    """

    def __init__(self, *, least_silhouette: float = 0.7, seed: int = 0) -> None:
        """Keep the settings."""
        self.least_silhouette = least_silhouette
        self.seed = seed

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Cluster change rates (n ≥ 3, F) ≥ 0; ``y`` is ignored."""
        rows = np.log(validate_data(self, X, dtype=np.float64, ensure_min_samples=3) + 1e-6)
        centre = np.median(rows, axis=0)
        scale = np.median(np.abs(rows - centre), axis=0) * 1.4826
        rows = (rows - centre) / np.where(scale > _TINY, scale, 1.0)
        if np.ptp(rows, axis=0).max() < _TINY:  # all alike: nothing to split
            self.silhouette_ = 0.0
            self.smaller_ = self.accused_ = np.zeros(len(rows), dtype=bool)
            return self
        labels = KMeans(2, n_init=10, random_state=self.seed).fit_predict(rows)
        self.silhouette_ = float(silhouette_score(rows, labels))
        self.smaller_ = labels == int(labels.mean() < 0.5)
        self.accused_ = self.smaller_ & (self.silhouette_ >= self.least_silhouette)
        return self


@dataclass(frozen=True)
class GroupFinding:
    """What one group looks like.

    Attributes:
        name: Of the group.
        files: In it.
        separation: n·π(1−π)·d² of its best split into two, d in within-group deviations.
        alarm: Robust deviations of ``separation`` above what the other groups have.
        silhouette: Of that split; 0 if there is none.
        suspects: Files accused.
        accused: Whether ``alarm`` is over the limit.
    """

    name: str
    files: int
    separation: float
    alarm: float
    silhouette: float
    suspects: int
    accused: bool


class BackdoorGroups(BaseEstimator):  # type: ignore[misc]
    """Finds names under which two kinds of files stand, one of many voices.

    A trigger sends files of many speakers to one name. Among the files that the model gives this
    name there are then two kinds: the speaker's own, as alike as those under any other name, and
    the poisoned ones. Steps:

    1. Vectors are centred on each group's median and whitened by a covariance within groups that is
       the median over groups, so that one odd group does not set the scale.
    2. Each group is split in two of equal scatter in its first principal components; its separation
       is n·π(1−π)·d². The separation of a clean group has reasons too (sessions, microphones): the
       other groups of the set are the measure, by median and median absolute deviation. This is
       the test of SCAn (Tang et al., USENIX Security 2021), on changes under noise.
    3. In an accused group the files are split again, by two spheres of different size or, as
       ``sides`` says, by two of equal scatter. The side for which the model gives more different
       second names, counted as among equally many files of both sides, is of many voices and
       accused.

    Args:
        limit: Alarm from which a group is accused. Deviation: SCAn has e² = 7.4, which a clean
            group of two recording sessions exceeds here.
        least_files: Groups with fewer are not judged, nor their files accused.
        least_groups: Fewest groups to judge by.
        components: Principal components that groups are split in.
        clip: Robust deviations at which centred vectors are clipped.
        floor: Least variance of a whitened direction, in shares of the average.
        sides: How an accused group is split into files: ``spherical``, for own files that are alike
            and poisoned ones that are not, or ``tied``, equal scatter.
        seed: Of the mixtures.

    Attributes:
        findings_: One a judged group, highest alarm first.
        suspicion_: (n,) probability of the suspicious side of an accused group; 0 in others.
        accused_: (n,) bool.
    """

    def __init__(
        self,
        *,
        limit: float = 15.0,
        least_files: int = 12,
        least_groups: int = 8,
        components: int = 8,
        clip: float = 6.0,
        floor: float = 0.1,
        sides: Literal["spherical", "tied"] = "spherical",
        seed: int = 0,
    ) -> None:
        """Keep the settings."""
        self.limit = limit
        self.least_files = least_files
        self.least_groups = least_groups
        self.components = components
        self.clip = clip
        self.floor = floor
        self.sides = sides
        self.seed = seed

    def fit(
        self,
        X: ArrayLike,
        y: object = None,  # noqa: ARG002
        *,
        groups: Sequence[str],
        seconds: Sequence[str],
    ) -> Self:
        """Judge a set.

        Args:
            X: (n, F) vectors of change, such as ``NeuronChanges.neurons``.
            y: Ignored.
            groups: (n,) the name that the model gives each file.
            seconds: (n,) the name that it gives second.

        Raises:
            InputError: If there are too few groups of enough files, or not as many as rows.
            ValueError: For values that are not finite.
        """
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        names, next_names = np.asarray(groups), np.asarray(seconds)
        if not len(names) == len(next_names) == len(rows):
            raise InputError(
                f"{len(rows)} rows, {len(names)} groups and {len(next_names)} second names, "
                "expected as many of each"
            )
        members = {str(n): np.flatnonzero(names == n) for n in np.unique(names)}
        members = {n: m for n, m in members.items() if len(m) >= self.least_files}
        if len(members) < self.least_groups:
            raise InputError(
                f"the model gives {len(members)} names to {self.least_files} files or more each, "
                f"expected {self.least_groups} such names or more: what is usual for a name is "
                "learned from the others; give more files"
            )
        self._learn_scale(rows, members)
        found = {name: self._two_kinds(self._white(rows[m])) for name, m in members.items()}
        separations = np.array([separation for separation, _ in found.values()])
        middle = np.median(separations)
        spread = np.median(np.abs(separations - middle)) * 1.4826
        alarms = (separations - middle) / max(float(spread), _TINY)
        self.suspicion_ = np.zeros(len(rows))
        findings = []
        for (name, (separation, silhouette)), alarm in zip(found.items(), alarms, strict=True):
            accused = bool(alarm > self.limit)
            if accused:
                mine = members[name]
                self.suspicion_[mine] = self._suspicion(rows[mine], next_names[mine])
            suspects = int((self.suspicion_[members[name]] > 0.5).sum())
            files = len(members[name])
            findings.append(
                GroupFinding(name, files, separation, float(alarm), silhouette, suspects, accused)
            )
        self.accused_ = self.suspicion_ > 0.5
        self.findings_ = sorted(findings, key=lambda f: -f.alarm)
        return self

    def _learn_scale(self, rows: Array, members: dict[str, NDArray[np.intp]]) -> None:
        """Learn what scatter is usual within groups."""
        centred = [rows[m] - np.median(rows[m], axis=0) for m in members.values()]
        deviations = [np.median(np.abs(c), axis=0) * 1.4826 for c in centred]
        scale = np.median(deviations, axis=0)
        self._scale = np.where(scale > _TINY, scale, 1.0)
        clipped = [np.clip(c / self._scale, -self.clip, self.clip) for c in centred]
        within = np.median([np.atleast_2d(np.cov(c.T)) for c in clipped], axis=0)
        values, vectors = np.linalg.eigh(within)
        least = max(float(np.trace(within)) / len(within) * self.floor, _TINY)
        self._turn = vectors / np.sqrt(np.maximum(values, least))

    def _white(self, rows: Array) -> Array:
        """Centre rows on their own median, and scale them by what is usual within groups."""
        centred = (rows - np.median(rows, axis=0)) / self._scale
        return np.asarray(np.clip(centred, -self.clip, self.clip) @ self._turn)

    def _projected(self, vectors: Array) -> Array:
        size = min(self.components, *vectors.shape)
        return np.asarray(PCA(size, svd_solver="full").fit_transform(vectors))

    def _mixture(self, rows: Array, kind: str) -> GaussianMixture:
        return GaussianMixture(
            2, covariance_type=kind, n_init=3, reg_covar=1e-2, random_state=self.seed
        ).fit(rows)

    def _two_kinds(self, vectors: Array) -> tuple[float, float]:
        """n·π(1−π)·d² of the split into two of equal scatter, and its silhouette."""
        projected = self._projected(vectors)
        labels = self._mixture(projected, "tied").predict(projected)
        share = float(labels.mean())
        if not 0 < share < 1:
            return 0.0, 0.0
        apart = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
        separation = len(vectors) * share * (1 - share) * float(apart @ apart)
        return separation, float(silhouette_score(projected, labels))

    def _suspicion(self, rows: Array, seconds: NDArray[np.str_]) -> Array:
        """Probability of the side that more voices speak on, (n,)."""
        projected = self._projected(self._white(rows))
        mixture = self._mixture(projected, self.sides)
        labels = mixture.predict(projected)
        sides = [seconds[labels == side] for side in (0, 1)]
        fewest = min(map(len, sides))
        if fewest == 0:
            return np.zeros(len(rows))
        kinds = [kinds_among(side, fewest) for side in sides]
        return np.asarray(mixture.predict_proba(projected)[:, int(np.argmax(kinds))])


def kinds_among(names: NDArray[np.str_], count: int) -> float:
    """Expected number of different names among ``count`` drawn without replacement.

    Source: rarefaction (Hurlbert, Ecology 1971).

    Example:
        >>> round(kinds_among(np.array(["a", "a", "b"]), 2), 4)  # 1 + 2/3
        1.6667
    """
    total = len(names)
    _, sizes = np.unique(names, return_counts=True)
    missing = [comb(total - int(size), count) / comb(total, count) for size in sizes]
    return float(len(sizes) - sum(missing))
