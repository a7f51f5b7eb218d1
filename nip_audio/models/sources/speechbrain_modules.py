"""Wrap any SpeechBrain ``EncoderClassifier`` or ``SpeakerRecognition`` as an instrumented model.

This is for models in memory; ``nip_audio.models.sources`` loads SpeechBrain's directories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models import ECAPA_TDNN, ResNet, Xvector
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.pooling import StatisticsPooling
from torch import Tensor, nn

from nip_audio.audio.front_ends import BandFrontEnd, BandRange, Framing
from nip_audio.core.adapter import Bounds, length_mask
from nip_audio.core.model import InstrumentedModel, OutputKind
from nip_audio.core.taps import LayerTap, find_layers, tap_layers
from nip_audio.errors import InputError

__all__ = ["SpeechBrainModel", "instrument"]

_NOISE_SEED = 0
_KNOWN_NETWORKS = (ECAPA_TDNN.ECAPA_TDNN, Xvector.Xvector)
_COSINE_SCALE = 30.0
_LEAST = 1e-6  # as in SpeechBrain's masks of padding
_LOUDEST_DB = 60.0  # above the level of a full-scale waveform in any band


class _Bands(BandFrontEnd):
    """SpeechBrain's ``Fbank`` in decibels, mapped to [0, 1] and never clipped."""

    def __init__(self, features: Fbank) -> None:
        quietest = 10 * math.log10(features.compute_fbanks.amin)
        rate = int(features.compute_STFT.sample_rate)
        super().__init__(rate, BandRange(quietest, max(_LOUDEST_DB, quietest + 1)))
        self.features = features

    def train(self, mode: bool = True) -> _Bands:  # noqa: ARG002
        """Stay in evaluation mode: in training, filters may be drawn at random."""
        return super().train(False)

    @staticmethod
    def fits(features: nn.Module) -> bool:
        """Tell whether features are levels of bands in decibels, and nothing more."""
        return (
            isinstance(features, Fbank)
            and not features.deltas
            and not features.context
            and bool(features.compute_fbanks.log_mel)
            and features.compute_fbanks.multiplier == 10
            and features.compute_fbanks.db_multiplier == 0
        )

    @property
    def framing(self) -> Framing:
        analysis = self.features.compute_STFT
        return Framing(
            analysis.n_fft,
            analysis.hop_length,
            analysis.window,
            0 if analysis.center else analysis.n_fft // 2,
            self.features.compute_fbanks.f_central,
            self.band_range.width_db,
            analysis.pad_mode,
        )

    def decibels(self, wavs: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        levels: Tensor = self.features(wavs)
        return levels.transpose(1, 2)

    def frames(self, samples: Tensor) -> Tensor:
        analysis = self.features.compute_STFT
        whole = samples if analysis.center else samples - analysis.n_fft
        return 1 + torch.div(whole, analysis.hop_length, rounding_mode="floor")

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # frames in the padding are left as SpeechBrain leaves them, and counted as it counts them
        wavs, relative = _relative(wavs, lengths)
        x = self.band_range.to_unit(self.decibels(wavs, relative))
        return x, _frames(relative, x.shape[2])


class _Features(nn.Module):
    """Other features, without bounds: (B, N), (B,) samples → (B, F, T), (B,) frames."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def train(self, mode: bool = True) -> _Features:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wavs, relative = _relative(wavs, lengths)
        features = self.features(wavs)
        return features.transpose(1, 2), _frames(relative, features.shape[1])


def _relative(wavs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Zero the padding; return the waveforms and their lengths relative to the longest."""
    if wavs.dim() != 2:
        raise InputError(f"wavs have shape {tuple(wavs.shape)}, expected (batch, samples)")
    if lengths is None:
        return wavs, torch.ones(wavs.shape[0], device=wavs.device)
    return wavs * length_mask(lengths, wavs.shape[1]), lengths / wavs.shape[1]


def _frames(relative: Tensor, total: int) -> Tensor:
    return (relative * total - _LEAST).ceil().long().clamp(1, total)


class _Network(nn.Module):
    """Normalisation and embedding model: (B, F, T), (B,) frames → (B, D)."""

    def __init__(
        self,
        embedding_model: nn.Module,
        normalization: nn.Module,
        *,
        noisy: bool,
        band_range: BandRange | None,
        singly: bool,
    ) -> None:
        super().__init__()
        self.embedding_model = embedding_model
        self.normalization = normalization
        self.noisy = noisy
        self.band_range = band_range
        self.singly = singly
        self.observed = 0

    def train(self, mode: bool = True) -> _Network:
        super().train(mode)
        self.normalization.train(False)  # in training it learns from its input
        return self

    def tap_lengths(self, layer: str, lengths: Tensor) -> Tensor | None:  # noqa: ARG002
        # how other networks change the time axis is unknown
        return lengths if isinstance(self.embedding_model, _KNOWN_NETWORKS) else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        total = x.shape[2]
        # SpeechBrain's own padded batch remains where layers are observed: one tensor for all items
        singly = self.singly and not self.observed
        if lengths is not None and (singly or isinstance(self.embedding_model, ResNet.ResNet)):
            if bool((lengths < total).any()):
                rows = [self.forward(x[i : i + 1, :, : int(n)]) for i, n in enumerate(lengths)]
                return torch.cat(rows)
            lengths = None
        relative = torch.ones(x.shape[0], device=x.device)
        if lengths is not None:
            # subtracting a quarter gives the same number of frames, whether rounded up or to the
            # nearest, where a quotient that is slightly too large would give one frame more
            relative = torch.where(lengths < total, (lengths - 0.25) / total, relative)
        features = x.transpose(1, 2)
        if self.band_range is not None:
            features = self.band_range.to_decibels(features)
        features = self.normalization(features, relative)
        with _fixed_noise(x.device) if self.noisy and not self.training else nullcontext():
            embeddings: Tensor = self.embedding_model(features, relative)
        if embeddings.dim() not in (2, 3) or embeddings.shape[1:-1].numel() != 1:
            raise InputError(
                f"the embedding model returns {tuple(embeddings.shape)}, expected (batch, 1, size)"
            )
        return embeddings.flatten(1)


class _Head(nn.Module):
    """A classifier: (B, D) → (B, C)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, embeddings: Tensor) -> Tensor:
        scores: Tensor = self.classifier(embeddings[:, None])
        return scores.flatten(1)


@contextmanager
def _fixed_noise(device: torch.device) -> Iterator[None]:
    """Seed the device's global generator, and restore its state afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # not torch.manual_seed, which would also reseed devices whose state is not restored
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(_NOISE_SEED)
        else:
            torch.default_generator.manual_seed(_NOISE_SEED)
        yield


class SpeechBrainModel(InstrumentedModel):
    """An instrumented model around SpeechBrain's modules; ``instrument`` makes it.

    Layers are named as in ``embedding_model``. For ``ECAPA_TDNN`` and ``Xvector`` a tap holds
    (B, C, T), or (B, C) after the pooling, even if the layer returns its axes in another order; for
    other networks it holds what the layer returns, or what ``tap_axes`` of the network says.
    """

    @property
    def tapped(self) -> nn.Module:
        """Module by whose names layers are tapped."""
        network: nn.Module = self.network.embedding_model  # type: ignore[assignment]
        return network

    @property
    def arranges(self) -> bool:
        """Whether taps have their channels in axis 1 whatever the layer returns."""
        return isinstance(self.tapped, _KNOWN_NETWORKS)

    def original_modules(self) -> dict[str, nn.Module]:
        """Return SpeechBrain's modules, as its interfaces take them; they are shared."""
        front_end: Any = self.front_end
        network: Any = self.network
        modules: dict[str, nn.Module] = {
            "compute_features": front_end.features,
            "mean_var_norm": network.normalization,
            "embedding_model": network.embedding_model,
        }
        if isinstance(self.head, _Head):
            modules["classifier"] = self.head.classifier
        return modules

    @contextmanager
    def tap(self, *layers: str) -> Iterator[LayerTap]:
        """Record the outputs of layers; raises what ``tap_layers`` raises."""
        network = self.tapped
        if not self.arranges:
            axes: Any = getattr(self.network, "tap_axes", None)
            with tap_layers(network, layers, axes=axes, whole=self.network) as tap:
                yield tap
            return
        found = find_layers(network, layers)
        tap = LayerTap()
        handles = []
        whole: Any = self.network
        whole.observed += 1
        try:
            for layer, module in found.items():
                handles.append(module.register_forward_hook(_hook_for(tap, layer, network)))
            yield tap
        finally:
            whole.observed -= 1
            for handle in handles:
                handle.remove()


def _hook_for(tap: LayerTap, layer: str, network: nn.Module) -> Callable[..., Tensor | None]:
    """Return a forward hook that records a layer's output with its channels in axis 1."""

    def hook(module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if not torch.is_tensor(output):
            tap.record(layer, output)
            return None
        # SpeechBrain's x-vector passes (B, T, C), but its layers contain PyTorch's own
        swapped = isinstance(network, Xvector.Xvector) and not isinstance(
            module, nn.Conv1d | nn.BatchNorm1d
        )
        seen = output.transpose(1, 2) if swapped else output
        pooled = seen.shape[2] == 1
        seen = seen[:, :, 0] if pooled else seen
        tap.record(layer, seen)
        # the network continues from the recorded tensor, so that it gets a gradient; a copy,
        # because some layers work in place
        seen = (seen[:, :, None] if pooled else seen).clone()
        return seen.transpose(1, 2) if swapped else seen

    return hook


def instrument(
    encoder_classifier: Any,
    *,
    output_kind: OutputKind | None = None,
    scale: float | None = None,
    singly: bool = False,
) -> SpeechBrainModel:
    """Wrap an ``EncoderClassifier`` or ``SpeakerRecognition``; its modules are shared.

    Scores equal those of ``classify_batch`` for lengths relative to the longest item, also in
    padded batches; but where SpeechBrain's statistics pooling rounds the number of frames of a
    padded item down, here they are rounded up, as in all of its other layers. SpeechBrain's
    networks let a little padding influence the scores; so, unlike in this toolkit's own models, an
    item's scores depend on the rest of its batch. ``ResNet`` takes no account of lengths at all, so
    items of different lengths are embedded one by one, as if each were alone. All modules are in
    evaluation mode; the normalisation of features always stays in it. ``mean_var_norm_emb`` is not
    applied, since ``classify_batch`` and ``verify_batch`` do not apply it either.

    Where the features are the levels of ``Fbank``, the model's input is these levels, mapped to
    [0, 1] without clipping, and the network begins with their normalisation. Other features are the
    model's input as they are, without bounds; no purifier works on them.

    SpeechBrain's ``StatisticsPooling``, part of its ``Xvector``, adds noise from the global
    generator to the means, up to 9e-5, even in evaluation mode. Change rates and attacks need a
    deterministic function, so the generator is seeded while the network runs and restored
    afterwards: scores equal those of ``classify_batch`` after ``torch.manual_seed(0)``.

    Args:
        encoder_classifier: Interface whose ``mods`` are compute_features, mean_var_norm,
            embedding_model and, for models that classify, classifier; it takes waveforms in
            [-1, 1].
        output_kind: Kind of scores that the classifier returns. None recognises SpeechBrain's own:
            cosines for the ``Classifier`` of ECAPA-TDNN and ResNet; logits for linear layers and
            for x-vector's, whose log posteriors are logits as well.
        scale: Factor from cosines to logits. None is 30 for these two, as in SpeechBrain's recipes;
            other cosines need it. Without a classifier it is for the cosine heads that
            ``with_head`` gives the model, and None is 1.
        singly: Whether items of different lengths are embedded one by one, so that padding does
            not matter, whatever the network. Where layers are observed, ECAPA-TDNN and x-vector
            take the padded batch as in SpeechBrain.

    Raises:
        InputError: If modules are missing, labels are not numbered from 0, or the classifier is
            unknown and ``output_kind`` is not given.
    """
    mods: Mapping[str, nn.Module] = getattr(encoder_classifier, "mods", {})
    missing = [m for m in ("compute_features", "mean_var_norm", "embedding_model") if m not in mods]
    if missing:
        raise InputError(
            f"{type(encoder_classifier).__name__} lacks the modules {', '.join(missing)}; pass an "
            "EncoderClassifier or SpeakerRecognition of SpeechBrain's"
        )
    network = mods["embedding_model"]
    noisy = any(isinstance(module, StatisticsPooling) for module in network.modules())
    head = _Head(mods["classifier"]) if "classifier" in mods else None
    if head is not None:
        output_kind, scale = _meaning(head.classifier, output_kind, scale)
    features = mods["compute_features"]
    bands = _Bands(features) if _Bands.fits(features) else None
    return SpeechBrainModel(
        _Network(
            network,
            mods["mean_var_norm"],
            noisy=noisy,
            band_range=None if bands is None else bands.band_range,
            singly=singly,
        ),
        front_end=bands or _Features(features),
        head=head,
        output_kind=output_kind or "cosine",
        labels=() if head is None else _labels(encoder_classifier),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0) if bands else Bounds(-math.inf, math.inf),
        scale=1.0 if scale is None else scale,
    ).eval()


def _meaning(
    classifier: nn.Module, output_kind: OutputKind | None, scale: float | None
) -> tuple[OutputKind, float]:
    """Return kind and scale of a classifier's output, as given or known for SpeechBrain's own."""
    cosines = isinstance(classifier, ECAPA_TDNN.Classifier | ResNet.Classifier)
    if output_kind is None and cosines:
        output_kind = "cosine"
    elif output_kind is None and isinstance(classifier, Xvector.Classifier | Linear | nn.Linear):
        output_kind = "logits"
    if output_kind is None:
        raise InputError(
            f"what {type(classifier).__name__} returns is not known; pass output_kind='logits' "
            "(also for log posteriors), or output_kind='cosine' with its scale"
        )
    if scale is None and output_kind == "cosine" and not cosines:
        raise InputError(
            f"the scale that {type(classifier).__name__} was trained with is not known; pass scale="
        )
    if scale is None:
        scale = _COSINE_SCALE if output_kind == "cosine" else 1.0
    return output_kind, scale


def _labels(encoder_classifier: Any) -> tuple[str, ...]:
    encoder = getattr(getattr(encoder_classifier, "hparams", None), "label_encoder", None)
    names: Mapping[int, Any] = getattr(encoder, "ind2lab", {})
    if set(names) != set(range(len(names))):
        raise InputError(
            f"labels are numbered {min(names)}–{max(names)}, expected 0–{len(names) - 1}; give the "
            "label encoder one label per class"
        )
    return tuple(str(names[i]) for i in range(len(names)))
