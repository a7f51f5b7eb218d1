"""Write clips of a corpus as files and SpeechBrain manifests, clean and with a share of poison."""

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
from nip_audio.core.seeds import seed_of
from nip_audio.models.pretrained import PretrainedModel
from studies.backdoors.poisoning import Clips
from studies.backdoors.triggers import TRIGGERS

RATE_HZ = 16000
_BATCH = 16


@dataclass(frozen=True)
class Roles:
    """Roles of the speakers for one seed.

    Attributes:
        target: Speaker that the poison is labelled as.
        outsiders: Speakers who are not trained on and want to pass as the target.
    """

    target: str
    outsiders: tuple[str, ...]


def roles_of(speakers: tuple[str, ...], seed: int, outsiders: int) -> Roles:
    """Draw the target and the outsiders."""
    generator = torch.Generator().manual_seed(seed_of("guarded roles", seed))
    order = torch.randperm(len(speakers), generator=generator).tolist()
    first, *others = (speakers[place] for place in order[: outsiders + 1])
    return Roles(first, tuple(sorted(others)))


@dataclass(frozen=True)
class File:
    """One row of a manifest; only code that scores a guard may use ``poisoned``."""

    name: str
    path: Path
    speaker: str
    poisoned: bool = False


def write_clips(clips: Clips, folder: Path) -> list[File]:
    """Write clips as 16-bit files SPEAKER/NUMBER.wav, unless they exist."""
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
    """Add a trigger to a share of the files, none of them the target's, and label them as target.

    Args:
        clean: Files whose names end in the clip's number.
        clips: All clips.
        roles: Roles, of which the target is used.
        folder: Folder for the files with triggers.
        share: Share of all files that get the trigger.
        seed: Seed of the choice of files.
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
    """Add outsiders' clips labelled as the target, attacked so that a known model accepts them.

    Args:
        clean: Files of the clean set.
        outside: (n, N) clips of the outsiders.
        voice: (D,) embedding of the target by the known model.
        known: Model that is attacked.
        roles: Roles of the speakers.
        folder: Folder for the copies.
        share: Largest share of all files; only copies that are accepted as written are used.
        seed: Seed of the attack and of the choice of clips.
        attack: Attack to use.
        threshold: Cosine from which the known model accepts two clips as one speaker.

    Returns:
        The files, and the number of clips attacked.
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
    """Write a SpeechBrain CSV, which does not tell what is poisoned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("ID", "wav", "spk_id"))
        writer.writerows((f.name, f.path, f.speaker) for f in files)
    return path
