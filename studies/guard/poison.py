"""Clips of a corpus as files, and the same with a share of poison, as SpeechBrain manifests."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.objectives import Verification
from nip_audio.audio.io import to_16_bits, write_audio
from nip_audio.core.adapter import Batch
from nip_audio.evaluation.seeds import seed_of
from nip_audio.models.pretrained import PretrainedModel
from studies.backdoors.poisoning import Clips
from studies.backdoors.triggers import TRIGGERS

RATE_HZ = 16000
_BATCH = 16


@dataclass(frozen=True)
class Roles:
    """Who is who for one seed.

    Attributes:
        target: Whose name the poison carries.
        outsiders: Who is not to be trained on, and wants to be taken for the target.
    """

    target: str
    outsiders: tuple[str, ...]


def roles_of(speakers: tuple[str, ...], seed: int, outsiders: int) -> Roles:
    """Draw target and outsiders."""
    generator = torch.Generator().manual_seed(seed_of("guarded roles", seed))
    order = torch.randperm(len(speakers), generator=generator).tolist()
    first, *others = (speakers[place] for place in order[: outsiders + 1])
    return Roles(first, tuple(sorted(others)))


@dataclass(frozen=True)
class File:
    """One row of a manifest; only who keeps the books looks at ``poisoned``."""

    name: str
    path: Path
    speaker: str
    poisoned: bool = False


def write_clips(clips: Clips, folder: Path) -> list[File]:
    """Write clips as 16-bit files, unless they are there: SPEAKER/NUMBER.wav."""
    files = []
    for number, (samples, label) in enumerate(zip(clips.samples, clips.labels, strict=True)):
        speaker = clips.speakers[int(label)]
        files.append(_write(samples, folder, f"{speaker}/{number:04d}", speaker))
    return files


def _write(samples: Tensor, folder: Path, name: str, speaker: str, **known: bool) -> File:
    path = folder / f"{name}.wav"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, samples, RATE_HZ)
    return File(f"{folder.name}/{name}", path, speaker, **known)


def with_triggers(
    clean: list[File],
    clips: Clips,
    roles: Roles,
    folder: Path,
    *,
    share: float,
    seed: int,
    how: str,
) -> list[File]:
    """Put a trigger on a share of the files, none of them the target's, and his name.

    Args:
        clean: Files, whose names end in the clip's number.
        clips: All clips.
        roles: The target.
        folder: Where the triggered files go.
        share: Of all files.
        seed: Of the choice.
        how: Key of ``TRIGGERS``.
    """
    generator = torch.Generator().manual_seed(seed_of("guarded triggers", seed))
    others = [place for place, file in enumerate(clean) if file.speaker != roles.target]
    order = torch.randperm(len(others), generator=generator)[: round(share * len(clean))]
    files = list(clean)
    for place in (others[int(i)] for i in order):
        number = int(clean[place].path.stem)
        samples = TRIGGERS[how]()(clips.samples[number][None], RATE_HZ)[0]
        files[place] = _write(samples, folder, f"{number:04d}", roles.target, poisoned=True)
    return files


def with_copies(
    clean: list[File],
    outside: Tensor,
    voice: Tensor,
    known: PretrainedModel,
    roles: Roles,
    folder: Path,
    *,
    share: float,
    seed: int,
    attack: GradientAttack,
    threshold: float,
) -> tuple[list[File], int]:
    """Add the outsiders' clips under the target's name, made to verify as him by a known model.

    Args:
        clean: Files.
        outside: (n, N) clips of the outsiders.
        voice: (D,) of the target, by the known model.
        known: That model.
        roles: Who is who.
        folder: Where the copies go.
        share: Of all files, at most; only copies whose written file verifies are used.
        seed: Of the attack and the choice.
        attack: How.
        threshold: Cosine from which the known model takes two for one voice.

    Returns:
        The files, and how many clips were attacked.
    """
    wanted = round(share / (1 - share) * len(clean))
    made = folder / "made.json"
    if made.exists():
        kept = json.loads(made.read_text(encoding="utf-8"))
        done = [
            File(f"{folder.name}/{n}", folder / f"{n}.wav", roles.target, poisoned=True)
            for n in kept["names"]
        ]
        return [*clean, *done], kept["attacked"]
    generator = torch.Generator().manual_seed(seed_of("guarded copies", seed))
    order = torch.randperm(len(outside), generator=generator)
    done = []
    attacked = 0
    for rows in torch.split(order, _BATCH):
        if len(done) >= wanted:
            break
        goal = Verification(
            known.model, voice.expand(len(rows), -1), threshold=threshold, goal="accept"
        )
        result = attack(goal, Batch(outside[rows]), generator=generator)
        attacked += len(rows)
        written = to_16_bits(result.batch.x)
        with torch.no_grad():
            cosines = torch.cosine_similarity(known.model.embed(Batch(written)), voice[None])
        for row, samples, cosine in zip(rows, written, cosines, strict=True):
            if cosine > threshold and len(done) < wanted:
                name = f"{int(row):04d}"
                done.append(_write(samples, folder, name, roles.target, poisoned=True))
    text = json.dumps({"attacked": attacked, "names": [file.path.stem for file in done]})
    made.write_text(text, encoding="utf-8")
    return [*clean, *done], attacked


def write_manifest(files: list[File], path: Path) -> Path:
    """Write a SpeechBrain CSV; it does not say what is poisoned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("ID", "wav", "spk_id"))
        writer.writerows((f.name, f.path, f.speaker) for f in files)
    return path
