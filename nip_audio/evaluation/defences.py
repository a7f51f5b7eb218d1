"""Defences under evaluation: which stand in every table, and what they decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.attacks.registry import Level
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.defended import DefendedModel
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.evaluation.seeds import seed_of
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.noise import GaussianNoise, MatchedNoise
from nip_audio.purifiers.quantization import Quantization

__all__ = ["NO_DEFENCE", "Answers", "applies", "ask", "make_defences"]

NO_DEFENCE = "no defence"


def make_defences(
    plans: Sequence[Mapping[str, Any]], model: InstrumentedModel, tested: Iterable[str]
) -> dict[str, Purifier | None]:
    """Return purifiers by name.

    No defence and plain noise always stand first; each configured one is followed by noise just as
    strong.

    Args:
        plans: Of the configuration.
        model: What they are to defend.
        tested: Content hashes of the test items.

    Raises:
        InputError: If a purifier was fitted on a test item.
    """
    bounds = model.bounds
    kinds: Mapping[str, type[GaussianNoise] | type[Quantization]] = {
        "noise": GaussianNoise,
        "quantization": Quantization,
    }
    found: list[Purifier] = [GaussianNoise(snr_db=20.0, bounds=bounds)]
    hashes = set(tested)
    for plan in plans:
        settings = {k: v for k, v in plan.items() if k != "name"}
        purifier: Purifier = kinds[plan["name"]](bounds=bounds, **settings)
        refuse_overlap(purifier.seen, hashes, what=f"defence {purifier.name}")
        found.append(purifier)
        if not isinstance(purifier, GaussianNoise):
            found.append(MatchedNoise(purifier, bounds=bounds))
    return {NO_DEFENCE: None} | {purifier.name: purifier for purifier in found}


def applies(purifier: Purifier | None, level: Level) -> bool:
    """Tell whether a defence stands between an attacker at this level and the model."""
    return purifier is None or level == "raw" or purifier.level == "input"


@dataclass(frozen=True)
class Answers:
    """What a defended model makes of inputs.

    Attributes:
        named: (items,) classes.
        embeddings: (items, D).
    """

    named: NDArray[np.int64]
    embeddings: NDArray[np.float64]


@torch.no_grad()
def ask(
    model: InstrumentedModel,
    purifier: Purifier | None,
    batches: Iterable[Batch],
    *,
    level: Level,
    seed: int,
) -> Answers:
    """Let a defended model name speakers.

    What is to be named comes without label, clean original or name: an evaluation cannot help a
    defence, even by mistake.

    Args:
        model: Undefended.
        purifier: Its defence.
        batches: Values of ``level``.
        level: Raw, or model input.
        seed: Of the defence's randomness.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "defence"))
    system = model
    if purifier is not None:
        system = DefendedModel(model, purifier, generator=generator)
    if level == "input":
        system = system.without_front_end()
    embeddings = [system.embed(Batch(batch.x, batch.lengths)) for batch in batches]
    named = [system.score_embeddings(e).argmax(dim=1) for e in embeddings]
    return Answers(torch.cat(named).numpy(), torch.cat(embeddings).double().numpy())
