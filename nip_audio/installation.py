"""Check an installation: whether packages can be imported, and models match their cards.

This module imports no package that can be broken. Packages are imported in a separate process, so
that a binary that cannot be loaded, or that kills its process, is reported like any other problem.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from nip_audio.errors import NipAudioError
from nip_audio.models.cards import pretrained_directories, read_card

__all__ = [
    "Extra",
    "Installation",
    "InstalledModel",
    "Package",
    "examine_installation",
    "import_remedy",
]

# distribution -> module; a package stands after those that it needs
_REQUIRED = {
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "torch": "torch",
    "torchaudio": "torchaudio",
    "safetensors": "safetensors",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "librosa": "librosa",
    "hyperpyyaml": "hyperpyyaml",
    "speechbrain": "speechbrain",
    "matplotlib": "matplotlib",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "rich": "rich",
    "typer": "typer",
}
_EXTRAS = {
    "attacks": "attack, evaluate and fit-purifier with attacks of Foolbox and ART",
    "gate": "screen --gate: seconds of speech",
    "quality": "evaluate: intelligibility (STOI)",
    "images": "data sets and large models of images from torchvision",
    "parquet": "report: results.parquet",
    "remote": "manifests that name files on a URL",
    "scale": "screen --engine ray",
    "serve": "serve",
}
_PAIR = (
    "reinstall torch and torchaudio as a pair, from the same index (pip install 'torch>=2.13' "
    "'torchaudio>=2.11.1'); a CPU-only torch needs the CPU-only torchaudio"
)
_REMEDIES = {
    "torch": _PAIR,
    "torchaudio": _PAIR,
    "torchvision": _PAIR,
    "soundfile": "pip install --force-reinstall soundfile, or install the package libsndfile",
}
_IMPORT = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for module in sys.argv[1:]:
    print(json.dumps([module, "begun"]), flush=True)
    try:
        importlib.import_module(module)
    except BaseException as err:
        print(json.dumps([module, f"{type(err).__name__}: {err}"]), flush=True)
    else:
        print(json.dumps([module, "ok"]), flush=True)
"""
_DEVICES = """
import json, warnings
warnings.simplefilter("ignore")
import torch
cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
cuda = cuda if torch.cuda.is_available() else []
print(json.dumps({
    "cpu_threads": torch.get_num_threads(), "cuda": cuda, "built_for_cuda": torch.version.cuda,
    "mps": torch.backends.mps.is_available(),
}))
"""
_SECONDS = 300
_REQUIREMENT = re.compile(r"^([\w.-]+).*extra == ['\"]([\w-]+)['\"]")


@dataclass(frozen=True)
class Package:
    """One required package.

    Attributes:
        name: Name of the distribution.
        version: Version installed; None if the package is not installed.
        problem: What went wrong when the package was imported; None if nothing did.
        remedy: What to do about the problem; None if there is none.
    """

    name: str
    version: str | None
    problem: str | None
    remedy: str | None


@dataclass(frozen=True)
class Extra:
    """One optional part of the toolkit.

    Attributes:
        name: Name of the extra, as in ``pip install '.[scale]'``.
        needed_for: Commands or options that need it.
        missing: Distributions of the extra that are not installed.
    """

    name: str
    needed_for: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class InstalledModel:
    """One model that is available by name.

    Attributes:
        name: Name of the model.
        directory: Folder of the model.
        model_id: SHA-256 over the files of the model; None if the card cannot be read.
        problem: Why the model cannot be used, e.g. because a file differs from its card; None if it
            can be used.
    """

    name: str
    directory: str
    model_id: str | None
    problem: str | None


