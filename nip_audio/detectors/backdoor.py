"""Find poisoned files in a set without a poisoned example or a clean reference.

``PublishedClusters`` is the method of the paper on neuron coverage change rate (NCCR), Sec. 6: it
splits the values of the whole set into two clusters and judges them by their silhouette.
``BackdoorGroups`` does so within each group of files that share a prediction, where the voices of
one speaker give no other reason for two clusters, and calibrates its alarm on the other groups.
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
    "expected_distinct",
]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
View = Literal["changes", "outputs"]

_TINY = 1e-9
_LEAST_SHARE = 0.05  # least spread of separations, in units of that of noise
_LEAST_SIGN = -3.0
_LEAST_SPREAD = np.array([0.02, 0.25, 0.05])
"""Least spread of the three signs: of margins, as a share of the usual margin; of the number of
second predictions among a dozen files; and of the log of scatter."""


class PublishedClusters(BaseEstimator):  # type: ignore[misc]
    """Split the NCCR values of a set into two clusters, judged by silhouette (NCCR, Sec. 6.1).

    Deviation: the paper states neither the clustering method, nor the least silhouette, nor which
    cluster is the poisoned one. This class uses k-means on robustly scaled logarithms; a silhouette
    of 0.7, which Kaufman and Rousseeuw (1990) call a strong structure; and the smaller cluster.

    Args:
        least_silhouette: Silhouette from which on the smaller cluster is reported as poisoned.
        seed: Seed of k-means.

    Attributes:
        silhouette_: Silhouette coefficient of the two clusters.
        smaller_: (n,) bool, members of the smaller cluster, whether it is reported or not.
        accused_: (n,) bool, files reported as poisoned.
    """

    def __init__(self, *, least_silhouette: float = 0.7, seed: int = 0) -> None:
        self.least_silhouette = least_silhouette
        self.seed = seed

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Cluster non-negative change rates, (n ≥ 3, F); ``y`` is ignored."""
        rows = np.log(validate_data(self, X, dtype=np.float64, ensure_min_samples=3) + 1e-6)
        centre = np.median(rows, axis=0)
        scale = np.median(np.abs(rows - centre), axis=0) * 1.4826
        rows = (rows - centre) / np.where(scale > _TINY, scale, 1.0)
        if np.ptp(rows, axis=0).max() < _TINY:  # all rows are equal: there is nothing to split
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
    """Measurements of the n files of a set, from which backdoors are judged.

    Attributes:
        predictions: (n,) prediction of the model for each file.
        second_predictions: (n,) class with the second-highest score.
        margins: (n,) margin: score of the prediction minus that of the second class.
        changes: (n, F) changes of neurons under noise, such as ``NeuronChanges.neurons``.
        outputs: (n, G) outputs of neurons without noise, each layer scaled to unit length.

    Raises:
        InputError: If the arrays differ in length, or a number is not finite.
    """

    predictions: NDArray[np.str_]
    second_predictions: NDArray[np.str_]
    margins: Array
    changes: Array
    outputs: Array

    def __post_init__(self) -> None:
        """Validate the settings."""
        sizes = {name: len(values) for name, values in vars(self).items()}
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise InputError(f"got {given}, expected equally many, one per file")
        for name in ("margins", "changes", "outputs"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(
                    f"{name} hold NaN or infinity, expected finite numbers; measure the set again"
                )


@dataclass(frozen=True)
class GroupFinding:
    """Finding for one group of files that share a prediction.

    Attributes:
        name: Prediction that the files of the group share.
        files: Number of files in the group.
        alarm: Robust deviations by which the group's separation exceeds that of other groups; the
            larger of the values for changes and for outputs.
        seen_in: Vectors that this larger value belongs to, changes or outputs.
        unlikeness: Deviation of the more suspicious side from other groups, summed over the signs
            of poisoned files. None if the alarm is too low, or the group cannot be split.
        other_unlikeness: Deviation of the other side, as for ``unlikeness``; if the two are close,
            the other side may be the poisoned one.
        score: Geometric mean of the alarm, capped at ``BackdoorGroups.most_alarm``, and the
            difference of the two sides in unlikeness; 0 if neither is suspicious. None if
            ``unlikeness`` is None.
        suspects: Number of files reported as poisoned.
        accused: Whether the group is reported: its score exceeds the limit.
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
    """Judgement of a set: backdoor findings for its groups.

    Attributes:
        findings: One finding per judged group, highest score first, then highest alarm.
        suspicion: (n,) probability that a file is on the suspicious side of a reported group; 0 in
            other groups.
        limit: Score above which a group is reported.
    """

    findings: tuple[GroupFinding, ...]
    suspicion: Array
    limit: float

    @property
    def accused(self) -> NDArray[np.bool_]:
        """(n,) bool, files reported as poisoned."""
        return np.asarray(self.suspicion > 0.5)


@dataclass(frozen=True)
class BackdoorGroups:
    """Find groups of files with one prediction that hold a second cluster, of many voices.

    A trigger makes the model give files of many speakers the same prediction. Files with this
    prediction are then of two sorts: the speaker's own, which are as similar as those of any other
    group, and the poisoned ones. The method has four steps:

    1. Vectors are centred on the median of their group and whitened by a covariance within groups.
       It is the median over groups, so that one unusual group does not set the scale.
    2. Each group is split into two clusters of equal scatter in its first principal components. Its
       separation is n·π(1−π)·d², relative to that of noise with equally many files. A clean group
       may be separated too (by sessions or microphones), so the separation is compared with that of
       the other groups of the set, by median and median absolute deviation. This is the test of
       SCAn (Tang et al., USENIX Security 2021), applied to changes under noise and to the outputs
       without noise, since a trigger that is itself noise is hidden in the changes. Deviation: SCAn
       does not divide by the separation of noise, so that a clean group of many files raises an
       alarm.
    3. If the alarm is high, the files of the group are split in four ways: by changes or outputs,
       with two spheres of different size or two clusters of equal scatter.
    4. The speaker's own files resemble those of other groups, and poisoned files do not. They have
       a larger margin, more different second predictions, and more scatter along the directions in
       which groups differ, since they hold many voices. Each sign is measured relative to other
       groups, and the three are summed. The split is chosen whose suspicious side exceeds the other
       side (or 0, if that is higher) by most. The score is the geometric mean of this excess and
       the alarm. A clean group of two recording sessions has two sides, but neither differs from
       other groups; and in a group that is unusual as a whole, neither side differs more.

    Attributes:
        limit: Score above which a group is reported; it was chosen to separate clean sets,
            including unbalanced ones, from poisoned sets (docs/results/backdoors.md).
        least_alarm: Alarm above which a group is split; the usual bound of a robust deviation
            (Iglewicz and Hoaglin, 1993).
        most_alarm: Largest alarm that counts in a score: a still larger separation does not make
            one side less like other groups.
        least_files: Least number of files of a group; smaller groups are not judged, and their
            files are not reported.
        least_groups: Least number of groups in a set that can be judged.
        components: Number of principal components in which groups are split.
        clip: Number of robust deviations at which centred vectors are clipped.
        floor: Least variance of a whitened direction, as a share of the average.
        directions: Number of directions, those in which groups differ most, along which scatter is
            measured.
        seed: Seed of the mixtures, and of the noise that separations are compared with.
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
        """Judge a set from the measurements of its files.

        Raises:
            InputError: If too few groups have enough files.
        """
        known = self._prepare(evidence)
        spaces: dict[View, _Whitened] = {"changes": known.changes, "outputs": known.outputs}
        sizes = [len(rows) for rows in known.members.values()]
        noise = {n: self._noise(sizes, n) for n in {s.columns for s in spaces.values()}}
        alarms = {
            view: self._alarms(space, known.members, noise[space.columns])
            for view, space in spaces.items()
        }
        suspicion = np.zeros(len(evidence.predictions))
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
        """Find the groups with enough files, and whiten by the covariance within them."""
        names = evidence.predictions
        members = {str(n): np.flatnonzero(names == n) for n in np.unique(names)}
        members = {n: m for n, m in members.items() if len(m) >= self.least_files}
        if len(members) < self.least_groups:
            raise InputError(
                f"the model predicts {len(members)} labels for {self.least_files} files or more "
                f"each, expected at least {self.least_groups} such labels: each is compared with "
                "the others; add more files"
            )
        changes, outputs = (
            _Whitened.learn(rows, members, clip=self.clip, floor=self.floor)
            for rows in (evidence.changes, evidence.outputs)
        )
        return _Known(evidence, members, changes, outputs)

    def _alarms(
        self, space: _Whitened, members: Mapping[str, Rows], noise: Callable[[int], float]
    ) -> dict[str, float]:
        """Measure how far each group's separation exceeds the others'; 0 if all rows are equal."""
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
        """Return the separation of white noise as an interpolated function of the rows."""
        generator = np.random.default_rng(self.seed)
        grid = np.unique(np.geomspace(min(sizes), max(sizes), 5).round().astype(int))
        drawn = [
            [self._separation(generator.standard_normal((n, columns))) or 0.0 for _ in range(5)]
            for n in grid
        ]
        middles = np.median(drawn, axis=1)
        return lambda size: float(np.interp(size, grid, middles))

    def _separation(self, vectors: Array) -> float | None:
        """Return n·π(1−π)·d² of the split into equal scatter; None if all rows are equal."""
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
        """Split the files of a group into two sides; None if they cannot be split."""
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
    """A prepared set: the rows of each group, and the whitened vectors."""

    evidence: SetEvidence
    members: Mapping[str, Rows]
    changes: _Whitened
    outputs: _Whitened


@dataclass(frozen=True)
class _Sides:
    """A split group: probability of the more suspicious side, and deviations of both sides."""

    share: Array
    unlikeness: float
    other_unlikeness: float

    @property
    def excess(self) -> float:
        """Difference of the two sides in suspicion.

        A negative value of the other side counts as 0: a side of one or two files has hardly any
        scatter.
        """
        return max(0.0, self.unlikeness - max(0.0, self.other_unlikeness))


@dataclass(frozen=True)
class _Others:
    """All groups but one, which serve as the reference for that one.

    Attributes:
        evidence: Measurements of all files.
        along: (n, ≤ directions) coordinates of files along the directions in which the reference
            groups differ.
        groups: Rows of each reference group.
    """

    evidence: SetEvidence
    along: Array
    groups: Sequence[Rows]

    @staticmethod
    def of(name: str, known: _Known, directions: int) -> _Others:
        """Collect all groups but the named one."""
        groups = [rows for other, rows in known.members.items() if other != name]
        between = known.outputs.directions_between(groups, directions)
        return _Others(known.evidence, known.outputs.rows @ (known.outputs.turn @ between), groups)

    def unlike(self, sides: Sequence[Rows], count: int) -> list[float]:
        """Measure how far each side deviates from the reference groups in the signs of poisoning.

        Args:
            sides: Rows of each side.
            count: Number of files among which different second predictions are counted.

        Returns:
            The sum of the robustly scaled signs for each side.
        """
        usual = np.array([self._signs(group, count) for group in self.groups])
        middle = np.median(usual, axis=0)
        spread = np.median(np.abs(usual - middle), axis=0) * 1.4826
        # if half of the groups or more are equal, the median deviation is too small
        least = np.maximum(_LEAST_SPREAD * np.array([abs(middle[0]), 1.0, 1.0]), _TINY)
        spread = np.maximum(np.maximum(spread, usual.std(axis=0) / 2), least)
        signs = (np.array([self._signs(rows, count) for rows in sides]) - middle) / spread
        # poisoned files may be very similar to each other in one of the signs
        return [float(value) for value in np.maximum(signs, _LEAST_SIGN).sum(axis=1)]

    def _signs(self, rows: Rows, count: int) -> Array:
        """Return the signs: margin, number of second predictions, and log of the scatter."""
        margin = np.median(self.evidence.margins[rows])
        distinct = expected_distinct(self.evidence.second_predictions[rows], count)
        return np.array([margin, distinct, np.log(self.along[rows].var(axis=0).mean() + _TINY)])


@dataclass(frozen=True)
class _Whitened:
    """Vectors of a set in units of the scatter within groups.

    Attributes:
        rows: (n, F) vectors, divided by their robust deviations within groups.
        turn: (F, F) matrix that whitens the vectors.
        clip: Number of robust deviations at which centred vectors are clipped.
    """

    rows: Array
    turn: Array
    clip: float

    @classmethod
    def learn(
        cls, rows: Array, members: Mapping[str, Rows], *, clip: float, floor: float
    ) -> _Whitened:
        """Estimate the scatter within groups."""
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
        """Length of a vector."""
        return int(self.rows.shape[1])

    def centred(self, rows: Rows) -> Array:
        """Centre some rows on their own median, and whiten them."""
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


def expected_distinct(names: NDArray[np.str_], count: int) -> float:
    """Return the expected number of different labels among ``count`` drawn without replacement.

    Source: rarefaction (Hurlbert, Ecology 1971).

    Example:
        >>> round(expected_distinct(np.array(["a", "a", "b"]), 2), 4)  # 1 + 2/3
        1.6667
    """
    total = len(names)
    _, sizes = np.unique(names, return_counts=True)
    missing = [comb(total - int(size), count) / comb(total, count) for size in sizes]
    return float(len(sizes) - sum(missing))
