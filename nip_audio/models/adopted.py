"""Give a model of any origin a card: what it is, which layers to measure, and where it lies.

The weights stay where they are; the card names their source and the hash of every file, and
loading the card reads them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import HashMismatchError, ModelCardError
from nip_audio.models.cards import CARD_NAME, CARD_VERSION, ModelCard, read_card
from nip_audio.models.sources.base import KINDS, SourceModel, SourceSpec, load_source, parse_spec
from nip_audio.models.sources.foreign import weighed
from nip_audio.models.sources.layers import find_layers_of
from nip_audio.models.trust import is_trusted

__all__ = ["Adopted", "adopt", "attach_companion", "has_gradient", "load_adopted", "probe"]

_PROBE_S = (2.0, 1.37)


@dataclass(frozen=True)
class Adopted:
    """A model from a source, and its card.

    Attributes:
        model: The model, whose layers can be tapped.
        card: Content of the card.
        layers: All layers that can be measured, in order; the card names a few of them.
        differentiable: Whether gradients reach the waveform, as was tried.
    """

    model: InstrumentedModel
    card: Mapping[str, Any]
    layers: tuple[str, ...]
    differentiable: bool


def adopt(sourced: SourceModel, spec: SourceSpec, *, trusted: bool = False) -> Adopted:
    """Look at a model, and describe it.

    Args:
        sourced: Model, as ``load_source`` returned it.
        spec: Where it comes from.
        trusted: Whether it was loaded with trust.

    Raises:
        ModelCardError: If it does not embed, or has no layer that can be measured.
    """
    model = sourced.model
    longer, shorter = (probe(sourced.sample_rate_hz, seconds) for seconds in _PROBE_S)
    try:
        with torch.no_grad():
            embeddings = model.embed(Batch(longer))
    except (RuntimeError, ValueError, TypeError, IndexError) as err:
        raise ModelCardError(
            f"{spec} cannot embed two waveforms of {_PROBE_S[0]:g} s at {sourced.sample_rate_hz} "
            f"Hz ({str(err).strip().splitlines()[0][:200]}); check its sample rate and what it "
            "takes"
        ) from err
    if embeddings.dim() != 2 or len(embeddings) != 2 or not bool(embeddings.isfinite().all()):
        raise ModelCardError(
            f"{spec} returns {tuple(embeddings.shape)} for two waveforms, with "
            f"{int((~embeddings.isfinite()).sum())} values that are not finite; expected (2, "
            "embedding size) of finite values"
        )
    layers = find_layers_of(model, longer, shorter)
    if layers.axes:
        model.network.tap_axes = dict(layers.axes)  # type: ignore[assignment]
    files = dict(sourced.files)
    if spec.options:
        text = "&".join(f"{key}={spec.options[key]}" for key in sorted(spec.options))
        files["(options)"] = hashlib.sha256(text.encode()).hexdigest()
    card = {
        "format_version": CARD_VERSION,
        "name": sourced.name,
        "modality": "audio",
        "source": str(_absolute(spec)),
        "trusted": trusted,
        "architecture": sourced.architecture,
        "licence": sourced.licence,
        "sample_rate_hz": sourced.sample_rate_hz,
        "embedding_size": embeddings.shape[1],
        "output_kind": model.output_kind,
        "scale": model.scale,
        "labels": list(model.labels),
        "channels": _channels(model, shorter),
        "default_taps": list(layers.chosen),
        "tap_axes": dict(layers.axes),
        "files": files,
        "calibration": None,
        "training": {},
        "metrics": {},
        "notes": list(sourced.notes),
    }
    return Adopted(
        model,
        card,
        layers.names,
        sourced.differentiable and has_gradient(model, sourced.sample_rate_hz),
    )


def attach_companion(card: ModelCard, kind: str, path: Path) -> bool:
    """Name a fitted file in the card of the model beside which it lies, for use by default.

    Only cards of models that come from elsewhere are changed: those that this toolkit trains are
    published as a whole.

    Args:
        card: Card of the model that the file was fitted to.
        kind: One of ``COMPANIONS``.
        path: The file.

    Returns:
        Whether the card names it now.
    """
    if card.source is None or not (card.directory / CARD_NAME).is_file():
        return False
    if path.absolute().parent.resolve() != card.directory.resolve():
        return False
    # read again: while this file was fitted, another one may have been named, or another model
    # adopted
    now = read_card(card.directory)
    if now.model_id != card.model_id:
        return False
    entry = {"file": path.name, "sha256": file_sha256(path)}
    data = dict(now.data) | {kind: entry}
    target = card.directory / CARD_NAME
    write_atomic(target, (json.dumps(data, indent=1) + "\n").encode(), force=True)
    return True


def load_adopted(card: ModelCard) -> InstrumentedModel:
    """Load the model that a card describes from its source.

    Raises:
        ModelCardError: If the source is gone, or could run code that was not trusted here.
        HashMismatchError: If a file differs from the card.
    """
    spec = parse_spec(str(card.source))
    if spec is None:
        raise ModelCardError(
            f"{card.directory}: the card names the source {card.source!r}, expected one of "
            f"{', '.join(KINDS)}; adopt the model again"
        )
    trust = KINDS[spec.kind].runs_code or bool(card.data.get("trusted"))
    if trust and not is_trusted(str(card.source), card.model_id):
        raise ModelCardError(
            f"{card.directory}: loading {card.source} can run any code, and this account has not "
            "said that it trusts this model; if you know who made it and that nobody changed it: "
            f"nip-audio adopt --trust-model '{card.source}' --out DIRECTORY"
        )
    known = {name: sha for name, sha in card.data["files"].items() if name != "(options)"}
    sourced = load_source(replace(spec, expected=known), trust=trust)
    changed = [name for name in known if sourced.files.get(name) != known[name]]
    if changed or set(sourced.files) != set(known):
        names = ", ".join(changed or sorted(set(sourced.files) ^ set(known)))
        raise HashMismatchError(
            f"{card.source} differs from the card {card.directory} in {names}; if you changed the "
            "model, adopt and calibrate it again, and do not use it otherwise"
        )
    axes = card.data.get("tap_axes") or {}
    if axes:
        sourced.model.network.tap_axes = dict(axes)  # type: ignore[assignment]
    return sourced.model


def probe(sample_rate_hz: int, seconds: float) -> Tensor:
    """Return two waveforms that resemble voices, (2, N): harmonics that come and go, and noise."""
    count = round(seconds * sample_rate_hz)
    time = torch.arange(count, dtype=torch.float64) / sample_rate_hz
    rows = []
    for pitch_hz, rate_hz in ((118.0, 3.1), (203.0, 4.3)):
        phase = 2 * torch.pi * pitch_hz * (time + 0.002 * torch.sin(2 * torch.pi * rate_hz * time))
        most = int(min(3800.0, 0.45 * sample_rate_hz) / pitch_hz)
        voice = sum(torch.sin(k * phase) / k for k in range(1, most + 1))
        envelope = (0.6 + 0.4 * torch.sin(2 * torch.pi * rate_hz * time)).clamp_min(0.05)
        rows.append(0.1 * torch.as_tensor(voice) * envelope)
    noise = torch.randn(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (torch.stack(rows) + 0.001 * noise).float().clamp(-1.0, 1.0)


@torch.no_grad()
def _channels(model: InstrumentedModel, wavs: Tensor) -> int:
    """Return the channels of the model's input: 2 for a complex spectrum, (B, 2, F, T)."""
    x = model.to_input(Batch(wavs)).x
    return x.shape[1] if x.dim() == 4 else 1


def _absolute(spec: SourceSpec) -> SourceSpec:
    """Return the spec with a path of this machine made absolute."""
    if spec.kind == "python" or not spec.location or not Path(spec.location).exists():
        return spec
    return replace(spec, location=str(Path(spec.location).absolute()))


def has_gradient(model: InstrumentedModel, sample_rate_hz: int) -> bool:
    """Tell whether a gradient of the embedding reaches the waveform, finite and not zero."""
    wavs = probe(sample_rate_hz, 1.0)[:1].requires_grad_()
    try:
        with torch.enable_grad():
            (found,) = torch.autograd.grad(weighed(model.embed(Batch(wavs))), wavs)
    except RuntimeError:
        return False
    return bool(found.isfinite().all()) and float(found.abs().max()) > 0
