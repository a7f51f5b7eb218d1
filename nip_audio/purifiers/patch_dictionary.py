"""Patch dictionary: rebuild an input from patterns learned on benign input."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError, StateError
from nip_audio.purifiers._checks import check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers._windows import mirrored
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["PatchDictionary"]

_KIND = "sparse coding purifier"
_FLAT = 1e-6  # a patch that deviates less from its mean is not used for learning
_RIDGE = 1e-9


class PatchDictionary(Purifier):
    """Rebuild every patch from a few atoms of a dictionary learned on benign input.

    It stands in for the sparse transformation layer (STL) of Sun et al. (CVPR 2019). Patches
    overlap by half and are averaged; each keeps its mean, and the rest is coded by orthogonal
    matching pursuit.

    Deviation: the authors' code reconstructs the whole image by convolutional sparse coding with
    filters learned on natural images. Its stratified form has one set of filters per cluster of
    images, and a denoising autoencoder finds the cluster. Here one dictionary of patches serves all
    input.

    Args:
        dictionary: (atoms, patch²) atoms of norm 1, as ``fit`` learns them.
        nonzero: Largest number of atoms that a patch is rebuilt from.
        bounds: Range the result is clipped to.
        seen: Content hashes (``Audio.content_sha256``) of everything it was fitted on.

    Raises:
        InputError: If the dictionary has another shape or is not finite, or ``nonzero`` is out of
            range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def __init__(
        self, *, dictionary: Tensor, nonzero: int = 6, seen: Iterable[str] = (), bounds: Bounds
    ) -> None:
        side = round(dictionary.shape[-1] ** 0.5) if dictionary.dim() == 2 else 0
        usable = side >= 2 and dictionary.shape[0] >= 1 and side**2 == dictionary.shape[1]
        if not usable or not bool(dictionary.isfinite().all()):
            raise InputError(
                f"dictionary has shape {tuple(dictionary.shape)}, expected finite values of shape "
                "(atoms, patch²) with patches of at least 2 × 2; learn one with fit"
            )
        check_whole("nonzero", nonzero, 1, min(len(dictionary), dictionary.shape[1]), usual=6)
        self.dictionary = dictionary.detach().cpu().float().clone()
        self.nonzero = nonzero
        self.patch = side
        self.bounds = Bounds.of(bounds)
        self._seen = frozenset(seen)

    @property
    def name(self) -> str:
        """Name with the number of atoms per patch and in all."""
        return f"patch dictionary {self.nonzero}/{len(self.dictionary)}"

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the dictionary was learned on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the sizes and a fingerprint of the dictionary."""
        return {
            "name": "patch-dictionary",
            "atoms": len(self.dictionary),
            "patch": self.patch,
            "nonzero": self.nonzero,
            "dictionary": hashlib.sha256(self.dictionary.numpy().tobytes()).hexdigest()[:16],
        }

    @classmethod
    def fit(
        cls,
        batches: Iterable[Batch],
        *,
        bounds: Bounds,
        generator: torch.Generator,
        seen: Iterable[str] = (),
        patch: int = 8,
        atoms: int = 128,
        nonzero: int = 6,
        patches_per_item: int = 200,
    ) -> Self:
        """Learn a dictionary from benign input.

        Args:
            batches: Benign model input, without labels.
            bounds: Range of the input.
            generator: Source of randomness for the choice of patches and the learning.
            seen: Content hashes (``Audio.content_sha256``) of the input.
            patch: Number of rows and of columns of a patch.
            atoms: Number of atoms in the dictionary.
            nonzero: Largest number of atoms that a patch is rebuilt from.
            patches_per_item: Number of patches drawn from each item, with replacement.

        Raises:
            InputError: If a setting is out of range, or fewer patches than atoms are not flat.
        """
        check_whole("patch", patch, 2, 32, usual=8)
        check_whole("atoms", atoms, 2, 4096, usual=128)
        check_whole("nonzero", nonzero, 1, min(atoms, patch**2), usual=6)
        check_whole("patches_per_item", patches_per_item, 1, 100000, usual=200)
        found = []
        for batch in batches:
            for index in range(len(batch)):
                columns = _patches(planes_of(batch.item(index).x), patch).flatten(0, 1)
                drawn = torch.randint(len(columns), (patches_per_item,), generator=generator)
                found.append(columns[drawn].detach().float().cpu())
        columns = torch.cat(found) if found else torch.zeros(0, patch**2)
        centred = columns - columns.mean(dim=1, keepdim=True)
        centred = centred[centred.norm(dim=1) > _FLAT]
        if len(centred) < atoms:
            raise InputError(
                f"got {len(centred)} patches that are not flat for {atoms} atoms, expected at "
                "least as many patches as atoms; pass more audio, or choose fewer atoms"
            )
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning

        learning = MiniBatchDictionaryLearning(
            n_components=atoms,
            alpha=1.0,
            fit_algorithm="cd",
            transform_algorithm="omp",
            transform_n_nonzero_coefs=nonzero,
            max_iter=20,
            random_state=int(torch.randint(2**31, (1,), generator=generator)),
        )
        # the penalty alpha is in units of the data, whose values are a few hundredths
        scale = float(centred.norm(dim=1).mean())
        with warnings.catch_warnings():
            # the dictionary improves even if the codes of one minibatch have not converged
            warnings.simplefilter("ignore", ConvergenceWarning)
            learning.fit((centred / scale).numpy().astype(np.float64))
        dictionary = torch.from_numpy(np.array(learning.components_, dtype=np.float32))
        dictionary = torch.nn.functional.normalize(dictionary, dim=1)
        return cls(dictionary=dictionary, nonzero=nonzero, seen=seen, bounds=bounds)

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Rebuild every channel from atoms of the dictionary."""
        with torch.no_grad():
            return each_item(batch, self._rebuilt)

    def _rebuilt(self, x: Tensor) -> Tensor:
        planes = planes_of(x)
        rows, columns = planes.shape[-2:]
        whole = _whole(planes, self.patch)
        found = _patches(planes, self.patch)
        mean = found.mean(dim=2, keepdim=True)
        centred = (found - mean).flatten(0, 1)
        coded = _pursued(centred, self.dictionary, self.nonzero).reshape(found.shape) + mean
        size, stride = whole.shape[2:], self.patch // 2
        total = fold(coded.transpose(1, 2), size, self.patch, stride=stride)
        count = fold(torch.ones_like(coded).transpose(1, 2), size, self.patch, stride=stride)
        rebuilt = (total / count)[..., :rows, :columns]
        return self.bounds.clip(rebuilt.reshape(x.shape))

    def save(self, path: Path, *, model_id: str, force: bool = False) -> None:
        """Write the dictionary atomically.

        Args:
            path: Path of the file.
            model_id: Identity of the model whose input it was fitted on.
            force: Whether an existing file is overwritten.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        meta = {
            "nonzero": self.nonzero,
            "bounds": [self.bounds.low, self.bounds.high],
            "seen": sorted(self.seen),
        }
        state = State(_KIND, model_id, {"dictionary": self.dictionary}, meta)
        save_state(path, state, force=force)

    @classmethod
    def load(cls, path: Path | str, *, model_id: str | None = None, bounds: Bounds) -> Self:
        """Load a dictionary that ``save`` wrote.

        Args:
            path: Path of the file.
            model_id: Identity of the model to defend; None skips the comparison.
            bounds: Range of that model's input.

        Raises:
            StateError: If the file holds no dictionary, or one of another model or range of input.
            HashMismatchError: If the file was modified after it was saved.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        if state.meta["bounds"] != [bounds.low, bounds.high]:
            raise StateError(
                f"{path} was fitted on input in {state.meta['bounds']}, this model's is in "
                f"[{bounds.low}, {bounds.high}]; fit a new one"
            )
        return cls(
            dictionary=state.tensors["dictionary"],
            nonzero=state.meta["nonzero"],
            seen=state.meta["seen"],
            bounds=bounds,
        )


