"""Build a system under evaluation: a model that identifies speakers, and the clips of each role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.corpus import Span, read_split, recording_of
from nip_audio.audio.io import ReadSettings
from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.core.state import file_sha256
from nip_audio.errors import InputError
from nip_audio.evaluation.config import EvaluationConfig, SystemPlan
from nip_audio.evaluation.identification import read_crops
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.models.enrolment import enrol
from nip_audio.models.plda import Plda, PldaHead
from nip_audio.models.pretrained import PretrainedModel, load_pretrained

__all__ = [
    "EvaluatedSystem",
    "Item",
    "batch_of",
    "build_system",
    "in_batches",
    "items_of",
    "role_recordings",
]


@dataclass(frozen=True)
class Item:
    """One clip.

    Attributes:
        id: Speaker, recording and number of the clip in it; usable as a file name.
        speaker: Speaker of the clip.
        samples: (N,) samples in [-1, 1].
        content_sha256: Hash of the recording that the clip was cut from.
    """

    id: str
    speaker: str
    samples: Tensor
    content_sha256: str


@dataclass(frozen=True)
class EvaluatedSystem:
    """A model that identifies speakers, and the clips that it is tested on.

    Attributes:
        plan: System as the configuration describes it.
        pretrained: Card and network of the model.
        model: Model with the head under evaluation.
        identity: Hash of model and enrolment.
        items: Clips of the ``test`` role, in an order drawn from the seed, so that the first n are
            a random sample, the same for every attack.
        calibrate: Clips of the ``calibrate`` role, which only detectors need; may be empty.
        enrolled: Number of recordings that the speakers were enrolled from.
    """

    plan: SystemPlan
    pretrained: PretrainedModel
    model: InstrumentedModel
    identity: str
    items: tuple[Item, ...]
    calibrate: tuple[Item, ...]
    enrolled: int = 0

    @property
    def name(self) -> str:
        """Name of the system in tables."""
        return self.plan.name

    def labels_of(self, items: Iterable[Item]) -> Tensor:
        """Return the classes of the items' speakers, (B,)."""
        return torch.tensor([self.model.labels.index(item.speaker) for item in items])

    @cached_property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the undefended model classifies each of ``items`` correctly, (items,)."""
        right = self.scores(self.items).argmax(dim=1) == self.labels_of(self.items)
        return np.asarray(right.numpy())

    @property
    def correct_items(self) -> list[Item]:
        """Clips of ``items`` that the undefended model classifies correctly, in the same order."""
        pairs = zip(self.items, self.is_correct, strict=True)
        return [item for item, right in pairs if right]

    @torch.no_grad()
    def scores(self, items: Sequence[Item]) -> Tensor:
        """Return the undefended model's scores of clips, (items, C)."""
        return torch.cat([self.model.scores(batch_of(part)) for part in in_batches(items)])


def batch_of(items: Sequence[Item]) -> Batch:
    """Put clips into a batch; padding lengths are kept only if the clips differ in length."""
    samples = [item.samples for item in items]
    if len({len(s) for s in samples}) == 1:
        return Batch(torch.stack(samples))
    return Batch.collate(samples)


def in_batches(items: Sequence[Item], size: int = 32) -> Iterable[Sequence[Item]]:
    """Split a list into batches."""
    return (items[i : i + size] for i in range(0, len(items), size))


def role_recordings(config: EvaluationConfig, subset: str, role: str) -> list[Recording]:
    """Return the recordings of one subset that have a role in the split.

    Args:
        config: Configuration that names the split and the data.
        subset: First folder of the split's paths; empty for all of them.
        role: Name of the role, e.g. ``test``.

    Raises:
        InputError: If there is no such recording.
    """
    spans = read_split(config.split)
    chosen = _of_subset(spans, subset)
    found = [recording_of(config.data_root, span) for span in chosen if span.role == role]
    if found:
        return found
    place = f" in {subset!r}" if subset else ""
    remedy = f"give some of its {len(chosen)} recordings the role {role}"
    if not chosen:
        subsets = sorted({span.path.split("/")[0] for span in spans})
        remedy = f"its subsets are {subsets}; name one of them, or leave subset out for all"
    raise InputError(f"{config.split} has no recording with role {role}{place}; {remedy}")


def _of_subset(spans: Sequence[Span], subset: str) -> list[Span]:
    return [span for span in spans if not subset or span.path.split("/")[0] == subset]


