"""Score many verification trials at once: embed every file once, keep it, compare in bulk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from speechbrain.inference.speaker import SpeakerRecognition
from torch import Tensor

from nip_audio.core.cache import keep_vector
from nip_audio.core.finite import require_finite, require_finite_values
from nip_audio.core.state import file_sha256
from nip_audio.errors import AudioError, InputError
from nip_audio.speechbrain.guarded import GuardedSpeakerRecognition

__all__ = ["EmbeddingCache", "verify_batch"]

_CHUNK = 1 << 16
_EPS = 1e-6  # of SpeakerRecognition.similarity


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder of embeddings, found by the model's identity and the recording's content.

    Recordings may be renamed, and one that is replaced gets a new embedding. Each embedding is a
    file that is written whole or not at all, so that several processes may share the folder.

    Attributes:
        folder: Folder of the embeddings; created when missing.
        model_id: Identity of the model; embeddings of other models are never read.
    """

    folder: Path
    model_id: str

    def get(self, path: str | Path, embed: Callable[[Path], Tensor]) -> NDArray[np.float32]:
        """Return the embedding of a file, (D,), and make it with ``embed`` if it is not kept yet.

        Raises:
            AudioError: If the file cannot be read.
            StateError: If the kept embedding is damaged.
        """
        path = Path(path)
        return keep_vector(self._place(path), lambda: embed(path).detach().cpu().float().numpy())

    def _place(self, path: Path) -> Path:
        try:
            content = file_sha256(path)
        except OSError as err:
            raise AudioError(
                path,
                code="unreadable" if path.exists() else "missing",
                found=f"it cannot be read ({err.strerror})",
                remedy="check the path",
            ) from err
        model = hashlib.sha256(self.model_id.encode()).hexdigest()[:16]
        return self.folder / model / content[:2] / f"{content}.npy"


def verify_batch(
    verification: SpeakerRecognition,
    trials: Sequence[tuple[str | Path, str | Path]],
    *,
    cache: str | Path,
    threshold: float = 0.25,
    model_id: str | None = None,
    progress: Callable[[Path], None] = lambda path: None,
) -> tuple[Tensor, Tensor]:
    """Score trials of two files each, with the results that ``verify_files`` gives one by one.

    Each file is embedded once, by itself, and kept in ``cache``; all scores are then a few matrix
    operations. Files are not judged here: screen them before enrolment.

    Args:
        verification: Interface that embeds, guarded or not; a guard's verdicts are not used.
        trials: Pairs of an enrolment and a test file, in any order; files may repeat.
        cache: Folder for the embeddings.
        threshold: Cosine above which two files are accepted as one speaker, as in SpeechBrain.
        model_id: Identity of the model; None takes that of a guarded interface. Weights that were
            trained further need another identity.
        progress: Called after each file.

    Returns:
        Scores (n,) and decisions (n,), equal to those of ``verify_files`` to 1e-6.

    Raises:
        InputError: If there are no trials, or no ``model_id`` for a model without an identity.
        AudioError: If a file cannot be used.
        StateError: If the cache is damaged.
    """
    if model_id is None:
        if not isinstance(verification, GuardedSpeakerRecognition):
            raise InputError(
                f"a {type(verification).__name__} has no identity, which keeps the embeddings of "
                "two models apart; pass model_id, a name of your own for these weights"
            )
        model_id = verification.guard.pretrained.model_id
    if not trials:
        raise InputError("got no trials, expected pairs of files")
    kept = EmbeddingCache(Path(cache), model_id)
    paths = list(dict.fromkeys(Path(os.fspath(p)) for pair in trials for p in pair))
    places = {path: place for place, path in enumerate(paths)}
    vectors = []
    for path in paths:
        vectors.append(kept.get(path, lambda p: _embed(verification, p)))
        progress(path)
    voices = torch.from_numpy(np.stack(vectors)).double()
    voices = voices / voices.norm(dim=1, keepdim=True).clamp_min(_EPS)
    pairs = torch.tensor([[places[Path(os.fspath(p))] for p in pair] for pair in trials])
    scores = torch.cat(
        [(voices[a] * voices[b]).sum(dim=1) for a, b in (c.T for c in torch.split(pairs, _CHUNK))]
    ).float()
    require_finite_values({"scores": scores}, of="the list of trials")
    require_finite(threshold=threshold)
    return scores, scores > threshold


def _embed(verification: SpeakerRecognition, path: Path) -> Tensor:
    wav = verification.load_audio(str(path))[None]
    guarded = isinstance(verification, GuardedSpeakerRecognition)
    encode = verification.encode_unjudged if guarded else verification.encode_batch
    embeddings: Tensor = encode(wav).flatten()
    return embeddings
