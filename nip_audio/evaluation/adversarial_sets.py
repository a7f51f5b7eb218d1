"""Make sets of adversarial examples once, write them to files, and judge them as read back.

Each set has a folder named after everything it depends on. Waveforms are written as 16-bit FLAC, so
that the files judged are files an attacker could send; spectrograms are float32 safetensors.
``manifest.jsonl`` holds one line per example and grows batch by batch, so that an interrupted run
continues where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification, Objective
from nip_audio.attacks.registry import Level
from nip_audio.audio.adapter import read_back
from nip_audio.audio.io import ReadSettings, write_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.seeds import generator_of
from nip_audio.core.state import complete_lines, file_sha256, write_atomic
from nip_audio.errors import HashMismatchError, OutputError
from nip_audio.evaluation.guard import AttackedDetector
from nip_audio.evaluation.systems import EvaluatedSystem, Item, batch_of, in_batches
from nip_audio.purifiers.base import Defence
from nip_audio.purifiers.defending import defend

__all__ = [
    "AdversarialSet",
    "Example",
    "Recipe",
    "finished_set",
    "fooling",
    "made_here",
    "make_set",
]

FORMAT_VERSION = 1
_DESCRIPTION, _MANIFEST = "set.json", "manifest.jsonl"


@dataclass(frozen=True)
class Recipe:
    """Everything a set depends on.

    Attributes:
        system: System under attack, whose clips are changed.
        source: System that the attacker knows: the same one, or another one for a transfer attack.
        purifier: Defence that the attacker knows, if any.
        guard: Detector that the attacker knows, if any.
        attack: Attack with its settings.
        level: What the attack changes: the waveform (``raw``) or the model's input (``input``).
        items: Clips to attack; the system classifies all of them correctly.
        seed: Seed of the run.
        batch: Clips per batch; part of the recipe, because a batch shares its random numbers.
    """

    system: EvaluatedSystem
    source: EvaluatedSystem
    purifier: Defence | None
    guard: AttackedDetector | None
    attack: Attack
    level: Level
    items: Sequence[Item]
    seed: int
    batch: int

    def describe(self) -> dict[str, Any]:
        """Return the recipe as JSON values: equal recipes make equal sets."""
        return {
            "format_version": FORMAT_VERSION,
            "system": self.system.identity,
            "source": self.source.identity,
            "defence": None if self.purifier is None else self.purifier.settings(),
            "detector": None if self.guard is None else self.guard.settings(),
            "attack": self.attack.settings(),
            "level": self.level,
            "items": [item.id for item in self.items],
            "contents": sorted({item.content_sha256 for item in self.items}),
            "seed": self.seed,
            "batch": self.batch,
        }

    def objective(self, part: Sequence[Item], number: int) -> Objective:
        """Return the objective of an untargeted attack on one batch: any other prediction."""
        model = self.source.model
        # these are the attacker's draws, not the defender's; each batch has its own, so that an
        # interrupted set continues as if it had not been interrupted
        generator = generator_of(self.seed, self.key, number, "attacker")
        if self.purifier is not None:
            model = defend(model, self.purifier, generator=generator)
        if self.level == "input":
            model = model.without_front_end()
        labels = torch.tensor([model.labels.index(item.speaker) for item in part])
        objective = Identification(model, labels)
        if self.guard is None:
            return objective
        return self.guard.guard(objective, generator=generator)

    @property
    def key(self) -> str:
        """SHA-256 of the recipe's description."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Example:
    """One adversarial example: one line of the manifest.

    Attributes:
        id: Name of the clip.
        speaker: True speaker of the clip.
        content_sha256: Hash of the recording that the clip was cut from.
        file: Name of the example's file in the set's folder.
        sha256: Hash of that file.
        fooled_unwritten: Whether the attacked model was fooled before the example was written.
        fooled: Whether the attacked model is fooled by the file as read back.
        linf: Largest change of a value, in the file as read back.
        l2: Euclidean norm of the change, in the file as read back.
        l0: Share of the values that the attack changed, before rounding.
        snr_db: Ratio of signal to change in dB.
        queries: Inputs scored per example, averaged over its batch.
        gradients: Inputs differentiated per example, averaged over its batch.
        seconds: Seconds per example, averaged over its batch.
    """

    id: str
    speaker: str
    content_sha256: str
    file: str
    sha256: str
    fooled_unwritten: bool
    fooled: bool
    linf: float
    l2: float
    l0: float
    snr_db: float
    queries: float
    gradients: float
    seconds: float


