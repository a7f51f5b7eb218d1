"""Mixin for SpeechBrain's ``Brain`` that screens the training set before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.errors import InputError

__all__ = ["ScreenedTraining"]


class ScreenedTraining:
    """Mixin to put before ``Brain``: ``class MyBrain(ScreenedTraining, sb.Brain)``.

    With ``screening`` in the hyperparameters (a ``ScreenedData``, or another callable that takes
    and returns a ``DynamicItemDataset``), ``fit`` trains on the data set that it returns. Without
    ``screening``, or with null, nothing changes. The validation set is not screened.
    """

    hparams: Any

    def fit(
        self,
        epoch_counter: Any,
        train_set: Any,
        valid_set: Any = None,
        progressbar: bool | None = None,
        train_loader_kwargs: Mapping[str, Any] | None = None,
        valid_loader_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Screen the training set, then train like ``Brain.fit``.

        Raises:
            InputError: If the training set is not a ``DynamicItemDataset``, or a sampler was made
                for it before the screening.
        """
        loading = dict(train_loader_kwargs or {})
        screening = getattr(self.hparams, "screening", None)
        if screening is not None:
            if not isinstance(train_set, DynamicItemDataset):
                raise InputError(
                    f"the training set is a {type(train_set).__name__}, expected a "
                    "DynamicItemDataset; screen it before it becomes anything else"
                )
            if {"sampler", "batch_sampler"} & loading.keys():
                raise InputError(
                    "the sampler was made for the set before it was screened, and would ask for "
                    "items that are gone; call screening on the set yourself, and make the sampler "
                    "for the set that it returns"
                )
            train_set = screening(train_set)
        super().fit(  # type: ignore[misc]
            epoch_counter,
            train_set,
            valid_set,
            progressbar,
            loading,
            dict(valid_loader_kwargs or {}),
        )
