"""The search for a backdoor as a stage of a data pipeline: train, look, drop, train again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.state import write_atomic
from nip_audio.detectors.backdoor import BackdoorGroups
from nip_audio.errors import ResumeError
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.backdoor import look_for_backdoor
from nip_audio.screening.measure import stamp_of
from nip_audio.speechbrain.data_stage import recordings_of, without

__all__ = ["BackdoorSearch"]

logger = logging.getLogger(__name__)

REPORT_NAME = "backdoor.json"
_VERSION = 2
"""Raised when the search gives another verdict on the same recordings."""


class BackdoorSearch:
    """Drops recordings that carry a backdoor's trigger, going by a model that was trained on them.

    A trigger says nothing to a model that never saw it, so there is no such search before the first
    training. See ``look_for_backdoor`` for what is looked for, and what is not found.

    Args:
        model: Name or directory of the model trained on the set, or one that is loaded already; it
            names speakers.
        out: Folder for backdoor.json. With the same model, recordings and seed the verdict is
            taken from there; with others it is made anew.
        seed: Of the noise.
        wav_key: Where a path stands in the data.
        speaker_key: Where a speaker's name stands.

    Attributes:
        report: What ``BackdoorReport.to_json`` says of the last set.

    Raises:
        ModelCardError: If there is no such model.
    """

    def __init__(
        self,
        model: str | Path | PretrainedModel,
        out: str | Path,
        *,
        seed: int = 0,
        wav_key: str = "wav",
        speaker_key: str = "spk_id",
    ) -> None:
        """See the class."""
        self.pretrained = model if isinstance(model, PretrainedModel) else load_pretrained(model)
        self.out = Path(out)
        self.seed = seed
        self.wav_key = wav_key
        self.speaker_key = speaker_key
        self.report: dict[str, Any] = {}

    def __call__(self, dataset: DynamicItemDataset) -> DynamicItemDataset:
        """Return the data set without the accused, and without what cannot be read.

        Raises:
            InputError: If the model names nobody, too few names have enough files, or nothing
                would be left.
            ResumeError: If backdoor.json is damaged.
        """
        recordings = recordings_of(dataset, wav_key=self.wav_key, speaker_key=self.speaker_key)
        self.report = self._look(recordings)
        accused = {*self.report["accused"], *self.report["failed"]}
        logger.info("%d of %d recordings are accused", len(accused), len(recordings))
        return without(dataset, accused)

    def _look(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        path, identity = self.out / REPORT_NAME, self._identity(recordings)
        if path.exists():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["identity"] == identity:
                    return dict(kept["report"])
            except (OSError, ValueError, KeyError, TypeError) as err:
                raise ResumeError(f"{path} is damaged ({err!r}); remove it") from err
        rate = self.pretrained.card.sample_rate_hz
        adapter = WaveformAdapter(ReadSettings(rate))
        found = look_for_backdoor(self.pretrained, recordings, adapter, seed=self.seed).to_json()
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"identity": identity, "report": found}, indent=1, allow_nan=False)
        write_atomic(path, text.encode(), force=True)
        return found

    def _identity(self, recordings: Sequence[Recording]) -> str:
        """Fingerprint of everything the verdict depends on."""
        return fingerprint(
            {
                "search": _VERSION,
                "settings": asdict(BackdoorGroups()),
                "model": self.pretrained.model_id,
                "seed": self.seed,
                "recordings": [[r.id, os.path.abspath(r.path), stamp_of(r)] for r in recordings],
            }
        )