@dataclass(frozen=True)
class Installation:
    """Result of checking an installation.

    Attributes:
        nip_audio: Version of the toolkit.
        python: Version of Python.
        system: Operating system and processor.
        packages: Required packages.
        extras: Optional parts, and what they miss.
        devices: Devices that torch can use; None if torch cannot be imported.
        models: Models that are available by name.
    """

    nip_audio: str
    python: str
    system: str
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    devices: Mapping[str, Any] | None
    models: tuple[InstalledModel, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """One text for each problem: what is broken, why, and what to do."""
        broken = [f"{p.name}: {p.problem}; {p.remedy}" for p in self.packages if p.problem]
        return (*broken, *(f"model {m.name}: {m.problem}" for m in self.models if m.problem))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"problems": list(self.problems)}


def examine_installation() -> Installation:
    """Check the running installation; takes as long as importing all required packages."""
    outcomes = _import_all(_REQUIRED.values())
    packages = tuple(_package(name, outcomes[module]) for name, module in _REQUIRED.items())
    whole = all(package.problem is None for package in packages if package.name == "torch")
    return Installation(
        nip_audio=version("nip-audio"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        extras=_extras(),
        devices=_devices() if whole else None,
        models=_models(),
    )


def import_remedy(module: str) -> str:
    """Return the remedy for a module that cannot be imported.

    Args:
        module: Name of the module or of one of its parts, e.g. ``"torchaudio._extension"``.
    """
    top = module.partition(".")[0]
    name = next((name for name, known in _REQUIRED.items() if known == top), top)
    return _REMEDIES.get(name, f"pip install --force-reinstall {name}")


def _package(name: str, problem: str | None) -> Package:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Package(name, None, "not installed", f"pip install {name}")
    remedy = None if problem is None else import_remedy(_REQUIRED[name])
    return Package(name, found, problem, remedy)


def _import_all(modules: Iterable[str]) -> dict[str, str | None]:
    """Import modules in another process; one that kills it is skipped in the next try."""
    waiting = list(modules)
    outcomes: dict[str, str | None] = {}
    while waiting:
        code, output = _run(_IMPORT, *waiting)
        said = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
        for module, text in said.items():
            killed = f"importing it ended the process ({_ending(code)})"
            outcomes[module] = None if text == "ok" else killed if text == "begun" else text
        if not said:
            return outcomes | dict.fromkeys(waiting, f"Python cannot start ({_ending(code)})")
        waiting = [module for module in waiting if module not in outcomes]
    return outcomes


def _run(program: str, *arguments: str) -> tuple[int | None, str]:
    """Run a program in a new interpreter; the exit code is None if it took too long."""
    # -P, because the working directory may hold a folder called torch
    command = [sys.executable, "-P", "-c", program, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as err:
        output = err.stdout or b""
        return None, output.decode() if isinstance(output, bytes) else output
    return done.returncode, done.stdout


def _ending(code: int | None) -> str:
    if code is None:
        return f"no answer within {_SECONDS} s"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _devices() -> dict[str, Any]:
    code, output = _run(_DEVICES)
    if code != 0:
        return {"problem": f"torch could not list its devices ({_ending(code)})"}
    devices: dict[str, Any] = json.loads(output.splitlines()[-1])
    return devices | {"cores": os.cpu_count()}


def _extras() -> tuple[Extra, ...]:
    offered = metadata("nip-audio").get_all("Provides-Extra") or []
    needs: dict[str, list[str]] = {name: [] for name in offered}
    for line in requires("nip-audio") or ():
        match = _REQUIREMENT.match(line)
        if match:
            needs[match[2]].append(match[1])
    return tuple(
        Extra(name, words, tuple(one for one in needs.get(name, ()) if not _is_installed(one)))
        for name, words in _EXTRAS.items()
    )


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _models() -> tuple[InstalledModel, ...]:
    return tuple(_model(name, folder) for name, folder in pretrained_directories().items())


def _model(name: str, directory: Path) -> InstalledModel:
    try:
        card = read_card(directory)
        card.verify()
    except NipAudioError as err:
        return InstalledModel(name, str(directory), None, str(err))
    return InstalledModel(name, str(directory), card.model_id, None)
