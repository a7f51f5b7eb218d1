"""Examine a model of any origin, and write its card.

What is written was measured: whether the model is deterministic, how it treats batches, padding,
shifts and gain, whether gradients reach the waveform, how fast it is, and how much noise moves its
embeddings. The noises of the detector are chosen by the last: levels that suit one model are far
too small or too large for another.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import ReadSettings
from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.noise import Noise
from nip_audio.core.state import require_new, write_atomic
from nip_audio.errors import AudioError, InputError, ModelCardError, OutputError
from nip_audio.models.adopted import Adopted, adopt, probe
from nip_audio.models.cards import CARD_NAME, ModelCard, model_id_of, read_card
from nip_audio.models.sources.base import KINDS, load_source, parse_spec
from nip_audio.models.trust import remember_trust

__all__ = ["MOVES", "AdoptedModel", "Examination", "adopt_model", "choose_noises", "examine"]

MOVES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Cosine distances by which the detector's noises move the median embedding. Those of the shipped
models move theirs by .001 to .07."""

_CLIPS, _CLIP_S = 24, 3.0
_FEWEST_CLIPS = 8
_QUIETEST, _LOUDEST = 2e-5, 0.2  # rms of the noises that are tried
_TRIED = 14
_ROUNDING = 1e-3  # relative difference that the order of sums can make
_SHIFT_S = 0.013


@dataclass(frozen=True)
class Examination:
    """What was measured of a model, on two waveforms like voices.

    Attributes:
        embedding_size: Size of the embedding.
        repeats: Largest relative difference between two embeddings of one waveform.
        batch: Largest relative difference between items embedded together and alone.
        padding: Largest relative difference between an item beside a longer one and the item alone,
            since padding is to be ignored.
        shift: Cosine distance between a waveform and the same 13 ms later.
        gain: Cosine distance between a waveform and the same at half the amplitude.
        differentiable: Whether gradients reach the waveform.
        real_time_factor: Seconds of computing per second of sound, on this machine.
        layers: Number of layers that can be measured.
        noises_from: Number of clean recordings by which the noises were chosen; 0 if there were
            none and the noises are those of the shipped models.
    """

    embedding_size: int
    repeats: float
    batch: float
    padding: float
    shift: float
    gain: float
    differentiable: bool
    real_time_factor: float
    layers: int
    noises_from: int

    def findings(self) -> list[tuple[str, bool, str]]:
        """Return what works and what does not: (what, whether it works, why)."""
        white = "gradients reach the waveform"
        black = "no usable gradient reaches the waveform"
        reason = white if self.differentiable else black
        clean = f"noises chosen on {self.noises_from} clean recordings"
        few = "noises of the shipped models, since no clean recordings were given"
        return [
            ("embed, enroll, verify", self.repeats <= _ROUNDING, self._repeats()),
            ("calibrate, detect, screen", True, clean if self.noises_from else few),
            ("batches", self.batch <= _ROUNDING, f"items together differ by {self.batch:.1e}"),
            (
                "padding",
                self.padding <= _ROUNDING,
                f"an item beside a longer one differs by {self.padding:.1e}",
            ),
            ("attack: white box", self.differentiable, reason),
            ("attack: black box", True, "fakebob, hopskipjump and square need scores alone"),
            ("fit-purifier, purify", self.differentiable, reason),
        ]

    def _repeats(self) -> str:
        same = self.repeats == 0
        return (
            "repeats exactly" if same else f"embeddings of one input differ by {self.repeats:.1e}"
        )


@dataclass(frozen=True)
class AdoptedModel:
    """A model with a written card.

    Attributes:
        card: The card.
        examination: What was measured.
        trusted_in: File that remembers that the model may run code; None if it needs no trust.
    """

    card: ModelCard
    examination: Examination
    trusted_in: Path | None = None


def adopt_model(
    source: str,
    out: Path,
    *,
    clean: Iterable[Path] = (),
    name: str | None = None,
    trust: bool = False,
    force: bool = False,
) -> AdoptedModel:
    """Examine a model, and write a directory with its card.

    Args:
        source: Where the model comes from; see ``nip_audio.models.sources``.
        out: Directory to write; every command takes it as its model.
        clean: Clean recordings, by which the noises of the detector are chosen; 24 are read.
        name: Name of the model; None takes the source's.
        trust: Whether code of the source may run, now and whenever this account loads the card.
        force: Whether an existing card is overwritten.

    Raises:
        ModelCardError: If the model cannot be used; the text says why.
        InputError: If there are clean recordings, but fewer than eight can be read.
        OutputError: If the card exists or cannot be written.
    """
    spec = parse_spec(source)
    if spec is None:
        raise ModelCardError(
            f"{source!r} is no source of a model, expected a directory of SpeechBrain or one of: "
            f"{'; '.join(kind.form for kind in KINDS.values())}"
            + (f"; for the folder write ./{source}" if Path(source).is_dir() else "")
        )
    card_path = out / CARD_NAME
    if out.is_dir():
        require_new(card_path, force=force)  # now, and not after minutes of measuring
    elif out.exists():
        raise OutputError(f"{out} is no directory, expected one or a new name; choose another")
    own = spec.kind == "python"  # the user's own function
    sourced = load_source(spec, trust=trust or own)
    needs_trust = KINDS[spec.kind].runs_code or sourced.ran_code
    adopted = adopt(sourced, spec, trusted=trust and needs_trust)
    clips = read_clips(clean, int(adopted.card["sample_rate_hz"]))
    noises = choose_noises(adopted.model, clips) if clips else ()
    examination = examine(adopted, noises_from=len(clips))
    data: dict[str, Any] = {
        **adopted.card,
        "name": name or adopted.card["name"],
        "noises": [asdict(noise) for noise in noises],
        "examination": asdict(examination),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"{out} cannot be made ({err.strerror}); choose another directory with `out`"
        ) from err
    write_atomic(card_path, (json.dumps(data, indent=1) + "\n").encode(), force=force)
    model_id = model_id_of(data["files"])
    trusted_in = remember_trust(str(data["source"]), model_id) if needs_trust else None
    return AdoptedModel(read_card(out), examination, trusted_in)


