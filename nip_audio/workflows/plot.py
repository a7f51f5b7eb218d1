"""Plot a purified recording: spectrograms, their difference, and the influence of neurons."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nip_audio.audio.front_ends import levels_of
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_influence
from nip_audio.core.state import write_atomic
from nip_audio.errors import GradientError
from nip_audio.models.pretrained import PretrainedModel

if TYPE_CHECKING:
    from nip_audio.workflows.files import Assessment
    from nip_audio.workflows.recordings import PurifiedAudio

__all__ = ["plot_purification"]


def plot_purification(
    pretrained: PretrainedModel, purified: PurifiedAudio, path: Path, *, force: bool = False
) -> None:
    """Draw a PNG of the spectrogram before and after, the difference, and the neuron influence.

    The influence is that of the neurons of the model's last default tap on the decision (NIP,
    neuron-level inverse perturbation, Eq. 2), for both recordings in the order of the first. If an
    attack raises the tail neurons and a purifier lowers them again, the second curve shows it.

    Args:
        pretrained: Model that the recording was purified for.
        purified: Purified recording.
        path: Path of the PNG to write.
        force: Whether an existing file is overwritten.

    Raises:
        OutputError: If the file exists and ``force`` is false, or cannot be written.
    """
    front_end = pretrained.model.front_end
    inputs = purified.spectrogram_before, purified.spectrogram_after
    before, after = (levels_of(front_end, x) for x in inputs)
    seconds = purified.samples.shape[0] / purified.sample_rate_hz
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw(axes[0, 0], before, seconds, f"before{_named(purified.before)}", (0.0, 1.0), "magma")
    _draw(axes[0, 1], after, seconds, f"after{_named(purified.after)}", (0.0, 1.0), "magma")
    difference = after - before
    largest = max(float(difference.abs().max()), 1e-6)
    _draw(axes[1, 0], difference, seconds, "after - before", (-largest, largest), "RdBu_r")
    _draw_influence(axes[1, 1], pretrained, *inputs)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue(), force=force)


def _draw(
    axis: Axes,
    spectrogram: Tensor,
    seconds: float,
    title: str,
    limits: tuple[float, float],
    colours: str,
) -> None:
    image = axis.imshow(
        spectrogram.cpu().numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, seconds, 0.0, float(spectrogram.shape[0])),
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
    )
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_xlabel("s", fontsize=8)
    axis.set_ylabel("band", fontsize=8)
    axis.tick_params(labelsize=7)
    if axis.figure is not None:
        axis.figure.colorbar(image, ax=axis, pad=0.01).ax.tick_params(labelsize=7)


def _draw_influence(axis: Axes, pretrained: PretrainedModel, before: Tensor, after: Tensor) -> None:
    if not pretrained.card.default_taps:
        axis.set_title("the model's card names no layer to look at", fontsize=9)
        return
    layer = pretrained.card.default_taps[-1]
    try:
        first, second = (
            neuron_influence(pretrained.model, Batch(x[None]), layer)[0] for x in (before, after)
        )
    except GradientError:
        axis.set_title("a black box: the influence of its neurons is not known", fontsize=9)
        return
    order = first.argsort(descending=True)
    axis.plot(second[order].cpu().numpy(), label="after", lw=0.8, color="tab:orange")
    axis.plot(first[order].cpu().numpy(), label="before", lw=1.2, color="tab:blue")
    axis.set_title(
        f"influence of {layer}'s neurons, each on its own decision", fontsize=9, parse_math=False
    )
    axis.set_xlabel("neurons, most influential before first", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _named(found: Assessment) -> str:
    """Return ": speaker (score)"; characters outside ASCII are escaped, since fonts lack some."""
    if found.label is None:
        return ""
    name = found.label.encode("ascii", "backslashreplace").decode()
    return f": {name} ({found.score:.2f})"
