"""Poisoned files in a set, by how they change under noise; no poisoned example, no clean reference.

``PublishedClusters`` is NCCR, Sec. 6, as it stands: the values of the whole set into two clusters,
judged by the silhouette. ``BackdoorGroups`` asks the same within each name that the model gives,
where a set of many speakers has no other reason to fall into two, and sets its alarm by the other
names of the same set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
_LEAST_SHARE = 0.05  # spread of separations, in units of what noise has
_LEAST_SIGN = -3.0
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
        seen_in: Where that is.
        unlikeness: Of the more suspicious side: how far it is from other groups in the ways in
            which poisoned files are, summed. None if the alarm is too low to look, or the group
            cannot be split.
        other_unlikeness: Of the other side; one near ``unlikeness`` may be the poisoned one.
        score: Geometric mean of the alarm, up to ``BackdoorGroups.most_alarm``, and of what the
            sides differ by in unlikeness; 0 where neither is suspicious. None as ``unlikeness``.
        suspects: Files accused.
        accused: Whether the score is over the limit.
    """

    name: str
    files: int
    alarm: float
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
        findings: One a judged group, highest score first, then highest alarm.
        suspicion: (n,) probability of the suspicious side of an accused group; 0 in others.
        limit: Score above which a group is accused.
    """

    findings: tuple[GroupFinding, ...]
    suspicion: Array
    limit: float

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
       is n·π(1−π)·d², in units of what noise of as many files has. The separation of a clean group
       has reasons too (sessions, microphones): the other groups of the set are the measure, by
       median and median absolute deviation. This is the test of SCAn (Tang et al., USENIX Security
       2021), on changes under noise and on the outputs without it: noise that is itself a trigger
       hides it in the changes. Deviation: SCAn does not divide by what noise has, and a clean name
       of many files alarms.
    3. Where this alarms, the group is split into files in four ways: by its changes and by its
       outputs, by two spheres of different size and by two of equal scatter.
    4. The speaker's own files are as those of any other name, and poisoned ones are not: named more
       surely, with more different second names, and scattered along the directions in which names
       differ, since they are of many voices. Each sign is measured by what is usual in other groups
       and summed. The split is taken whose suspicious side exceeds the other, or 0 if that is
       lower, by most. Its score is the geometric mean of that excess and the alarm: a clean group
       of two recording sessions has sides, but none that is unlike others, and a name that is
       unlike others as a whole has no side that is more so.

    Attributes:
        limit: Of the score; chosen between clean sets, unbalanced ones among them, and poisoned
            ones (docs/results/backdoors.md).
        least_alarm: From which on the sides are looked at: the usual bound of a robust deviation
            (Iglewicz and Hoaglin, 1993).
        most_alarm: That counts in a score: sides that lie ever farther apart do not make one of
            them the more unlike other groups.
        least_files: Groups with fewer are not judged, nor their files accused.
        least_groups: Fewest groups to judge by.
        components: Principal components that groups are split in.
        clip: Robust deviations at which centred vectors are clipped.
        floor: Least variance of a whitened direction, in shares of the average.
        directions: In which names differ most, that scatter is measured along.
        seed: Of the mixtures, and of noise to compare with.
    """

    limit: float = 6.2
    least_alarm: float = 3.5
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
        spaces: dict[View, _Whitened] = {"changes": known.changes, "outputs": known.outputs}
        sizes = [len(rows) for rows in known.members.values()]
        noise = {n: self._noise(sizes, n) for n in {s.columns for s in spaces.values()}}
        alarms = {
            view: self._alarms(space, known.members, noise[space.columns])
            for view, space in spaces.items()
        }
        suspicion = np.zeros(len(evidence.names))
        findings = []
        for name, mine in known.members.items():
            seen_in = max(alarms, key=lambda view: alarms[view][name])
            finding = GroupFinding(name, len(mine), alarms[seen_in][name], seen_in)
            if finding.alarm > self.least_alarm and (sides := self._two_sides(name, known)):
                score = sqrt(min(finding.alarm, self.most_alarm) * sides.excess)
                accused = score > self.limit
                if accused:
                    suspicion[mine] = sides.share
                finding = replace(
                    finding,
                    unlikeness=sides.unlikeness,
                    other_unlikeness=sides.other_unlikeness,
                    score=score,
                    suspects=int((suspicion[mine] > 0.5).sum()),
                    accused=accused,
                )
            findings.append(finding)
        found = sorted(findings, key=lambda f: (-(f.score or 0.0), -f.alarm))
        return BackdoorJudgement(tuple(found), suspicion, self.limit)

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
        self, space: _Whitened, members: Mapping[str, Rows], noise: Callable[[int], float]
    ) -> dict[str, float]:
        """How far each group's separation lies above the others'; 0 where all rows are alike."""
        found = {name: self._separation(space.centred(rows)) for name, rows in members.items()}
        sizes = {name: len(members[name]) for name, value in found.items() if value is not None}
        alarms = dict.fromkeys(members, 0.0)
        if len(sizes) < self.least_groups:
            return alarms
        shares = np.array([(found[name] or 0.0) / noise(size) for name, size in sizes.items()])
        middle = np.median(shares)
        spread = max(float(np.median(np.abs(shares - middle)) * 1.4826), _LEAST_SHARE)
        return alarms | dict(zip(sizes, ((shares - middle) / spread).tolist(), strict=True))

    def _noise(self, sizes: Sequence[int], columns: int) -> Callable[[int], float]:
        """Separation of white noise by its number of rows, interpolated."""
        generator = np.random.default_rng(self.seed)
        grid = np.unique(np.geomspace(min(sizes), max(sizes), 5).round().astype(int))
        drawn = [
            [self._separation(generator.standard_normal((n, columns))) or 0.0 for _ in range(5)]
            for n in grid
        ]
        middles = np.median(drawn, axis=1)
        return lambda size: float(np.interp(size, grid, middles))

    def _separation(self, vectors: Array) -> float | None:
        """n·π(1−π)·d² of the split into two of equal scatter; None where all rows are alike."""
        if _alike(vectors):
            return None
        projected = self._projected(vectors)
        labels = self._mixture(projected, "tied").predict(projected)
        share = float(labels.mean())
        if not 0 < share < 1:
            return 0.0
        apart = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
        return len(vectors) * share * (1 - share) * float(apart @ apart)

    def _two_sides(self, name: str, known: _Known) -> _Sides | None:
        """Split a group into files; None if it cannot be."""
        mine = known.members[name]
        others = _Others.of(name, known, self.directions)
        found = []
        for space in (known.changes, known.outputs):
            vectors = space.centred(mine)
            if _alike(vectors):
                continue
            projected = self._projected(vectors)
            for kind in ("spherical", "tied"):
                share = self._mixture(projected, kind).predict_proba(projected)[:, 1]
                sides = mine[share <= 0.5], mine[share > 0.5]
                if not all(map(len, sides)):
                    continue
                count = min(*map(len, sides), self.least_files)
                first, second = others.unlike(sides, count)
                found.append(
                    _Sides(1 - share, first, second)
                    if first > second
                    else _Sides(share, second, first)
                )
        return max(found, key=lambda sides: sides.excess, default=None)

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
class _Sides:
    """A group in two: probability of the more suspicious side, and how unlike others both are."""

    share: Array
    unlikeness: float
    other_unlikeness: float

    @property
    def excess(self) -> float:
        """By how much one side is the more suspicious.

        That the other is less suspicious than other groups are counts for nothing: a side of a file
        or two has hardly any scatter.
        """
        return max(0.0, self.unlikeness - max(0.0, self.other_unlikeness))