def read_clips(files: Iterable[Path], sample_rate_hz: int) -> list[Tensor]:
    """Read the beginnings of some clean recordings, each (N,); unreadable ones are left out.

    Raises:
        InputError: If there are files, but fewer than eight can be read.
    """
    adapter = WaveformAdapter(ReadSettings(sample_rate_hz=sample_rate_hz))
    paths = list(files)
    step = max(1, len(paths) // _CLIPS)
    clips: list[Tensor] = []
    for path in dict.fromkeys([*paths[::step], *paths]):  # the others only if some are unreadable
        if len(clips) == _CLIPS:
            break
        try:
            clips.append(adapter.load(path).raw[: round(_CLIP_S * sample_rate_hz)])
        except AudioError:
            continue
    if paths and len(clips) < _FEWEST_CLIPS:
        raise InputError(
            f"{len(clips)} of {len(paths)} clean recordings could be read, expected at least "
            f"{_FEWEST_CLIPS}; give more, or leave `data` out"
        )
    return clips


@torch.no_grad()
def choose_noises(model: InstrumentedModel, clips: Sequence[Tensor]) -> tuple[Noise, ...]:
    """Choose white noise that moves the median embedding by ``MOVES``.

    Args:
        model: Model in evaluation mode.
        clips: Clean waveforms (N,) at the model's sample rate.

    Returns:
        One noise for each distance, by rms of the waveform; levels outside 2e-5 to 0.2 are moved to
        its ends.
    """
    levels = torch.logspace(math.log10(_QUIETEST), math.log10(_LOUDEST), _TRIED).tolist()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for clip in clips:
        noise = torch.randn(clip.shape, generator=generator)
        noisy = torch.stack([clip, *(clip + rms * noise for rms in levels)]).clamp(-1.0, 1.0)
        embeddings = torch.nn.functional.normalize(model.embed(Batch(noisy)).double(), dim=1)
        rows.append(1 - embeddings[1:] @ embeddings[0])
    moved = torch.stack(rows).median(dim=0).values.clamp_min(1e-9).cummax(dim=0).values
    chosen = []
    for distance in MOVES:
        above = int((moved < distance).sum())
        if above in (0, len(levels)):
            rms = levels[0 if above == 0 else -1]
        else:
            low, high = moved[above - 1].log(), moved[above].log()
            share = float((math.log(distance) - low) / (high - low))
            rms = math.exp(
                math.log(levels[above - 1]) * (1 - share) + math.log(levels[above]) * share
            )
        chosen.append(Noise("gaussian", "raw", float(f"{rms:.2g}")))
    return tuple(dict.fromkeys(chosen))


@torch.no_grad()
def examine(adopted: Adopted, *, noises_from: int = 0) -> Examination:
    """Measure how a model treats its input.

    Args:
        adopted: Model and card.
        noises_from: Number of clean recordings by which the noises were chosen.
    """
    model, rate = adopted.model, int(adopted.card["sample_rate_hz"])
    longer, shorter = probe(rate, 2.0), probe(rate, 1.5)
    alone = model.embed(Batch(longer[:1]))
    size = float(alone.abs().max())
    started = time.perf_counter()
    again = model.embed(Batch(longer[:1]))
    seconds = time.perf_counter() - started
    together = model.embed(Batch(longer))[:1]
    padded = model.embed(Batch.collate([shorter[0], longer[0]]))[:1]
    unpadded = model.embed(Batch(shorter[:1]))
    late = torch.nn.functional.pad(longer[:1], (round(_SHIFT_S * rate), 0))[:, : longer.shape[1]]
    return Examination(
        embedding_size=alone.shape[1],
        repeats=float((again - alone).abs().max()) / size,
        batch=float((together - alone).abs().max()) / size,
        padding=float((padded - unpadded).abs().max()) / float(unpadded.abs().max()),
        shift=_distance(alone, model.embed(Batch(late))),
        gain=_distance(alone, model.embed(Batch(longer[:1] / 2))),
        differentiable=adopted.differentiable,
        real_time_factor=seconds / 2.0,
        layers=len(adopted.layers),
        noises_from=noises_from,
    )


def _distance(a: Tensor, b: Tensor) -> float:
    return 1 - float(torch.cosine_similarity(a.double(), b.double())[0])