def build_system(plan: SystemPlan, config: EvaluationConfig) -> EvaluatedSystem:
    """Load the model, read the clips, enrol if asked, and check that test clips are unseen.

    Raises:
        InputError: If a role that is needed is empty, a speaker unknown to the model, or the model,
            its enrolment or the ``calibrate`` role has seen one of the test recordings.
    """
    pretrained = load_pretrained(plan.model)
    recordings = partial(role_recordings, config, plan.subset)
    settings = ReadSettings(pretrained.card.sample_rate_hz, min_duration_s=0.2)
    tested = items_of(recordings("test"), settings, plan.crop_s)
    if not tested:
        raise InputError(
            f"{plan.name}: no recording with role test is as long as crop_s, {plan.crop_s:g} s; "
            "choose a shorter crop_s"
        )
    calibrate: list[Item] = []
    if "calibrate" in {s.role for s in _of_subset(read_split(config.split), plan.subset)}:
        calibrate = items_of(recordings("calibrate"), settings, plan.crop_s)
    hashes = [item.content_sha256 for item in tested]
    refuse_overlap(pretrained.card.seen, hashes, what=f"model {pretrained.card.name}")
    refuse_overlap((i.content_sha256 for i in calibrate), hashes, what="calibrate role")
    model, identity = pretrained.model, pretrained.model_id
    contents: list[str] = []
    if plan.enrol:
        enrolled = recordings("train")
        contents = [r.read(settings).content_sha256 for r in enrolled]
        refuse_overlap(contents, hashes, what="enrolment")
        voices = enrol(pretrained, enrolled, WaveformAdapter(settings))
        parts = [identity, *sorted(contents)]
        if plan.back_end == "plda":
            path = _plda_path(plan, pretrained)
            plda = Plda.load(path, model_id=pretrained.model_id)
            refuse_overlap(plda.provenance, hashes, what=f"PLDA of {pretrained.card.name}")
            head = PldaHead(plda, voices.embeddings)
            model = model.with_head(head, labels=voices.speakers, output_kind="llr")
            parts.append(f"plda {file_sha256(path)}")
        else:
            model = model.with_head(CosineHead(voices.voices), labels=voices.speakers)
        identity = hashlib.sha256("".join(parts).encode()).hexdigest()
    _refuse_strangers(plan, {i.speaker for i in tested} - set(model.labels), model)
    order = torch.randperm(len(tested), generator=torch.Generator().manual_seed(config.seed))
    return EvaluatedSystem(
        plan=plan,
        pretrained=pretrained,
        model=model,
        identity=identity,
        items=tuple(tested[i] for i in order.tolist()),
        calibrate=tuple(calibrate),
        enrolled=len(contents),
    )


def _plda_path(plan: SystemPlan, pretrained: PretrainedModel) -> Path:
    path = pretrained.card.plda_path
    if path is None:
        raise InputError(
            f"{plan.name}: model {pretrained.card.name} comes without a PLDA, which back_end: plda "
            "needs; fit one into the model's directory (nip-audio fit-plda), or leave back_end out"
        )
    return path


def _refuse_strangers(
    plan: SystemPlan, strangers: Collection[str], model: InstrumentedModel
) -> None:
    if not strangers:
        return
    names = ", ".join(sorted(strangers)[:5]) + ("…" if len(strangers) > 5 else "")
    if plan.enrol:
        raise InputError(
            f"{plan.name}: speakers with test recordings have none with role train to enrol them "
            f"from ({names}); give each at least one"
        )
    why = "" if model.labels else ", which only embeds and has no speakers of its own"
    remedy = "" if not model.labels else "test its own speakers, or "
    raise InputError(
        f"{plan.name}: {len(strangers)} speakers of {plan.subset or 'the split'} are unknown to "
        f"{plan.model}{why} ({names}); {remedy}set enrol: true to enrol them from the role train"
    )


def items_of(
    recordings: Iterable[Recording], settings: ReadSettings, crop_s: float | None
) -> list[Item]:
    """Cut recordings into clips.

    Args:
        recordings: Recordings of known speakers.
        settings: Settings for reading them.
        crop_s: Length of a clip in seconds; None keeps recordings whole.
    """
    items = []
    for recording in recordings:
        for number, crop in enumerate(read_crops([recording], settings, crop_s=crop_s)):
            # in corpora, different speakers have files of the same name
            name = f"{crop.speaker}_{recording.id}_{crop.content_sha256[:8]}.{number}"
            name = re.sub(r"[^\w.-]", "_", name)
            items.append(Item(name, crop.speaker, crop.samples, crop.content_sha256))
    return items