@dataclass(frozen=True)
class _Others:
    """What is usual in the groups beside one.

    Attributes:
        evidence: Of all files.
        along: (n, ≤ directions) where files lie in the directions in which these groups differ.
        groups: Rows of these groups.
    """

    evidence: SetEvidence
    along: Array
    groups: Sequence[Rows]

    @staticmethod
    def of(name: str, known: _Known, directions: int) -> _Others:
        """Look at all groups but one."""
        groups = [rows for other, rows in known.members.items() if other != name]
        between = known.outputs.directions_between(groups, directions)
        return _Others(known.evidence, known.outputs.rows @ (known.outputs.turn @ between), groups)

    def unlike(self, sides: Sequence[Rows], count: int) -> list[float]:
        """How much each side is unlike these groups in the ways that poisoned files are.

        Args:
            sides: Rows of each.
            count: Files among which second names are counted.
        """
        usual = np.array([self._signs(group, count) for group in self.groups])
        middle = np.median(usual, axis=0)
        spread = np.median(np.abs(usual - middle), axis=0) * 1.4826
        # half of the groups, or all, may be alike, so that the median deviation is too small
        least = np.maximum(_LEAST_SPREAD * np.array([abs(middle[0]), 1.0, 1.0]), _TINY)
        spread = np.maximum(np.maximum(spread, usual.std(axis=0) / 2), least)
        signs = (np.array([self._signs(rows, count) for rows in sides]) - middle) / spread
        # poisoned files may be much alike in one of the ways
        return [float(value) for value in np.maximum(signs, _LEAST_SIGN).sum(axis=1)]

    def _signs(self, rows: Rows, count: int) -> Array:
        """How surely files are named, how many second names they have, how scattered they are."""
        lead = np.median(self.evidence.leads[rows])
        kinds = kinds_among(self.evidence.seconds[rows], count)
        return np.array([lead, kinds, np.log(self.along[rows].var(axis=0).mean() + _TINY)])


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

    @property
    def columns(self) -> int:
        """Numbers of a vector."""
        return int(self.rows.shape[1])

    def centred(self, rows: Rows) -> Array:
        """Whiten some rows about their own median."""
        chosen = self.rows[rows]
        away = np.clip(chosen - np.median(chosen, axis=0), -self.clip, self.clip)
        return np.asarray(away @ self.turn)

    def directions_between(self, groups: Sequence[Rows], count: int) -> Array:
        """Return the directions in which groups differ most, (F, ≤ count)."""
        centres = np.array([np.median(self.rows[rows] @ self.turn, axis=0) for rows in groups])
        _, _, found = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
        return np.asarray(found[:count].T)


def _alike(vectors: Array) -> bool:
    return bool(np.ptp(vectors, axis=0).max() < _TINY)


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
