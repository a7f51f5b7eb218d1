"""A mixin for SpeechBrain's ``Brain``: it trains on what a stage of the YAML lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.errors import InputError

__all__ = ["ScreenedTraining"]


class ScreenedTraining:
    """Stands before ``Brain``: ``class MyBrain(ScreenedTraining, sb.Brain)``.

    With ``screening`` in the hyperparameters (a ``ScreenedData``, or anything else that takes a
    ``DynamicItemDataset`` and returns one) ``fit`` trains on what that returns. Without it, or with
    null, nothing changes. The validation set is left alone.
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
        """Screen, then train; as ``Brain.fit``.

        Raises:
            InputError: If the training set is no data set, or a sampler was made for it before it
                was screened.
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
                    "from what it returns"
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
