"""Draw one recording: its sound before and after purification, and the model's decision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nip_audio.audio.front_ends import ComplexSpectrogram, SpectralFrontEnd, levels_of
from nip_audio.audio.io import Audio
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import input_influence, neuron_influence
from nip_audio.errors import GradientError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.reporting.evidence import Evidence
from nip_audio.reporting.figure import Axis, Chart
from nip_audio.reporting.media import matrix_url, sound_url
from nip_audio.reporting.sections import evidence_html, figure, section
from nip_audio.screening.recordings import Recordings
from nip_audio.workflows.files import Assessment
from nip_audio.workflows.recordings import PurifiedAudio, RecordingWorkflow, purify_audio

__all__ = ["ExaminedRecording", "Excerpt", "examine_recording"]

_COLUMNS = 400
_HERTZ = (250, 500, 1000, 2000, 4000, 8000)
_EVEN_HERTZ = (0, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Excerpt:
    """Beginning of a recording, with the influences on the model's decision about it.

    Attributes:
        samples: (N,) waveform in [-1, 1].
        spectrogram: (F, T) model input, or its levels if it is a complex spectrum.
        neurons: (M,) influence of each neuron of the examined layer (NIP, Eq. 2); None if the
            model's card names no layer, or the model gives no finite gradient, as a black box.
        bands: (F,) influence of each band of the model input, summed over the frames; None for a
            model without a finite gradient.
    """

    samples: Tensor
    spectrogram: Tensor
    neurons: Tensor | None
    bands: Tensor | None


@dataclass(frozen=True)
class ExaminedRecording:
    """Everything that is drawn of a recording.

    Attributes:
        duration_s: Duration of the whole file in seconds.
        sample_rate_hz: Sample rate of the excerpts.
        layer: Layer whose neurons are examined; None if the model's card names none.
        highest_hz: Upper end of the highest input band in Hz; None if the front end does not say.
        even: Whether the bands are equally wide, as those of a complex spectrum; else they are mel
            bands.
        heard: Prediction and verdict for the whole file.
        before: Excerpt of the original.
        after: Excerpt of the purified copy; None if the file was not purified. Only adversarial
            files are, because purification removes no other problem.
        purified: Purified copy and its measurements; None if the file was not purified.
        evidence: Evidence of the detector for its verdict.
    """

    duration_s: float
    sample_rate_hz: int
    layer: str | None
    highest_hz: float | None
    heard: Assessment
    before: Excerpt
    after: Excerpt | None
    purified: PurifiedAudio | None
    evidence: Evidence
    even: bool = False

    def html(self) -> str:
        """Return players, waveforms, spectrograms, evidence and influences as HTML."""
        return _html(self)


def examine_recording(
    workflow: RecordingWorkflow,
    audio: Audio,
    evidence: Evidence,
    purifier: Purifier | None,
    seconds: float,
) -> ExaminedRecording:
    """Examine a recording, and purify it if there is a purifier.

    Args:
        workflow: Model, seed and detector of the run.
        audio: Recording.
        evidence: Evidence of the detector for its verdict.
        purifier: Purifier to apply; None does not purify.
        seconds: Length of the excerpt that is drawn and played, from the beginning.
    """
    pretrained = workflow.pretrained
    taps = pretrained.card.default_taps
    layer = taps[-1] if taps else None
    purified, after = None, None
    if purifier is not None:
        purified = purify_audio(
            pretrained, purifier, audio, seed=workflow.seed, judge=workflow.judge
        )
        after = _excerpt(pretrained, purified.samples, round(seconds * audio.sample_rate_hz), layer)
    heard = purified.before if purified else replace(workflow, judge=None).assess(audio)
    return ExaminedRecording(
        duration_s=audio.duration_s,
        sample_rate_hz=audio.sample_rate_hz,
        layer=layer,
        highest_hz=_highest_hz(pretrained.model.front_end),
        heard=heard,
        before=_excerpt(pretrained, audio.samples, round(seconds * audio.sample_rate_hz), layer),
        after=after,
        purified=purified,
        evidence=evidence,
        even=isinstance(pretrained.model.front_end, ComplexSpectrogram),
    )


def _excerpt(
    pretrained: PretrainedModel, samples: Tensor, length: int, layer: str | None
) -> Excerpt:
    samples, model = samples[:length], pretrained.model
    weight = next(model.parameters(), None)
    with torch.no_grad():
        raw = samples[None] if weight is None else samples[None].to(weight.device)
        batch = model.to_input(Batch(raw))
    levels, neurons, bands = levels_of(model.front_end, batch.x[0]), None, None
    try:
        neurons = None if layer is None else _finite(neuron_influence(model, batch, layer)[0])
        # the parts of a complex spectrum are summed, too
        bands = input_influence(model, batch)[0].sum(dim=-1).reshape(-1, len(levels)).sum(dim=0)
    except GradientError:
        pass
    return Excerpt(samples, levels.cpu(), neurons, _finite(bands))


def _finite(influences: Tensor | None) -> Tensor | None:
    """Return influences on the CPU; None if there are none, or a gradient is not finite."""
    if influences is None or not bool(influences.isfinite().all()):
        return None
    return influences.cpu()


def _highest_hz(front_end: object) -> float | None:
    if isinstance(front_end, SpectralFrontEnd | ComplexSpectrogram):
        return front_end.sample_rate_hz / 2
    return None


def _html(examined: ExaminedRecording) -> str:
    before, after = examined.before, examined.after
    seconds = before.samples.shape[0] / examined.sample_rate_hz
    whole = seconds >= examined.duration_s - 1e-6
    note = (
        "" if whole else f"The first {seconds:g} of {examined.duration_s:.1f} seconds are shown. "
    )
    parts = [
        section("Listen and look", note + _heard(examined), _sights(examined, seconds)),
        evidence_html(examined.evidence, Recordings.words),
        _influence(examined, before, after),
    ]
    return "".join(parts)


def _heard(examined: ExaminedRecording) -> str:
    purified, heard = examined.purified, examined.heard
    named = "" if heard.label is None else f"The model predicts speaker {heard.label}. "
    if purified is None:
        return named
    said = []
    if heard.label is not None:
        now = purified.after.label
        said.append(
            "the prediction is the same"
            if heard.label == now
            else f"the model predicts {now} instead"
        )
    if purified.before.verdict is not None:
        said.append(
            f"the distance is {purified.after.distance:.2f} instead of "
            f"{purified.before.distance:.2f} (threshold {purified.after.distance_threshold:.2f}), "
            f"verdict {purified.after.verdict}"
        )
    said.append(f"the cosine similarity to the original's embedding is {purified.cosine:.2f}")
    if purified.snr_db is not None:
        said.append(f"what the purifier changed is {purified.snr_db:.1f} dB below the recording")
    return f"{named}For the purified copy, {'; '.join(said)}."


def _sights(examined: ExaminedRecording, seconds: float) -> str:
    before, after = examined.before, examined.after
    loudest = float(before.samples.abs().max())
    shown = [(before, "Original")]
    if after is not None:
        shown.append((after, "Purified"))
        loudest = max(loudest, float(after.samples.abs().max()))
    columns = []
    for excerpt, name in shown:
        sound = sound_url(excerpt.samples, examined.sample_rate_hz)
        player = f'<audio controls preload="none" aria-label="{name}: play" src="{sound}"></audio>'
        columns.append(
            f'<div class="sight"><h4>{name}</h4>{player}'
            + figure(
                "Waveform (full scale is 1)", _waveform(excerpt.samples, seconds, loudest, name)
            )
            + figure(
                "Spectrogram, which is the model's input",
                _spectrogram(examined, excerpt.spectrogram, seconds, f"{name}: spectrogram"),
            )
            + "</div>"
        )
    if after is not None:
        columns.append(_difference(examined, before, after, seconds))
    return f'<div class="sights">{"".join(columns)}</div>'


def _difference(
    examined: ExaminedRecording, before: Excerpt, after: Excerpt, seconds: float
) -> str:
    """Draw the purified copy minus the original, because small changes cannot be seen in both."""
    wave, picture = after.samples - before.samples, after.spectrogram - before.spectrogram
    loudest = max(float(wave.abs().max()), 1e-6)
    largest = max(float(picture.abs().max()), 1e-6)
    chart = _spectrogram(
        examined, picture, seconds, "Difference: spectrogram", (-largest, largest), "RdBu_r"
    )
    return (
        '<div class="sight"><h4>Difference</h4>'
        f'<audio controls preload="none" aria-label="Difference, amplified: play" '
        f'src="{sound_url(wave / loudest * 0.5, examined.sample_rate_hz)}"></audio>'
        + figure(
            "Purified − original, on a scale of its own (the player makes it "
            f"{0.5 / loudest:.2g} times as loud)",
            _waveform(wave, seconds, loudest, "Difference"),
        )
        + figure(
            "Purified − original: blue is less energy, red is more (at most "
            f"{largest:.2f} of the range)",
            chart,
        )
        + "</div>"
    )


def _waveform(samples: Tensor, seconds: float, loudest: float, name: str) -> str:
    values = samples.numpy()
    pieces = np.array_split(values, min(_COLUMNS, len(values)))
    top = max(loudest, 1e-6)
    ticks = [(-top, f"−{top:.2g}"), (0.0, "0"), (top, f"{top:.2g}")]
    chart = Chart(
        f"{name}: waveform",
        Axis("seconds", 0.0, seconds),
        Axis("level", -top, top, ticks=ticks),
        height=130,
    )
    xs = np.linspace(0, seconds, len(pieces)).tolist()
    lows, highs = ([float(f(piece)) for piece in pieces] for f in (np.min, np.max))
    chart.band(xs, lows, highs, "wave")
    return chart.svg()


def _spectrogram(
    examined: ExaminedRecording,
    values: Tensor,
    seconds: float,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    colours: str = "magma",
) -> str:
    chart = Chart(
        title,
        Axis("seconds", 0.0, seconds),
        _bands(examined, values.shape[0]),
        height=190,
    )
    chart.picture(matrix_url(values, *limits, colours=colours))
    return chart.svg()


def _bands(examined: ExaminedRecording, bands: int) -> Axis:
    """Return the axis of the input bands, in kHz if their frequencies are known."""
    highest_hz = examined.highest_hz
    if highest_hz is None:
        return Axis("input band", 0.0, float(bands))
    shown, scale = (_EVEN_HERTZ, float) if examined.even else (_HERTZ, _mel)
    ticks = [
        (bands * scale(hertz) / scale(highest_hz), f"{hertz / 1000:g}")
        for hertz in shown
        if hertz <= highest_hz
    ]
    return Axis("kHz", 0.0, float(bands), ticks=ticks)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _influence(examined: ExaminedRecording, before: Excerpt, after: Excerpt | None) -> str:
    """Draw the influence of the neurons, sorted by the original's, and of the input bands.

    Nothing is drawn of a black box, whose influences are not known.
    """
    shown = [(before, "before")] if after is None else [(after, "after"), (before, "before")]
    figures = []
    if before.neurons is not None:
        order = before.neurons.argsort(descending=True)
        lines = [
            (kind, excerpt.neurons[order].tolist())
            for excerpt, kind in shown
            if excerpt.neurons is not None
        ]
        chart = _curves(
            f"Influence of the neurons of {examined.layer}",
            Axis("neurons, sorted by influence in the original", 0, len(order) - 1),
            lines,
        )
        figures.append(figure(f"Neurons of layer {examined.layer}", chart))
    if before.bands is None:
        return ""
    lines = [(kind, e.bands.tolist()) for e, kind in shown if e.bands is not None]
    axis = _bands(examined, len(before.bands))
    label = axis.label if axis.label != "kHz" else "input band (kHz)"
    chart = _curves(
        "Influence of the input bands",
        Axis(label, axis.low, axis.high, ticks=axis.ticks),
        lines,
        centred=True,
    )
    figures.append(figure("Input bands, summed over all frames", chart))
    key = '<p class="key"><span class="key-before"></span>original'
    key += "</p>" if after is None else ' <span class="key-after"></span>purified</p>'
    return section(
        "What the model's decision rests on",
        "Influence is how much a neuron or an input band contributes to the model's decision about "
        "the voice (neuron-level inverse perturbation, NIP, Eq. 2). Values above 0 support the "
        "decision, values below 0 oppose it. Each curve is about its own recording's decision.",
        f'{key}<div class="sights">{"".join(figures)}</div>',
    )


def _curves(
    title: str, x: Axis, lines: Iterable[tuple[str, list[float]]], *, centred: bool = False
) -> str:
    lines = list(lines)
    every = [value for _, values in lines for value in values]
    low, high = min(*every, 0.0), max(*every, 1e-9)
    spare = (high - low) * 0.06
    chart = Chart(title, x, Axis("influence", low - spare, high + spare))
    for kind, values in lines:
        shift = 0.5 if centred else 0.0
        chart.line([i + shift for i in range(len(values))], values, f"curve {kind}")
    return chart.svg()
