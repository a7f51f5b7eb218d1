"""Labelled pictures in memory: from an .npz file, from scikit-learn, or by torchvision.

Every set has the three roles: ``train`` fits models and purifiers, ``calibrate`` fits detectors and
thresholds, ``test`` fits nothing.
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
    """Pictures and what they show.

    Attributes:
        pixels: (n, C, H, W) float32 in [0, 1].
        labels: (n,) int64 indices into ``classes``.
        classes: Names.
        name: Of the set and role.

    Raises:
        InputError: If the parts do not fit together.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        """Check."""
        if self.pixels.dim() != 4 or self.pixels.shape[1] not in (1, 3):
            raise InputError(
                f"pixels are {tuple(self.pixels.shape)}, expected (items, 1 or 3, rows, columns)"
            )
        if self.labels.shape != (len(self.pixels),) or len(self.pixels) == 0:
            raise InputError(
                f"{len(self.pixels)} pictures and labels {tuple(self.labels.shape)}, expected as "
                "many, and some"
            )
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes):
            raise InputError(
                f"labels range {int(self.labels.min())}–{int(self.labels.max())}, expected "
                f"0–{len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pixels)

    def rows(self, rows: Tensor) -> ImageSet:
        """Pick pictures by index or mask."""
        return ImageSet(self.pixels[rows], self.labels[rows], self.classes, self.name)

    def resized(self, height: int, width: int) -> ImageSet:
        """Return the set at another size (bicubic, antialiased), in the levels of 8 bits."""
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
    """Return a set by name.

    Args:
        name: ``digits`` is scikit-learn's and needs no folder. Otherwise ``NAME.npz`` below
            ``folder``, or, where there is none, one of torchvision's data sets in it.
        role: Which part.
        folder: Where data lies.
        seed: Of what is dealt to ``calibrate`` and ``test``, where the set has one test part.
        download: Let torchvision download what is missing.

    Raises:
        InputError: If there is no such set or role.
        MissingDependencyError: If torchvision is needed and missing.

    Example:
        >>> len(load_images("digits", "test"))
        360
    """
    if role not in get_args(Role):
        raise InputError(f"role is {role!r}, expected one of {get_args(Role)}")
    if name == "digits":
        return digits(role, seed=seed)
    if folder is None:
        raise InputError(f"{name} needs a folder with {name}.npz; pass one, or use 'digits'")
    path = folder / f"{name}.npz"
    if path.is_file():
        return from_npz(path, role, seed=seed)
    return from_torchvision(name, role, folder=folder, seed=seed, download=download)


def digits(role: Role, *, seed: int = 0) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits of 8 × 8, enlarged to 28 × 28; no network needed."""
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
    """Read an .npz with ``x_train, y_train, x_test, y_test, class_names``.

    Pictures are uint8, (n, H, W) or (n, H, W, 3). Half of the test part is dealt to ``calibrate``;
    where the file has ``track_test``, which numbers the series a picture is from within its class,
    whole series are dealt.

    Raises:
        InputError: If the file cannot be read, or is of another make.
    """
    part = "train" if role == "train" else "test"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
            classes = tuple(str(name) for name in arrays["class_names"])
            series = arrays[_GROUPS] if part == "test" and _GROUPS in arrays else None
    except (OSError, ValueError, KeyError) as err:
        raise InputError(
            f"{path} cannot be read ({err}), expected x_train, y_train, x_test, y_test and "
            "class_names"
        ) from err
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise InputError(
            f"{path} has {x.dtype} {x.shape}, expected uint8 (n, H, W) or (n, H, W, 3)"
        )
    found = _of(x, y, classes, f"{path.stem}, {role}")
    if part == "train":
        return found
    return found.rows(_half(y, series, role, seed))


def from_torchvision(
    name: str, role: Role, *, folder: Path, seed: int = 0, download: bool = False
) -> ImageSet:
    """Read one of torchvision's data sets, downloading it only if asked to.

    Raises:
        InputError: If the name is unknown, or the data is not there.
        MissingDependencyError: Without torchvision.
    """
    if name not in _TORCHVISION:
        raise InputError(
            f"no {name}.npz in {folder}, and no data set of that name; expected digits or one of "
            f"{', '.join(_TORCHVISION)}"
        )
    try:
        from torchvision import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as err:
        raise MissingDependencyError(
            f"{name} is read by torchvision; install it with: pip install 'nip-audio[images]'"
        ) from err
    train = role == "train"
    by_split = {"split": "train" if train else "test"}
    which = by_split if name in ("GTSRB", "Flowers102") else {"train": train}
    try:
        read = getattr(datasets, name)(str(folder), download=download, **which)
    except RuntimeError as err:
        raise InputError(f"{name} is not in {folder} ({err}); pass --download") from err
    pictures = [np.asarray(picture) for picture, _ in read]
    labels = np.array([label for _, label in read])
    if len({p.shape for p in pictures}) > 1:
        side = 48  # GTSRB's and the flowers' differ in size
        pictures = [np.asarray(picture.resize((side, side))) for picture, _ in read]
    names = tuple(map(str, getattr(read, "classes", range(int(labels.max()) + 1))))
    found = _of(np.stack(pictures), labels, names, f"{name}, {role}")
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
    """Rows of the half of a test part that a role has; whole series where there are any."""
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
