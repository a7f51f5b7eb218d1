"""Teach a speaker network the embeddings of a stronger one (Hinton et al. 2015).

A network that has only minutes of each speaker also learns their microphones and rooms. A teacher
that has heard thousands of speakers places a voice where its other recordings lie, so its
embeddings of the same crops tell the student what to ignore. It needs no labels, and hears only
what the student is trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.models.pretrained import PretrainedModel

__all__ = ["Distillation", "Teacher"]

BATCH = 64


class Teacher:
    """Embeddings by a teacher of windows of the training recordings, made once and kept in a file.

    The target of a crop is the mean of the windows inside it. That costs one pass over the
    recordings instead of one over every crop of every epoch, many times as much speech.

    Args:
        windows: For each recording (W, D) embeddings of unit length, by its key.
        step_s: Seconds from the start of one window to that of the next.
        window_s: Seconds of a window.
    """

    def __init__(self, windows: dict[str, Tensor], *, window_s: float, step_s: float) -> None:
        self.windows = windows
        self.window_s = window_s
        self.step_s = step_s

    @property
    def size(self) -> int:
        """Size D of an embedding."""
        return int(next(iter(self.windows.values())).shape[1])

    def target(self, key: str, start_s: float, stop_s: float) -> Tensor:
        """Return the (D,) mean of the windows between two times of a recording.

        Where no window lies wholly between them, it is the mean of all windows.
        """
        rows = self.windows[key]
        first = -int(-start_s // self.step_s)  # the first window that starts at or after start_s
        last = int((stop_s - self.window_s) / self.step_s + 1e-6)
        inside = rows[first : last + 1] if last >= first else rows
        return (inside if len(inside) else rows).mean(dim=0)

    @classmethod
    def cached(
        cls,
        file: Path,
        pretrained: PretrainedModel,
        recordings: Sequence[tuple[str, Callable[[], Tensor]]],
        *,
        window_s: float,
        step_s: float,
    ) -> Teacher:
        """Read the embeddings from a file, or make them and write it.

        Args:
            file: Safetensors file; one of another teacher or other windows is made anew.
            pretrained: The teacher.
            recordings: Key of each recording, and what reads its (N,) waveform at the teacher's
                sample rate.
            window_s: Seconds of a window.
            step_s: Seconds from the start of one window to that of the next.

        Raises:
            InputError: If a recording gives an embedding that is not finite.
        """
        keys = "\n".join(key for key, _ in recordings)
        made_by = f"{pretrained.model_id} {window_s} {step_s} {keys}"
        marker = torch.tensor(list(hashlib.sha256(made_by.encode()).digest()), dtype=torch.uint8)
        if file.exists():
            known = load_file(file)
            if torch.equal(known.pop(""), marker):
                return cls(known, window_s=window_s, step_s=step_s)
        rate = pretrained.card.sample_rate_hz
        size, step = round(window_s * rate), round(step_s * rate)
        windows = {
            key: _embed(pretrained.model, read(), size, step, key)
            for key, read in track(recordings, "what the teacher says of the recordings")
        }
        save_file(windows | {"": marker}, file)
        return cls(windows, window_s=window_s, step_s=step_s)


@torch.no_grad()
def _embed(model: InstrumentedModel, samples: Tensor, size: int, step: int, key: str) -> Tensor:
    missing = max(size - samples.shape[0], 0)
    rows = nn.functional.pad(samples, (0, missing)).unfold(0, size, step)
    parts = [model.embed(Batch(part)).float() for part in torch.split(rows, BATCH)]
    found = nn.functional.normalize(torch.cat(parts), dim=1)
    if not bool(found.isfinite().all()):
        raise InputError(
            f"the teacher's embedding of {key} is not finite, expected numbers; leave the "
            "recording out, or choose another teacher"
        )
    return found


class Distillation(nn.Module):
    """Cosine distance of embeddings, after a linear map of its own, to those of a teacher.

    Args:
        size: Size of the student's embedding.
        teacher_size: Size of the teacher's.
    """

    def __init__(self, size: int, teacher_size: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, teacher_size)

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the mean distance.

        Args:
            embeddings: (B, size) of the student.
            targets: (B, teacher_size) of the teacher.
        """
        return (1 - torch.cosine_similarity(self.map(embeddings), targets, dim=1)).mean()
