"""Settings with which a purifier is fitted, one class for each method.

``nip-audio fit-purifier --set`` takes the fields of these classes, and lists their docstrings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number, check_whole
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_pool import PoolSettings
from nip_audio.purifiers.training_attacks import FAMILIES

__all__ = [
    "FIT_SETTINGS",
    "FitSettings",
    "GuidedFit",
    "ClassNeuronsFit",
    "PoolFit",
    "PatchDictionaryFit",
]


@dataclass(frozen=True)
class FitSettings:
    """Settings that all methods have.

    Attributes:
        batch_size: Number of crops or images per batch.
        crop_s: Length of the crops of recordings, in seconds; none means 2 s. Images have no crops.

    Raises:
        InputError: If a setting is out of range.
    """

    batch_size: int = 32
    crop_s: float | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_whole("batch_size", self.batch_size, 1, 65_536, usual=32)
        if self.crop_s is not None:
            check_number("crop_s", self.crop_s, 0.05, 3600.0, usual=2.0)


@dataclass(frozen=True)
class GuidedFit(FitSettings):
    """Settings of a guided purifier; ``training`` makes those of the training from them.

    Attributes:
        steps: Number of training steps.
        adaptive: Whether to train against attackers who know the purifier, too: three quarters of
            the attacked steps then go through it, with gradient attacks only.
        snr_db: Signal-to-noise ratio in dB of white noise that is added to the waveform before the
            purifier; none adds no noise. 10 to 20 dB are most effective against attackers who know
            the purifier. For recordings only.
        noise: RMS of white noise that is added to the model's input before the purifier, in its
            units (0 to 1).
        eps: Weakest and strongest attack on the model's input to train against, in its units (0 to
            1), such as 0.01,0.08; none means 2/255 and 20/255, for images 1/255 and 12/255.
        input_weight: Weight of small changes in the loss; none means 20, for images 10. Lower it
            against stronger attacks.
        leave_out: Families of attacks to leave out of the training, to test the purifier on unknown
            attacks: gradient, minimum, sparse, score, decision or universal.

    Raises:
        InputError: If a setting is out of range, or no family of attacks is left.
    """

    steps: int = GuidedSettings.steps
    adaptive: bool = False
    snr_db: float | None = None
    noise: float = 0.0
    eps: tuple[float, float] | None = None
    input_weight: float | None = None
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        check_whole("batch_size", self.batch_size, 2, 65_536, usual=32)
        if self.snr_db is not None:
            check_number("snr_db", self.snr_db, -60.0, 120.0, usual=15.0)
        if self.input_weight is not None:
            check_number("input_weight", self.input_weight, 0.0, 1e6, usual=20.0)
        self.training(GuidedSettings(), seed=0)

    def training(self, default: GuidedSettings, *, seed: int) -> GuidedSettings:
        """Return the settings of the training.

        Args:
            default: Settings of the training that this class leaves open; they depend on the
                modality of the model (``guided_settings``).
            seed: Seed of all random draws.

        Raises:
            InputError: If a family of attacks is unknown, or none is left.
        """
        chosen: dict[str, Any] = {"steps": self.steps, "noise": self.noise, "seed": seed}
        if self.snr_db is not None:
            chosen |= {"raw_share": 1.0, "snr_db": self.snr_db}
        if self.eps is not None:
            chosen["eps_input"] = self.eps
        if self.input_weight is not None:
            chosen["input_weight"] = self.input_weight
        if self.adaptive:
            chosen |= _ADAPTIVE
        return self._without(replace(default, **chosen))

    def _without(self, training: GuidedSettings) -> GuidedSettings:
        for name in self.leave_out:
            if name not in FAMILIES:
                raise InputError(
                    f"leave_out is {name!r}, expected families of attacks; "
                    f"{suggest_names(name, FAMILIES)}"
                )
        families = tuple(name for name in training.families if name not in self.leave_out)
        if not families:
            raise InputError(
                f"leave_out is {','.join(self.leave_out)}, which leaves no family of attacks to "
                f"train against ({','.join(dict.fromkeys(training.families))}); leave fewer out"
            )
        return replace(training, families=families)


# A quarter of the steps uses attackers who do not know the purifier, so that it stays good against
# them. Attacks stronger than any defence withstands teach it nothing, and only gradient attacks can
# adapt to the purifier.
_ADAPTIVE: Mapping[str, Any] = {
    "adaptive_share": 0.75,
    "families": ("gradient",),
    "eps_raw": (5e-4, 4e-3),
}


@dataclass(frozen=True)
class PoolFit(PoolSettings, FitSettings):
    """Settings of the published NIP; a template of clean items of many speakers needs a quorum.

    Attributes:
        candidates: Number of inverse perturbations in the pool.

    Raises:
        InputError: If a setting is out of range.
    """

    quorum: float = 0.9
    candidates: int = 256

    def __post_init__(self) -> None:
        """Validate the settings."""
        FitSettings.__post_init__(self)
        PoolSettings.__post_init__(self)
        check_whole("candidates", self.candidates, 1, 1_000_000, usual=256)

    @property
    def pool(self) -> PoolSettings:
        """Settings of the pool itself."""
        return PoolSettings(self.front, self.tail, self.sign, self.influence, self.quorum)


@dataclass(frozen=True)
class ClassNeuronsFit(FitSettings):
    """Settings of ``ClassNeurons``.

    Attributes:
        share: Share of the neurons of a layer that each class keeps.
        items: Number of crops or images to draw; a class that is never predicted keeps all neurons.

    Raises:
        InputError: If a setting is out of range.
    """

    share: float = 0.9
    items: int = 2048

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        check_number("share", self.share, 0.01, 1.0, usual=0.9)
        check_whole("items", self.items, 1, 1_000_000, usual=2048)


@dataclass(frozen=True)
class PatchDictionaryFit(FitSettings):
    """Settings of ``PatchDictionary``.

    Attributes:
        items: Number of crops or images from which patches are drawn.
        patch: Number of rows and of columns of a patch.
        atoms: Number of atoms in the dictionary.
        nonzero: Largest number of atoms that a patch is rebuilt from.
        patches_per_item: Number of patches drawn from each item.

    Raises:
        InputError: If a setting is out of range.
    """

    items: int = 256
    patch: int = 8
    atoms: int = 128
    nonzero: int = 6
    patches_per_item: int = 200

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        check_whole("items", self.items, 1, 1_000_000, usual=256)
        check_whole("patch", self.patch, 2, 32, usual=8)
        check_whole("atoms", self.atoms, 2, 4096, usual=128)
        check_whole("nonzero", self.nonzero, 1, min(self.atoms, self.patch**2), usual=6)
        check_whole("patches_per_item", self.patches_per_item, 1, 100_000, usual=200)


FIT_SETTINGS: Mapping[str, type[FitSettings]] = {
    "guided": GuidedFit,
    "pool": PoolFit,
    "class-neurons": ClassNeuronsFit,
    "patch-dictionary": PatchDictionaryFit,
}
"""Classes of settings by the name of the method."""
