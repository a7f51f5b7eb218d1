"""Write what was drawn of one recording as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from nip_audio.reporting.examine import Examined, Excerpt
from nip_audio.reporting.figure import Axis, Chart
from nip_audio.reporting.media import matrix_url, sound_url
from nip_audio.reporting.sections import evidence_html, figure, section
from nip_audio.screening.words import RECORDINGS

__all__ = ["detail_html"]

_COLUMNS = 400
_HERTZ = (250, 500, 1000, 2000, 4000, 8000)


def detail_html(examined: Examined) -> str:
    """Return players, waveforms, spectrograms, the detector's evidence and influences as HTML."""
    before, after = examined.before, examined.after
    seconds = before.samples.shape[0] / examined.sample_rate_hz
    whole = seconds >= examined.duration_s - 1e-6
    note = (
        "" if whole else f"The first {seconds:g} of {examined.duration_s:.1f} seconds are shown. "
    )
    parts = [
        section("Listen and look", note + _heard(examined), _sights(examined, seconds)),
        evidence_html(examined.evidence, RECORDINGS),
        _influence(examined, before, after),
    ]
    return "".join(parts)


def _heard(examined: Examined) -> str:
    purified, heard = examined.purified, examined.heard
    named = "" if heard.speaker is None else f"The model predicts speaker {heard.speaker}. "
    if purified is None:
        return named
    said = []
    if heard.speaker is not None:
        now = purified.after.speaker
        said.append(
            "the prediction is the same"
            if heard.speaker == now
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


def _sights(examined: Examined, seconds: float) -> str:
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


def _difference(examined: Examined, before: Excerpt, after: Excerpt, seconds: float) -> str:
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
    examined: Examined,
    values: Tensor,
    seconds: float,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    colours: str = "magma",
) -> str:
    chart = Chart(
        title,
        Axis("seconds", 0.0, seconds),
        _bands(examined.highest_hz, values.shape[0]),
        height=190,
    )
    chart.picture(matrix_url(values, *limits, colours=colours))
    return chart.svg()


def _bands(highest_hz: float | None, bands: int) -> Axis:
    """Return the axis of the input bands, in kHz if their frequencies are known."""
    if highest_hz is None:
        return Axis("input band", 0.0, float(bands))
    ticks = [
        (bands * _mel(hertz) / _mel(highest_hz), f"{hertz / 1000:g}")
        for hertz in _HERTZ
        if hertz <= highest_hz
    ]
    return Axis("kHz", 0.0, float(bands), ticks=ticks)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _influence(examined: Examined, before: Excerpt, after: Excerpt | None) -> str:
    """Draw the influence of the neurons, sorted by the original's, and of the input bands."""
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
    lines = [(kind, excerpt.bands.tolist()) for excerpt, kind in shown]
    axis = _bands(examined.highest_hz, len(before.bands))
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
