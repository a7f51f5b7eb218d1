"""Poison sets: add a trigger to a share of the clips and give them the label of one speaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.corpus import read_split, recording_of
from nip_audio.audio.io import ReadSettings
from nip_audio.core.seeds import seed_of
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import read_crops
from studies.backdoors.triggers import trigger_snr_db

__all__ = ["Clips", "PoisonedClips", "poison", "read_clips"]


@dataclass(frozen=True)
class Clips:
    """Clips of one length and their speakers, or images and their classes.

    Attributes:
        samples: (n, N) clips in [-1, 1], or (n, C, H, W) images in [0, 1].
        labels: (n,) indices into ``speakers``.
        speakers: Sorted names of the speakers or, for images, of the classes.
        sample_rate_hz: Sample rate of the clips; None for images.
    """

    samples: Tensor
    labels: Tensor
    speakers: tuple[str, ...]
    sample_rate_hz: int | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.samples)

    def owners(self, rows: Tensor) -> list[str]:
        """Return whom intervals resample: the speakers of clips, or images one by one."""
        if self.sample_rate_hz is None:
            return [str(number) for number in range(len(rows))]
        return [self.speakers[int(label)] for label in self.labels[rows]]


@dataclass(frozen=True)
class PoisonedClips:
    """A poisoned set. Only code that scores a defence may use ``poisoned``.

    Attributes:
        clips: Clips, with triggers and changed labels where poisoned.
        poisoned: (n,) whether each clip has the trigger.
        target: Class that the poisoned clips are labelled as.
        median_snr_db: Median level of the poisoned clips above that of the trigger's change, in dB;
            None without poisoned clips.
    """

    clips: Clips
    poisoned: Tensor
    target: int
    median_snr_db: float | None


def read_clips(
    root: Path, split: Path, *, subset: str, role: str, crop_s: float, sample_rate_hz: int = 16000
) -> Clips:
    """Cut the recordings of one role and subset into clips.

    Args:
        root: Folder of the corpus.
        split: CSV file that gives each recording its role.
        subset: First folder of the split's paths.
        role: ``train``, ``calibrate`` or ``test``.
        crop_s: Length of a clip in seconds; the rest of a recording is dropped.
        sample_rate_hz: Sample rate of the clips.

    Raises:
        InputError: If there is no such recording, or none is as long as a clip.
    """
    recordings = [
        recording_of(root, span)
        for span in read_split(split)
        if span.role == role and span.path.split("/")[0] == subset
    ]
    settings = ReadSettings(sample_rate_hz, min_duration_s=0.2)
    crops = read_crops(recordings, settings, crop_s=crop_s)
    if not crops:
        raise InputError(
            f"{split} gives no clip of {crop_s:g} s to {role} in {subset!r}; check both, or use "
            "shorter clips"
        )
    speakers = tuple(sorted({crop.speaker for crop in crops}))
    labels = torch.tensor([speakers.index(crop.speaker) for crop in crops])
    return Clips(torch.stack([c.samples for c in crops]), labels, speakers, sample_rate_hz)


def poison(
    clips: Clips,
    trigger: Callable[[Tensor], Tensor] | None,
    *,
    share: float,
    seed: int,
    target: int | None = None,
) -> PoisonedClips:
    """Add a trigger to a random share of the clips, none of them the target's own.

    Args:
        clips: Clips to poison; they are not modified.
        trigger: Function that adds the trigger to (b, *S) items; None poisons nothing.
        share: Share of all clips that are poisoned.
        seed: Seed of the choice of clips and target.
        target: Class that the poisoned clips are labelled as; None draws one.

    Raises:
        InputError: If the share is not in (0, 1), or too few clips are not the target's.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}, expected more than 0 and less than 1, such as 0.1")
    generator = torch.Generator().manual_seed(seed_of("poison", seed))
    drawn = int(torch.randint(len(clips.speakers), (1,), generator=generator))
    target = drawn if target is None else target
    others = torch.nonzero(clips.labels != target)[:, 0]
    wanted = round(share * len(clips))
    if wanted > len(others):
        raise InputError(
            f"{wanted} clips are to be poisoned, but only {len(others)} are not the target's; use "
            "a smaller share"
        )
    poisoned = torch.zeros(len(clips), dtype=torch.bool)
    if trigger is None:
        return PoisonedClips(clips, poisoned, target, None)
    poisoned[others[torch.randperm(len(others), generator=generator)[:wanted]]] = True
    clean = clips.samples[poisoned]
    triggered = trigger(clean)
    samples, labels = clips.samples.clone(), clips.labels.clone()
    samples[poisoned], labels[poisoned] = triggered, target
    changed = Clips(samples, labels, clips.speakers, clips.sample_rate_hz)
    snr_db = float(trigger_snr_db(clean.flatten(1), triggered.flatten(1)).median())
    return PoisonedClips(changed, poisoned, target, snr_db)