def _whole(planes: Tensor, patch: int) -> Tensor:
    """Extend (N, 1, F, T) by mirroring to a whole number of half-overlapping patches."""
    stride = patch // 2
    for axis in (2, 3):
        size = planes.shape[axis]
        steps = -(-max(size - patch, 0) // stride)
        planes = mirrored(planes, 0, patch + steps * stride - size, axis=axis)
    return planes


def _patches(planes: Tensor, patch: int) -> Tensor:
    """Cut (N, 1, F, T) into half-overlapping patches: (N, P, patch²)."""
    return unfold(_whole(planes, patch), patch, stride=patch // 2).transpose(1, 2)


def _pursued(x: Tensor, dictionary: Tensor, nonzero: int) -> Tensor:
    """Rebuild all rows at once by orthogonal matching pursuit.

    scikit-learn's implementation handles the rows one by one, at some 0.4 ms each.

    Args:
        x: (P, D) rows.
        dictionary: (A, D) atoms of norm 1.
        nonzero: Number of atoms that a row is rebuilt from.

    Returns:
        (P, D) rebuilt rows.
    """
    target, atoms = x.double(), dictionary.to(x.device).double()
    chosen = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
    rebuilt = torch.zeros_like(target)
    for _ in range(nonzero):
        match = ((target - rebuilt) @ atoms.T).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, match.argmax(dim=1, keepdim=True)], dim=1)
        basis = atoms[chosen]
        gram = basis @ basis.transpose(1, 2)
        # the ridge keeps the system solvable if atoms are nearly equal
        gram = gram + _RIDGE * torch.eye(gram.shape[-1]).to(gram)
        weights = torch.linalg.solve(gram, basis @ target[:, :, None])
        rebuilt = (weights.transpose(1, 2) @ basis)[:, 0]
    return rebuilt.to(x)
