"""List the recordings of a SpeechBrain data set, and drop some of them.

The stages of a data pipeline share this code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset, FilteredSortedDynamicItemDataset

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError

__all__ = ["recordings_of", "without"]


def recordings_of(
    dataset: DynamicItemDataset, *, wav_key: str = "wav", speaker_key: str = "spk_id"
) -> list[Recording]:
    """List the recordings that a SpeechBrain data set will read.

    Spans are taken from ``start`` and ``stop`` in samples: either keys beside the path, as in
    SpeechBrain's CSV files, or in a mapping with the path (``file``, ``start``, ``stop``), as in
    its JSON files.

    Args:
        dataset: Data set made by ``from_csv`` or ``from_json``, filtered or not.
        wav_key: Key of the path.
        speaker_key: Key of the speaker's name; without it, recordings have no speaker.

    Raises:
        InputError: If an entry has no path, or its span is not two numbers.
    """
    return [
        _recording(str(name), dataset.data[name], wav_key, speaker_key) for name in dataset.data_ids
    ]


def _recording(name: str, row: Mapping[str, Any], wav_key: str, speaker_key: str) -> Recording:
    if wav_key not in row:
        raise InputError(
            f"{name!r} has no {wav_key!r}, only {', '.join(map(repr, row))}; pass wav_key"
        )
    entry = row[wav_key]
    place: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {**row, "file": entry}
    file = place.get("file")
    if not isinstance(file, str | Path):
        raise InputError(f"{name!r} is read from {entry!r}, expected one path; pass wav_key")
    start, stop = place.get("start"), place.get("stop")
    try:
        span = None if start in (None, "") and stop in (None, "") else (int(start), int(stop))  # type: ignore[arg-type]
    except (TypeError, ValueError) as err:
        raise InputError(
            f"{name!r}: start {start!r} and stop {stop!r} must both be samples, or be left out"
        ) from err
    speaker = row.get(speaker_key)
    return Recording(name, Path(file), None if speaker in (None, "") else str(speaker), span)


def without(dataset: DynamicItemDataset, ids: Collection[str]) -> FilteredSortedDynamicItemDataset:
    """Return a data set without some items, in the same order; the original is not modified.

    Raises:
        InputError: If no item would be left.
    """
    kept = [name for name in dataset.data_ids if str(name) not in ids]
    if not kept:
        raise InputError(
            f"none of {len(dataset.data_ids)} recordings would be left, because none is clean; "
            "read why in the results (if they are unlike the calibration's audio, calibrate on "
            "audio of your own)"
        )
    return FilteredSortedDynamicItemDataset(dataset, kept)
