"""Load sets of labelled images from an .npz file, from scikit-learn or with torchvision.

Each set has three parts: ``train`` for fitting models and purifiers, ``calibrate`` for detectors
and thresholds, and ``test``, on which nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from nip_audio.errors import InputError, MissingDependencyError

__all__ = ["ImageSet", "Role", "digits", "from_npz", "from_torchvision", "load_images"]

Role = Literal["train", "calibrate", "test"]

_TORCHVISION = ("MNIST", "CIFAR10", "CIFAR100", "GTSRB", "Flowers102")
_GROUPS = "track_test"


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels.

    Attributes:
        pixels: (n, C, H, W) float32 in [0, 1].
        labels: (n,) int64 indices into ``classes``.
        classes: Names of the classes.
        name: Name of the set and part, e.g. ``digits, test``.

    Raises:
        InputError: If the parts do not fit together.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.pixels.dim() != 4 or self.pixels.shape[1] not in (1, 3):
            raise InputError(
                f"pixels are {tuple(self.pixels.shape)}, expected (items, 1 or 3, rows, columns)"
            )
        if self.labels.shape != (len(self.pixels),) or len(self.pixels) == 0:
            raise InputError(
                f"got {len(self.pixels)} images and labels of shape {tuple(self.labels.shape)}, "
                "expected at least one image and one label per image"
            )
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes):
            raise InputError(
                f"labels range {int(self.labels.min())}–{int(self.labels.max())}, expected "
                f"0–{len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def rows(self, rows: Tensor) -> ImageSet:
        """Return the images selected by indices (m,) or by a mask (n,)."""
        return ImageSet(self.pixels[rows], self.labels[rows], self.classes, self.name)

    def resized(self, height: int, width: int) -> ImageSet:
        """Return the set resized (bicubic, antialiased), with pixels rounded to 8 bits."""
        if self.pixels.shape[2:] == (height, width):
            return self
        pixels = interpolate(
            self.pixels, size=(height, width), mode="bicubic", antialias=True, align_corners=False
        )
        pixels = (pixels.clamp(0, 1) * 255).round() / 255
        return ImageSet(pixels, self.labels, self.classes, self.name)


def load_images(
    name: str, role: Role, *, folder: Path | None = None, seed: int = 0, download: bool = False
) -> ImageSet:
    """Load one part of a set by name.

    Args:
        name: ``digits`` is scikit-learn's set and needs no folder. Any other name is the file
            ``NAME.npz`` in ``folder`` or, if there is none, a torchvision data set stored there.
        role: Part of the set to load.
        folder: Folder that holds the data.
        seed: Seed of the split of a single test part into ``calibrate`` and ``test``.
        download: Let torchvision download a missing set.

    Raises:
        InputError: If there is no such set or part.
        MissingDependencyError: If torchvision is needed and not installed.

    Example:
        >>> len(load_images("digits", "test"))
        360
    """
    if role not in get_args(Role):
        raise InputError(f"role is {role!r}, expected one of {get_args(Role)}")
    if name == "digits":
        return digits(role, seed=seed)
    if folder is None:
        raise InputError(
            f"data set {name} needs a folder with {name}.npz; pass a folder, or use 'digits'"
        )
    path = folder / f"{name}.npz"
    if path.is_file():
        return from_npz(path, role, seed=seed)
    return from_torchvision(name, role, folder=folder, seed=seed, download=download)


def digits(role: Role, *, seed: int = 0) -> ImageSet:
    """Load one part of scikit-learn's handwritten digits, without network access.

    The 1,797 images of 8 × 8 pixels are enlarged to 28 × 28.

    Args:
        role: Part of the set to load.
        seed: Seed of the split into parts.
    """
    bunch = load_digits()
    values = torch.from_numpy(bunch.images.astype(np.float32) / 16)[:, None]
    pixels = interpolate(values, size=(28, 28), mode="bilinear", align_corners=False)
    pixels = (pixels * 255).round() / 255
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    cut = {"train": (0, 1077), "calibrate": (1077, 1437), "test": (1437, 1797)}[role]
    rows = order[slice(*cut)]
    names = tuple(str(n) for n in bunch.target_names)
    return ImageSet(pixels[rows], labels[rows], names, f"digits, {role}")


def from_npz(path: Path, role: Role, *, seed: int = 0) -> ImageSet:
    """Load one part of an .npz file with ``x_train, y_train, x_test, y_test, class_names``.

    Images are uint8, (n, H, W) or (n, H, W, 3). Half of the file's test images become the
    ``calibrate`` part. If the file has ``track_test``, the number of each test image's series
    within its class, series are never split between the two parts.

    Args:
        path: The .npz file.
        role: Part of the set to load.
        seed: Seed of the split into ``calibrate`` and ``test``.

    Raises:
        InputError: If the file cannot be read, or has other content.
    """
    part = "train" if role == "train" else "test"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
            classes = tuple(str(name) for name in arrays["class_names"])
            series = arrays[_GROUPS] if part == "test" and _GROUPS in arrays else None
    except (OSError, ValueError, KeyError) as err:
        raise InputError(
            f"{path} cannot be read ({err}), expected an .npz file with x_train, y_train, x_test, "
            "y_test and class_names"
        ) from err
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise InputError(
            f"images in {path} are {x.dtype} {x.shape}, expected uint8 (n, H, W) or (n, H, W, 3)"
        )
    found = _of(x, y, classes, f"{path.stem}, {role}")
    if part == "train":
        return found
    return found.rows(_half(y, series, role, seed))


def from_torchvision(
    name: str, role: Role, *, folder: Path, seed: int = 0, download: bool = False
) -> ImageSet:
    """Load one part of a torchvision data set.

    Args:
        name: Name of the data set, e.g. ``CIFAR10``.
        role: Part of the set to load.
        folder: Folder that holds the data.
        seed: Seed of the split of the test part into ``calibrate`` and ``test``.
        download: Download a missing set.

    Raises:
        InputError: If the name is unknown, or the data is not in the folder.
        MissingDependencyError: If torchvision is not installed.
    """
    if name not in _TORCHVISION:
        raise InputError(
            f"there is no {name}.npz in {folder} and no data set {name!r}; expected digits or "
            "one of "
            f"{', '.join(_TORCHVISION)}"
        )
    try:
        from torchvision import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as err:
        raise MissingDependencyError(f"data set {name} needs torchvision", extra="images") from err
    train = role == "train"
    by_split = {"split": "train" if train else "test"}
    which = by_split if name in ("GTSRB", "Flowers102") else {"train": train}
    try:
        read = getattr(datasets, name)(str(folder), download=download, **which)
    except RuntimeError as err:
        raise InputError(
            f"data set {name} is not in {folder} ({err}); pass `download=True`"
        ) from err
    images = [np.asarray(image) for image, _ in read]
    labels = np.array([label for _, label in read])
    if len({p.shape for p in images}) > 1:
        side = 48  # the images of GTSRB and Flowers102 differ in size
        images = [np.asarray(image.resize((side, side))) for image, _ in read]
    names = tuple(map(str, getattr(read, "classes", range(int(labels.max()) + 1))))
    found = _of(np.stack(images), labels, names, f"{name}, {role}")
    return found if train else found.rows(_half(labels, None, role, seed))


def _of(
    x: NDArray[np.uint8], y: NDArray[np.integer], classes: tuple[str, ...], name: str
) -> ImageSet:
    values = torch.from_numpy(x).float() / 255
    pixels = values[:, None] if values.dim() == 3 else values.permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.from_numpy(y.astype(np.int64)), classes, name)


def _half(
    labels: NDArray[np.integer], series: NDArray[np.integer] | None, role: Role, seed: int
) -> Tensor:
    """Return the indices of one half of the test images; series are not split."""
    generator = torch.Generator().manual_seed(seed)
    if series is None:
        order = torch.randperm(len(labels), generator=generator)
        half = len(labels) // 2
        return order[:half] if role == "calibrate" else order[half:]
    keys = labels.astype(np.int64) * 10_000 + series.astype(np.int64)
    unique = np.unique(keys)
    dealt = torch.randperm(len(unique), generator=generator).numpy()
    first = unique[dealt[: len(unique) // 2]]
    mine = np.isin(keys, first) == (role == "calibrate")
    rows = torch.from_numpy(np.flatnonzero(mine))
    return rows[torch.randperm(len(rows), generator=generator)]