@dataclass(frozen=True)
class AdversarialSet:
    """A finished set.

    Attributes:
        folder: Folder of the set.
        level: What its files hold: waveforms (``raw``) or model inputs (``input``).
        examples: Examples in the order of the recipe's items.
        sample_rate_hz: Sample rate of its waveforms.
    """

    folder: Path
    level: Level
    examples: tuple[Example, ...]
    sample_rate_hz: int

    def values(self, chosen: Sequence[int]) -> Batch:
        """Read some examples back.

        Raises:
            HashMismatchError: If a file differs from its hash in the manifest.
        """
        tensors = [self._read(self.examples[i]) for i in chosen]
        if len({t.shape[-1] for t in tensors}) == 1:
            return Batch(torch.stack(tensors))
        return Batch.collate(tensors)

    def batches(self, size: int = 32) -> Iterator[Batch]:
        """Read all examples back, in order."""
        for start in range(0, len(self.examples), size):
            yield self.values(range(start, min(start + size, len(self.examples))))

    def _read(self, example: Example) -> Tensor:
        path = self.folder / example.file
        if not path.is_file() or file_sha256(path) != example.sha256:
            raise HashMismatchError(
                f"{path} has changed since it was written; delete {self.folder} to make the set "
                "again"
            )
        return _read(path, self.level, self.sample_rate_hz)


def finished_set(recipe: Recipe, folder: Path) -> AdversarialSet | None:
    """Return a set if it is complete, otherwise None; no example is made."""
    done = _read_manifest(folder / _MANIFEST, repair=False)
    if not all(item.id in done for item in recipe.items):
        return None
    rate = recipe.system.pretrained.card.sample_rate_hz
    return AdversarialSet(folder, recipe.level, tuple(done[i.id] for i in recipe.items), rate)


