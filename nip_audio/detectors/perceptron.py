"""The published NCCR detector: a small perceptron trained on attacks that the defender makes.

NCCR is neuron coverage change rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from nip_audio.detectors.fitted import FittedPerceptron

__all__ = ["AttackPerceptron"]

Array = NDArray[np.float64]

_LAYERS = ("w1", "b1", "w2", "b2")


class AttackPerceptron(ClassifierMixin, BaseEstimator, FittedPerceptron):  # type: ignore[misc]
    """Perceptron of three layers: input vectors, one hidden layer (ReLU), log-odds of an attack.

    Source: NCCR, Sec. 5. Deviation: no layout matches the paper's 1,792 parameters exactly; the
    hidden layer is as wide as that number allows.

    Args:
        parameters: Largest number of parameters of the network.
        alpha: Weight of the squared weights in the loss.
        max_iter: Largest number of epochs.
        clip: Number of standard deviations at which inputs are clipped, so that inputs far from
            all training rows cannot have a log-odds far from all of theirs.
        random_state: Seed of the initial weights and the order of the rows.

    Attributes:
        classes_: The two classes of ``y``; the second is the attack.
        parameters_: Number of parameters of the network.
        n_iter_: Number of epochs; ``max_iter`` if the loss was still falling.
        weights_: Arrays of the network by name; see ``FittedPerceptron``.
    """

    def __init__(
        self,
        *,
        parameters: int = 1792,
        alpha: float = 1.0,
        max_iter: int = 500,
        clip: float = np.inf,
        random_state: int | None = 0,
    ) -> None:
        self.parameters = parameters
        self.alpha = alpha
        self.max_iter = max_iter
        self.clip = clip
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Declare to scikit-learn that exactly two classes are supported."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on vectors (n, F) and their two classes (n,).

        Raises:
            ValueError: If there are not exactly two classes, or a value is not finite.
        """
        rows, classes = validate_data(self, X, y, dtype=np.float64)
        kind = type_of_target(classes, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}."
            )
        self.classes_ = np.unique(classes)
        if len(self.classes_) < 2:
            raise ValueError("Classifier can't train when only one class is present.")
        scaler = StandardScaler().fit(rows)
        hidden = max(1, (self.parameters - 1) // (rows.shape[1] + 2))
        network = MLPClassifier(
            (hidden,), alpha=self.alpha, max_iter=self.max_iter, random_state=self.random_state
        )
        with warnings.catch_warnings():
            # n_iter_ tells it: a network whose loss is still falling is used like any other
            warnings.simplefilter("ignore", ConvergenceWarning)
            scaled = np.clip(scaler.transform(rows), -self.clip, self.clip)
            network.fit(scaled, classes == self.classes_[1])
        self.weights_ = {
            "center": scaler.mean_,
            "scale": scaler.scale_,
            "w1": network.coefs_[0],
            "b1": network.intercepts_[0],
            "w2": network.coefs_[1],
            "b2": network.intercepts_[1],
            "clip": np.array([self.clip]),
        }
        self.parameters_ = sum(self.weights_[name].size for name in _LAYERS)
        self.n_iter_ = network.n_iter_
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the log-odds of an attack, (n,)."""
        return self.distance(X)

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the negative log-odds: higher is more normal, scikit-learn's convention."""
        return -self.decision_function(X)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probabilities of the two classes, (n, 2)."""
        attack = 1 / (1 + np.exp(-self.decision_function(X)))
        return np.column_stack([1 - attack, attack])

    def predict(self, X: ArrayLike) -> NDArray[np.generic]:
        """Return the more likely class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[(self.decision_function(X) > 0).astype(int)])

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild a detector from the arrays of ``to_tensors``; its classes are 0 and 1."""
        detector = super().from_tensors(tensors)
        detector.classes_ = np.array([0, 1])
        detector.parameters_ = sum(detector.weights_[name].size for name in _LAYERS)
        return detector

    def _rows(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False))

    def _require_fitted(self) -> None:
        check_is_fitted(self)
