"""Make the defences under evaluation, and classify clips with a defended model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.attacks.registry import Level
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of
from nip_audio.errors import InputError
from nip_audio.evaluation.config import OF_THE_PLAN, GatePlan
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.gated import GatedPurifier
from nip_audio.purifiers.layer_defence import LayerDefence
from nip_audio.purifiers.noise import GaussianNoise, MatchedNoise
from nip_audio.purifiers.registry import defence_entry, make_defence
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.gate import CalibratedGate

__all__ = ["NO_DEFENCE", "Answers", "applies", "ask", "make_defences"]

NO_DEFENCE = "no defence"


def make_defences(
    plans: Sequence[Mapping[str, Any]],
    pretrained: PretrainedModel,
    model: InstrumentedModel,
    tested: Iterable[str],
    *,
    system: str = "",
) -> dict[str, Defence | None]:
    """Return the defences of one system by name.

    No defence and plain noise always come first. Each configured defence that changes the input is
    followed by noise of the same strength. Defences inside the network change the default taps of
    the model's card unless their plan names ``layers``. A purifier with a ``gate`` (a ``GatePlan``)
    changes only the inputs that this detector flags, and so does the noise of the same strength.

    Args:
        plans: Defences of the configuration.
        pretrained: Model that fitted defences must have been fitted to.
        model: Same model with the head under evaluation.
        tested: Content hashes of the test items.
        system: Name that replaces ``{system}`` in paths; plans for other ``systems`` are left out.

    Raises:
        InputError: If a defence, or its gate, was fitted on a test item or does not fit the model,
            if the model comes without the purifier that a plan without ``path`` asks for, or if
            two defences have the same name.
        LayerNotFoundError: If a layer to change is not a module of the network.
    """
    found: list[Defence] = [GaussianNoise(snr_db=20.0, bounds=model.bounds)]
    hashes = set(tested)
    for plan in plans:
        if plan.get("systems") and system not in plan["systems"]:
            continue
        settings = {key: value for key, value in plan.items() if key not in OF_THE_PLAN}
        if "path" in defence_entry(plan["name"]).required:
            settings["path"] = _fitted(plan, pretrained, system)
        if "layers" in defence_entry(plan["name"]).settings and not settings.get("layers"):
            settings["layers"] = pretrained.card.default_taps
        defence = make_defence(
            plan["name"], model=model, model_id=pretrained.model_id, settings=settings
        )
        if isinstance(defence, LayerDefence):
            defence.check(model)
        group: list[Defence] = [defence]
        if isinstance(defence, Purifier):
            group = _beside_noise(defence, model)
        if (gated := plan.get("gate")) is not None:
            gate = _make_gate(gated, pretrained, system)
            group = [GatedPurifier(_purifier(member), gate) for member in group]
        for member in group:
            refuse_overlap(member.seen, hashes, what=f"defence {member.name}")
        found += group
    names = [defence.name for defence in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"defences {', '.join(twice)} are listed twice; leave one out")
    return {NO_DEFENCE: None} | dict(zip(names, found, strict=True))


def _beside_noise(purifier: Purifier, model: InstrumentedModel) -> list[Defence]:
    """Return a purifier and noise of the same strength; noise itself needs no comparison."""
    if isinstance(purifier, GaussianNoise):
        return [purifier]
    bounds = model.bounds if purifier.level == "raw" else model.input_bounds
    return [purifier, MatchedNoise(purifier, bounds=bounds)]


def _purifier(defence: Defence) -> Purifier:
    if not isinstance(defence, Purifier):
        raise InputError(
            f"{defence.name} works inside the network and cannot be gated; leave its gate out"
        )
    return defence


def _fitted(plan: Mapping[str, Any], pretrained: PretrainedModel, system: str) -> Path:
    """Return the file of a fitted defence: that of the plan, or that of the model."""
    if "path" in plan:
        return _path(plan["path"], system)
    if pretrained.card.purifier_path is None:
        raise InputError(
            f"model {pretrained.card.name} comes without a {plan['name']} purifier, which the "
            f"defence {plan['name']} needs; fit one (nip-audio fit-purifier), and name its file: "
            f"{{name: {plan['name']}, path: FILE}}"
        )
    return pretrained.card.purifier_path


def _path(value: object, system: str) -> Path:
    return Path(str(value).format(system=system))


def _make_gate(plan: GatePlan, pretrained: PretrainedModel, system: str) -> CalibratedGate:
    """Make the detector that decides which inputs are purified."""
    path = None if plan.calibration is None else _path(plan.calibration, system)
    calibration = Calibration.of(pretrained, path)
    return CalibratedGate(pretrained, calibration, false_positive_rate=plan.false_positive_rate)


def applies(defence: Defence | None, level: Level) -> bool:
    """Return whether a defence can act on an attack at this level."""
    if level == "raw":
        return True
    on_raw = isinstance(defence, Purifier) and defence.works_on_raw
    return not (on_raw or isinstance(defence, GatedPurifier))


@dataclass(frozen=True)
class Answers:
    """Predictions of a defended model.

    Attributes:
        named: (items,) predicted classes.
        embeddings: (items, D) embeddings.
    """

    named: NDArray[np.int64]
    embeddings: NDArray[np.float64]


@torch.no_grad()
def ask(
    model: InstrumentedModel,
    defence: Defence | None,
    batches: Iterable[Batch],
    *,
    level: Level,
    seed: int,
) -> Answers:
    """Classify clips with a defended model.

    The batches carry no label, clean original or file name, so that an evaluation cannot help a
    defence by mistake.

    Args:
        model: Undefended model.
        defence: Defence in front of or inside the model; None for none.
        batches: Waveforms or model inputs, as ``level`` says.
        level: ``raw`` for waveforms, ``input`` for model inputs.
        seed: Seed of the defence's random draws.
    """
    generator = generator_of(seed, "defence")
    system = model
    if defence is not None:
        system = defend(model, defence, generator=generator)
    if level == "input":
        system = system.without_front_end()
    embeddings = [system.embed(batch) for batch in batches]
    named = [system.score_embeddings(e).argmax(dim=1) for e in embeddings]
    return Answers(torch.cat(named).numpy(), torch.cat(embeddings).double().numpy())
