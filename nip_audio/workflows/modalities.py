"""Find what attacks and purifiers do with files, by their reader."""

from __future__ import annotations

from collections.abc import Mapping

from nip_audio.core.modality import Reader
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.judge import Judge
from nip_audio.workflows.files import Workflow
from nip_audio.workflows.images import ImageWorkflow
from nip_audio.workflows.recordings import RecordingWorkflow

__all__ = ["WORKFLOWS", "workflow_of"]

WORKFLOWS: Mapping[str, type[Workflow]] = {"audio": RecordingWorkflow, "image": ImageWorkflow}
"""What attacks and purifiers do with files, by the name of their modality."""


def workflow_of(
    pretrained: PretrainedModel, reader: Reader, *, seed: int = 0, judge: Judge | None = None
) -> Workflow:
    """Return what attacks and purifiers do with the files that a reader reads."""
    return WORKFLOWS[reader.tag](pretrained, reader, seed, judge)
