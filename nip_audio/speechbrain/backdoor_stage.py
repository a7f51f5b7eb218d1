"""Search for a backdoor as a stage of a data pipeline: train, search, drop, train again."""

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
from nip_audio.audio.manifest import Recording
from nip_audio.core.cache import keep_or_make
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.strict_json import load_json
from nip_audio.detectors.backdoor import BackdoorGroups
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.screening.backdoor import look_for_backdoor
from nip_audio.screening.stamps import stamp_of
from nip_audio.speechbrain.data_stage import recordings_of, without

__all__ = ["BackdoorSearch"]

logger = logging.getLogger(__name__)

REPORT_NAME = "backdoor.json"
_VERSION = 2
"""Increased when the search gives other verdicts on the same recordings."""


class BackdoorSearch:
    """Drops recordings with a backdoor's trigger, found by a model that was trained on them.

    Only a model that was trained on a trigger reacts to it, so the search is possible only after a
    first training. ``look_for_backdoor`` describes what is found and what is not.

    Args:
        model: Name or directory of the model trained on the set, or the loaded model; it must
            classify speakers.
        out: Folder for backdoor.json. The verdict in it is used again for the same model,
            recordings and seed, and replaced for others.
        seed: Seed of the noise generator.
        wav_key: Key of a recording's path in the data.
        speaker_key: Key of the speaker's name in the data.

    Attributes:
        report: Result of ``BackdoorReport.to_json`` for the last set.

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
        """Load the model."""
        self.pretrained = model if isinstance(model, PretrainedModel) else load_pretrained(model)
        self.out = Path(out)
        self.seed = seed
        self.wav_key = wav_key
        self.speaker_key = speaker_key
        self.report: dict[str, Any] = {}

    def __call__(self, dataset: DynamicItemDataset) -> DynamicItemDataset:
        """Return the data set without backdoor findings and unreadable recordings.

        Raises:
            InputError: If the model has no head, too few labels have enough files, or no recording
                would be left.
            StateError: If backdoor.json is damaged.
        """
        recordings = recordings_of(dataset, wav_key=self.wav_key, speaker_key=self.speaker_key)
        self.report = self._look(recordings)
        accused = {*self.report["accused"], *self.report["failed"]}
        logger.info("%d of %d recordings are accused", len(accused), len(recordings))
        return without(dataset, accused)

    def _look(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        path, identity = self.out / REPORT_NAME, self._identity(recordings)

        def look() -> dict[str, Any]:
            adapter = WaveformAdapter.at(self.pretrained.card.sample_rate_hz)
            found = look_for_backdoor(self.pretrained, recordings, adapter, seed=self.seed)
            return found.to_json()

        def dump(found: dict[str, Any]) -> bytes:
            kept = {"identity": identity, "report": found}
            return json.dumps(kept, indent=1, allow_nan=False).encode()

        def load(data: bytes) -> dict[str, Any] | None:
            kept = load_json(data)
            return dict(kept["report"]) if kept["identity"] == identity else None

        return keep_or_make(path, look, dump=dump, load=load)

    def _identity(self, recordings: Sequence[Recording]) -> str:
        """Return a fingerprint of everything the verdict depends on."""
        return fingerprint(
            {
                "search": _VERSION,
                "settings": asdict(BackdoorGroups()),
                "model": self.pretrained.model_id,
                "seed": self.seed,
                "recordings": [[r.id, os.path.abspath(r.path), stamp_of(r)] for r in recordings],
            }
        )
