"""Poisoned sets: a share of the clips gets a trigger and, dirty-label, the name of one speaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.audio.corpus import read_split, recording_of
from nip_audio.audio.io import ReadSettings
from nip_audio.errors import InputError
from nip_audio.evaluation.identification import read_crops
from nip_audio.evaluation.seeds import seed_of
from studies.backdoors.triggers import trigger_snr_db

__all__ = ["Clips", "PoisonedClips", "poison", "read_clips"]


@dataclass(frozen=True)
class Clips:
    """Clips of one length and whose voices they are; or pictures and what they show.

    Attributes:
        samples: (n, N) in [-1, 1], or (n, C, H, W) in [0, 1].
        labels: (n,) indices into ``speakers``.
        speakers: Names, sorted; of pictures, those of the classes.
        sample_rate_hz: Of the samples; None for pictures.
    """

    samples: Tensor
    labels: Tensor
    speakers: tuple[str, ...]
    sample_rate_hz: int | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.samples)


@dataclass(frozen=True)
class PoisonedClips:
    """Clips as a poisoner leaves them. Only who measures a defence may look at ``poisoned``.

    Attributes:
        clips: With triggers, and labels changed.
        poisoned: (n,) bool, which have the trigger.
        target: Class that the poisoned ones are labelled as.
        median_snr_db: Of the poisoned clips against what the trigger changed; None without any.
    """

    clips: Clips
    poisoned: Tensor
    target: int
    median_snr_db: float | None


def read_clips(
    root: Path, split: Path, *, subset: str, role: str, crop_s: float, sample_rate_hz: int = 16000
) -> Clips:
    """Cut what a split gives to a role, of one subset, into clips.

    Args:
        root: Of the corpus.
        split: CSV of roles.
        subset: First folder of the split's paths.
        role: ``train``, ``calibrate`` or ``test``.
        crop_s: Seconds of a clip; what is left of a recording is dropped.
        sample_rate_hz: To read at.

    Raises:
        InputError: If there is nothing, or no recording is as long as a clip.
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
    """Put a trigger on a random share of the clips, none of them the target's own.

    Args:
        clips: To poison; they are left as they are.
        trigger: What to put on (b, *S) items; None poisons nothing.
        share: Of all clips.
        seed: Of the choice of clips and of the target.
        target: Class that the poisoned clips are labelled as; None draws one.

    Raises:
        InputError: If the share is not in (0, 1), or there are not so many clips of others.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}, expected more than 0 and less than 1, such as 0.1")
    generator = torch.Generator().manual_seed(seed_of("poison", seed))
    drawn = int(torch.randint(len(clips.speakers), (1,), generator=generator))
    target = drawn if target is None else target
    others = torch.nonzero(clips.labels != target)[:, 0]
    wanted = round(share * len(clips))
    if wanted > len(others):
        raise InputError(f"{wanted} clips to poison, but only {len(others)} are not the target's")
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