def make_set(
    recipe: Recipe, folder: Path, *, progress: Callable[[int], None] = lambda count: None
) -> AdversarialSet | None:
    """Make the missing examples of a set; several processes may work on one set together.

    Args:
        recipe: Description of the set.
        folder: Folder of this set alone.
        progress: Called with the number of examples in each batch that is done.

    Returns:
        The set, or None if another process is still making some of it.

    Raises:
        AttackError: If the attack cannot apply.
        OutputError: If the folder holds another set, is damaged, or cannot lock files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / _MANIFEST
    with _Locks.of(folder / ".lock") as locks:
        with locks.manifest():
            _claim(folder, recipe)
        for number, part in enumerate(in_batches(recipe.items, recipe.batch)):
            with locks.part(number) as ours:
                if not ours:
                    continue
                with locks.manifest():
                    done = _read_manifest(manifest, repair=True)
                if not all(item.id in done for item in part):
                    made = _attack(recipe, number, part, folder)
                    with locks.manifest():
                        _append(manifest, made)
            progress(len(part))
    return finished_set(recipe, folder)


def made_here(recipe: Recipe, folder: Path, *, name: str) -> AdversarialSet:
    """Make a set in a folder of its own below ``folder``.

    Raises:
        OutputError: If another process is making it.
    """
    place = folder / f"{name}-{recipe.key[:12]}"
    made = make_set(recipe, place)
    if made is None:
        raise OutputError(f"another process is making {place}; wait for it, then run again")
    return made


def fooling(examples: AdversarialSet, most: int) -> tuple[list[Tensor], tuple[str, ...]]:
    """Read back the first successful examples, each (*S), and return them with their speakers."""
    rows = [i for i, example in enumerate(examples.examples) if example.fooled][:most]
    clips = [examples.values([i]).x[0] for i in rows]
    return clips, tuple(examples.examples[i].speaker for i in rows)


def _attack(recipe: Recipe, number: int, items: Sequence[Item], folder: Path) -> list[Example]:
    system, level = recipe.system, recipe.level
    raw = batch_of(items)
    objective = recipe.objective(items, number)
    with torch.no_grad():
        clean = raw if level == "raw" else system.model.to_input(raw)
    generator = generator_of(recipe.seed, recipe.key, number)
    result = recipe.attack(objective, clean, generator=generator)
    rate = system.pretrained.card.sample_rate_hz
    paths = []
    for row, item in enumerate(items):
        path = folder / f"{item.id}{'.flac' if level == 'raw' else '.safetensors'}"
        _write(path, result.batch.item(row).x[0], level, rate)
        paths.append(path)
    tensors = [_read(path, level, rate) for path in paths]
    written = clean.with_x(
        torch.stack(tensors) if clean.lengths is None else Batch.collate(tensors).x
    )
    fooled = objective.succeeded(written)
    delta = (written.masked() - clean.masked()).flatten(1)
    norm, l2 = clean.masked().flatten(1).norm(dim=1), delta.norm(dim=1)
    snr_db = 20 * torch.log10(norm / l2.clamp_min(1e-12))
    valid = clean.with_x(torch.ones_like(clean.x)).masked().flatten(1).sum(dim=1)
    shares = result.l0 / valid
    return [
        Example(
            id=item.id,
            speaker=item.speaker,
            content_sha256=item.content_sha256,
            file=path.name,
            sha256=file_sha256(path),
            fooled_unwritten=bool(result.succeeded[row]),
            fooled=bool(fooled[row]),
            linf=float(delta[row].abs().max()),
            l2=float(l2[row]),
            l0=float(shares[row]),
            snr_db=min(float(snr_db[row]), 200.0),
            queries=result.queries,
            gradients=result.gradients,
            seconds=result.seconds / len(items),
        )
        for row, (item, path) in enumerate(zip(items, paths, strict=True))
    ]


def _write(path: Path, x: Tensor, level: Level, rate: int) -> None:
    if level == "raw":
        write_audio(path, x, rate, force=True)
    else:
        write_atomic(path, save({"x": x.contiguous()}), force=True)


def _read(path: Path, level: Level, rate: int) -> Tensor:
    if level == "input":
        return load(path.read_bytes())["x"]
    return read_back(path, ReadSettings(rate)).samples


def _claim(folder: Path, recipe: Recipe) -> None:
    path = folder / _DESCRIPTION
    text = json.dumps(recipe.describe(), indent=1, sort_keys=True) + "\n"
    if not path.exists():
        write_atomic(path, text.encode())
    elif path.read_text(encoding="utf-8") != text:
        raise OutputError(f"{folder} holds a set of another recipe; use another folder")


def _read_manifest(path: Path, *, repair: bool) -> dict[str, Example]:
    """Return the examples made so far, by clip."""
    try:
        examples = [Example(**json.loads(line)) for line in complete_lines(path, repair=repair)]
        return {example.id: example for example in examples}
    except (RecursionError, TypeError, ValueError) as err:
        raise OutputError(f"{path} is damaged ({err}); use another folder") from err


def _append(path: Path, examples: Sequence[Example]) -> None:
    with path.open("a", encoding="utf-8") as manifest:
        manifest.writelines(json.dumps(asdict(example)) + "\n" for example in examples)
        manifest.flush()
        os.fsync(manifest.fileno())


class _Locks:
    """Locks that let processes share a set: single bytes of one file, freed when a process ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    @contextmanager
    def of(cls, path: Path) -> Iterator[_Locks]:
        """Open the lock file; closing it releases every lock."""
        with path.open("ab") as file:
            yield cls(file)

    @contextmanager
    def manifest(self) -> Iterator[None]:
        """Wait for the lock of the manifest, and hold it.

        Raises:
            OutputError: If the file system has no locks.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        except OSError as err:
            raise OutputError(
                f"{self._file.name} is on a file system without locks ({err.strerror}); use "
                "another `out`"
            ) from err
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    @contextmanager
    def part(self, number: int) -> Iterator[bool]:
        """Lock a batch unless another process holds it; yield whether it was free."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + number)
        except (BlockingIOError, PermissionError):  # POSIX raises either when a lock is held
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 1 + number)
