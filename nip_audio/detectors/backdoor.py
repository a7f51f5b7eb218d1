"""Poisoned files in a set, by how they change under noise; no poisoned example, no clean reference.

``PublishedClusters`` is NCCR, Sec. 6, as it stands: the values of the whole set into two clusters,
judged by the silhouette. ``BackdoorGroups`` asks the same within each name that the model gives,
where a set of many speakers has no other reason to fall into two, and sets its alarm by the other
names of the same set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, sqrt
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

__all__ = [
    "BackdoorGroups",
    "BackdoorJudgement",
    "GroupFinding",
    "PublishedClusters",
    "SetEvidence",
    "kinds_among",
]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
View = Literal["changes", "outputs"]

_TINY = 1e-9
_LEAST_SPREAD = np.array([0.02, 0.25, 0.05])
"""Of leads, as a share of what is usual; of second names among a dozen; of the log of scatter."""


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
class SetEvidence:
    """What is known of the n files of a set.

    Attributes:
        names: (n,) the name that the model gives each file.
        seconds: (n,) the name that it would give next.
        leads: (n,) by how much the score of the first exceeds that of the second.
        changes: (n, F) how neurons change under noise, such as ``NeuronChanges.neurons``.
        outputs: (n, G) of neurons without noise, each layer of unit length.

    Raises:
        InputError: If they are not of equally many files, or a number is not finite.
    """

    names: NDArray[np.str_]
    seconds: NDArray[np.str_]
    leads: Array
    changes: Array
    outputs: Array

    def __post_init__(self) -> None:
        """Check."""
        sizes = {name: len(values) for name, values in vars(self).items()}
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise InputError(f"got {given}, expected as many of each: one a file")
        for name in ("leads", "changes", "outputs"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{name} hold NaN or infinity, expected finite numbers")


@dataclass(frozen=True)
class GroupFinding:
    """What one group looks like.

    Attributes:
        name: Of the group.
        files: In it.
        alarm: Robust deviations of its separation above what the other groups have, where it is
            higher: in the changes or in the outputs.
        silhouette: Of the split in two there; 0 if there is none.
        seen_in: Where that is.
        unlikeness: Of the more suspicious side: robust deviations from other groups in the ways in
            which poisoned files differ, summed. None if the alarm is not over its limit.
        other_unlikeness: Of the other side; one near ``unlikeness`` may be the poisoned one.
        score: Geometric mean of alarm and unlikeness, 0 where that is negative.
        suspects: Files accused.
        accused: Whether alarm and score are over the limit.
    """

    name: str
    files: int
    alarm: float
    silhouette: float
    seen_in: View
    unlikeness: float | None = None
    other_unlikeness: float | None = None
    score: float | None = None
    suspects: int = 0
    accused: bool = False


@dataclass(frozen=True)
class BackdoorJudgement:
    """What a set looks like.

    Attributes:
        findings: One a judged group, highest alarm first.
        suspicion: (n,) probability of the suspicious side of an accused group; 0 in others.
    """

    findings: tuple[GroupFinding, ...]
    suspicion: Array

    @property
    def accused(self) -> NDArray[np.bool_]:
        """(n,) whether a file is accused."""
        return np.asarray(self.suspicion > 0.5)


@dataclass(frozen=True)
class BackdoorGroups:
    """Finds names under which two kinds of files stand, one of many voices.

    A trigger sends files of many speakers to one name. Among the files that the model gives this
    name there are then two kinds: the speaker's own, as alike as those under any other name, and
    the poisoned ones. Steps:

    1. Vectors are centred on each group's median and whitened by a covariance within groups that is
       the median over groups, so that one odd group does not set the scale.
    2. Each group is split in two of equal scatter in its first principal components; its separation
       is n·π(1−π)·d². The separation of a clean group has reasons too (sessions, microphones): the
       other groups of the set are the measure, by median and median absolute deviation. This is
       the test of SCAn (Tang et al., USENIX Security 2021), on changes under noise and on the
       outputs without it: noise that is itself a trigger hides it in the changes.
    3. A group above the limit is split into files in four ways: by its changes and by its outputs,
       by two spheres of different size and by two of equal scatter.
    4. The speaker's own files are as those of any other name, and poisoned ones are not: named more
       surely, with more different second names, and scattered along the directions in which names
       differ, since they are of many voices. Each is measured in robust deviations of the other
       groups and summed. The split whose sides differ most in this sum is taken, and the side with
       the higher one is accused if the geometric mean of its sum and the alarm is above the limit,
       too: a clean group of two recording sessions has sides, but none that is unlike others.

    Attributes:
        limit: Of the alarm, and of the score: SCAn's, e².
        most_alarm: That counts in a score: sides that lie ever farther apart do not make one of
            them the more unlike other groups.
        least_files: Groups with fewer are not judged, nor their files accused.
        least_groups: Fewest groups to judge by.
        components: Principal components that groups are split in.
        clip: Robust deviations at which centred vectors are clipped.
        floor: Least variance of a whitened direction, in shares of the average.
        directions: In which names differ most, that scatter is measured along.
        seed: Of the mixtures.
    """

    limit: float = 7.4
    most_alarm: float = 20.0
    least_files: int = 12
    least_groups: int = 8
    components: int = 16
    clip: float = 6.0
    floor: float = 0.1
    directions: int = 6
    seed: int = 0

    def judge(self, evidence: SetEvidence) -> BackdoorJudgement:
        """Judge a set.

        Raises:
            InputError: If there are too few groups of enough files.
        """
        known = self._prepare(evidence)
        alarms: dict[View, dict[str, tuple[float, float]]] = {
            "changes": self._alarms(known.changes, known.members),
            "outputs": self._alarms(known.outputs, known.members),
        }
        suspicion = np.zeros(len(evidence.names))
        findings = []
        for name, mine in known.members.items():
            seen_in = max(alarms, key=lambda view: alarms[view][name])
            finding = GroupFinding(name, len(mine), *alarms[seen_in][name], seen_in)
            if finding.alarm > self.limit:
                share, unlike = self._two_sides(name, known)
                score = sqrt(min(finding.alarm, self.most_alarm) * max(0.0, *unlike))
                accused = score > self.limit
                if accused:
                    suspicion[mine] = share
                finding = replace(
                    finding,
                    unlikeness=max(unlike),
                    other_unlikeness=min(unlike),
                    score=score,
                    suspects=int((suspicion[mine] > 0.5).sum()),
                    accused=accused,
                )
            findings.append(finding)
        return BackdoorJudgement(tuple(sorted(findings, key=lambda f: -f.alarm)), suspicion)

    def _prepare(self, evidence: SetEvidence) -> _Known:
        """Find the groups with enough files, and whiten by what is usual within them."""
        names = evidence.names
        members = {str(n): np.flatnonzero(names == n) for n in np.unique(names)}
        members = {n: m for n, m in members.items() if len(m) >= self.least_files}
        if len(members) < self.least_groups:
            raise InputError(
                f"the model gives {len(members)} names to {self.least_files} files or more each, "
                f"expected {self.least_groups} such names or more: what is usual for a name is "
                "learned from the others; give more files"
            )
        changes, outputs = (
            _Whitened.learn(rows, members, clip=self.clip, floor=self.floor)
            for rows in (evidence.changes, evidence.outputs)
        )
        return _Known(evidence, members, changes, outputs)

    def _alarms(
        self, space: _Whitened, members: Mapping[str, Rows]
    ) -> dict[str, tuple[float, float]]:
        """How far each group's separation lies above the others', and its silhouette."""
        found = {name: self._two_kinds(space.centred(rows)) for name, rows in members.items()}
        separations = np.array([separation for separation, _ in found.values()])
        middle = np.median(separations)
        spread = max(float(np.median(np.abs(separations - middle)) * 1.4826), _TINY)
        return {
            n: (float((s - middle) / spread), silhouette) for n, (s, silhouette) in found.items()
        }

    def _two_kinds(self, vectors: Array) -> tuple[float, float]:
        """n·π(1−π)·d² of the split into two of equal scatter, and its silhouette."""
        if np.ptp(vectors, axis=0).max() < _TINY:  # all alike: nothing to split
            return 0.0, 0.0
        projected = self._projected(vectors)
        labels = self._mixture(projected, "tied").predict(projected)
        share = float(labels.mean())
        if not 0 < share < 1:
            return 0.0, 0.0
        apart = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
        separation = len(vectors) * share * (1 - share) * float(apart @ apart)
        return separation, float(silhouette_score(projected, labels))

    def _two_sides(self, name: str, known: _Known) -> tuple[Array, tuple[float, float]]:
        """Probability of the more suspicious side, and how unlike other groups both sides are."""
        mine = known.members[name]
        taken, clearest = (np.zeros(len(mine)), (0.0, 0.0)), 0.0  # nobody, if it cannot be split
        for space in (known.changes, known.outputs):
            projected = self._projected(space.centred(mine))
            for kind in ("spherical", "tied"):
                share = self._mixture(projected, kind).predict_proba(projected)[:, 1]
                sides = [mine[share <= 0.5], mine[share > 0.5]]
                if not all(map(len, sides)):
                    continue
                unlike = self._unlike(sides, name, known)
                # a side of a file or two has hardly any scatter, which makes no other suspicious
                clear = max(unlike) - max(0.0, min(unlike))
                if clear > clearest:
                    taken = (share if unlike[1] > unlike[0] else 1 - share), unlike
                    clearest = clear
        return taken

    def _unlike(self, sides: list[Rows], name: str, known: _Known) -> tuple[float, float]:
        """How much each side is unlike other groups in the ways that poisoned files are."""
        evidence, outputs = known.evidence, known.outputs
        others = [rows for other, rows in known.members.items() if other != name]
        between = outputs.directions_between(others, self.directions)
        count = min(*map(len, sides), self.least_files)

        def traits(rows: Rows) -> list[float]:
            along = outputs.placed(rows) @ between
            return [
                float(np.median(evidence.leads[rows])),
                kinds_among(evidence.seconds[rows], count),
                float(np.log(along.var(axis=0).mean() + _TINY)),
            ]

        usual = np.array([traits(rows) for rows in others])
        middle = np.median(usual, axis=0)
        spread = np.median(np.abs(usual - middle), axis=0) * 1.4826
        # half of the others, or all, may be alike
        least = np.maximum(_LEAST_SPREAD * np.array([abs(middle[0]), 1.0, 1.0]), _TINY)
        spread = np.maximum(np.maximum(spread, usual.std(axis=0) / 2), least)
        first, second = (float(((traits(rows) - middle) / spread).sum()) for rows in sides)
        return first, second

    def _projected(self, vectors: Array) -> Array:
        size = min(self.components, *vectors.shape)
        return np.asarray(PCA(size, svd_solver="full").fit_transform(vectors))

    def _mixture(self, rows: Array, kind: str) -> GaussianMixture:
        return GaussianMixture(
            2, covariance_type=kind, n_init=3, reg_covar=1e-2, random_state=self.seed
        ).fit(rows)


@dataclass(frozen=True)
class _Known:
    """A set as it is judged: the rows of each group, and its vectors whitened."""

    evidence: SetEvidence
    members: Mapping[str, Rows]
    changes: _Whitened
    outputs: _Whitened


@dataclass(frozen=True)
class _Whitened:
    """Vectors of a set, in units of what is usual within groups.

    Attributes:
        rows: (n, F) divided by their robust deviations within groups.
        turn: (F, F) that whitens them.
        clip: Robust deviations at which centred vectors are clipped.
    """

    rows: Array
    turn: Array
    clip: float

    @classmethod
    def learn(
        cls, rows: Array, members: Mapping[str, Rows], *, clip: float, floor: float
    ) -> _Whitened:
        """Learn what scatter is usual within groups."""
        centred = [rows[m] - np.median(rows[m], axis=0) for m in members.values()]
        deviations = [np.median(np.abs(c), axis=0) * 1.4826 for c in centred]
        scale = np.median(deviations, axis=0)
        scale = np.where(scale > _TINY, scale, 1.0)
        clipped = [np.clip(c / scale, -clip, clip) for c in centred]
        within = np.median([np.atleast_2d(np.cov(c.T)) for c in clipped], axis=0)
        values, vectors = np.linalg.eigh(within)
        least = max(float(np.trace(within)) / len(within) * floor, _TINY)
        return cls(rows / scale, vectors / np.sqrt(np.maximum(values, least)), clip)

    def centred(self, rows: Rows) -> Array:
        """Whiten some rows about their own median."""
        chosen = self.rows[rows]
        away = np.clip(chosen - np.median(chosen, axis=0), -self.clip, self.clip)
        return np.asarray(away @ self.turn)

    def placed(self, rows: Rows) -> Array:
        """Whiten some rows where they are."""
        return np.asarray(self.rows[rows] @ self.turn)

    def directions_between(self, groups: Sequence[Rows], count: int) -> Array:
        """Return the directions in which groups differ most, (F, ≤ count)."""
        centres = np.array([np.median(self.placed(rows), axis=0) for rows in groups])
        _, _, found = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
        return np.asarray(found[:count].T)


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
