"""Use pretrained directories with SpeechBrain's ``EncoderClassifier`` and ``SpeakerRecognition``.

There are two ways. ``EncoderClassifier.from_hparams(source=directory)`` reads the section that
``speechbrain_section`` adds to ``hyperparams.yaml``. It builds and runs whatever that YAML names,
so the directory must be trusted; ``load_pretrained`` does not check this section, because it skips
it. For directories from strangers use ``as_encoder_classifier(load_pretrained(directory))``, where
only this toolkit's own loader reads the directory.

``from_hparams`` does not modify the directory. With ``savedir`` it makes links there under the
files' names and keeps files that exist, so give every model a ``savedir`` of its own.

Published directories refer to the classes of this module, so that neither their names nor their
arguments can change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from nip_audio.core.adapter import length_mask
from nip_audio.errors import InputError, ModelCardError
from nip_audio.models.cards import CARD_NAME, read_card
from nip_audio.models.pretrained import PretrainedModel, load_weights
from nip_audio.models.sources.speechbrain_modules import SpeechBrainModel

__all__ = [
    "Embedding",
    "Features",
    "NoNormalization",
    "SafetensorsPretrainer",
    "Scores",
    "as_encoder_classifier",
    "load_labels",
    "load_safetensors",
    "parts_for_speechbrain",
    "speechbrain_section",
]

_PARTS = ("compute_features", "embedding_model", "classifier")
# relative lengths are float32: a product that should be whole may be a little smaller
_ROUNDING = 1 + 5e-7


class Features(nn.Module):
    """A front end with SpeechBrain's interface: waveforms (B, N) to features (B, T, F).

    SpeechBrain passes no lengths, so samples beyond an item's end must be zero.
    """

    def __init__(self, front_end: nn.Module) -> None:
        """Wrap a front end of this toolkit, e.g. ``LogMel``."""
        super().__init__()
        self.front_end = front_end

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute features (B, T, F); (B, T, 2, F) of complex spectra."""
        features: Tensor = self.front_end(wavs)[0]
        return features.movedim(-1, 1)


class NoNormalization(nn.Module):
    """SpeechBrain's ``mean_var_norm`` for models without normalisation."""

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features unchanged."""
        return features


class Embedding(nn.Module):
    """A network with SpeechBrain's interface: features (B, T, F), relative lengths → (B, 1, D).

    An item of n out of N samples has 1 + n // hop frames, but only n / N and T = 1 + N // hop are
    known here. N is taken as (T - 1) · hop. That is exact if N is a multiple of the hop; otherwise
    up to one frame of an item shorter than N is left out. Padding is never included, and items
    without padding are always exact.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network that is called as ``network(x, lengths)`` with (B, F, T) and (B,)."""
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features, (B, 1, D)."""
        x = features.movedim(1, -1)
        if lengths is None:
            lengths = torch.ones(x.shape[0], device=x.device)
        steps = x.shape[-1] - 1
        frames = 1 + (lengths * (steps * _ROUNDING)).floor().long().clamp(0, steps)
        # zero the padding as the toolkit's front end does; SpeechBrain passes no item lengths there
        mask = length_mask(frames, x.shape[-1]).reshape(len(x), *[1] * (x.dim() - 2), -1)
        embeddings: Tensor = self.network(x * mask, frames)
        return embeddings[:, None]


class Scores(nn.Module):
    """A head with SpeechBrain's interface: embeddings (B, 1, D) to scores (B, 1, C)."""

    def __init__(self, head: nn.Module) -> None:
        """Wrap a head from (B, D) to (B, C)."""
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score embeddings, (B, 1, C)."""
        scores: Tensor = self.head(embeddings.squeeze(1))
        return scores[:, None]


def load_safetensors(module: nn.Module, path: str | Path) -> None:
    """Load weights after checking them against the ``model_card.json`` beside them.

    This is a hook of SpeechBrain's ``Pretrainer``.

    Raises:
        ModelCardError: If the card or the file is missing, or does not fit the module.
        HashMismatchError: If the file differs from the card; nothing is loaded then.
    """
    path = Path(path)
    load_weights(module, read_card(path.parent).read(path.name), path)


def load_labels(encoder: CategoricalEncoder, path: str | Path) -> None:
    """Fill an encoder with the labels of a ``model_card.json``; a hook of ``Pretrainer``.

    Raises:
        ModelCardError: If the card is missing or malformed, or has a label twice.
    """
    _add_labels(encoder, read_card(Path(path).parent).labels)


def _add_labels(encoder: CategoricalEncoder, labels: Sequence[str]) -> None:
    try:
        for label in labels:
            encoder.add_label(label)
    except KeyError as err:
        raise ModelCardError(f"a label is given twice ({err}); restore the card") from err
    encoder.expect_len(len(labels))


class SafetensorsPretrainer(Pretrainer):  # type: ignore[misc]
    """SpeechBrain's ``Pretrainer`` for directories without ``.ckpt`` files.

    SpeechBrain looks for ``<name>.ckpt`` and unpickles it, and its relative ``paths`` start at the
    working directory. This class takes ``<name>.safetensors`` and, for label encoders,
    ``model_card.json`` from the place of the YAML. Collected files keep their names.

    Args:
        loadables: Modules and label encoders to fill, by name.
    """

    def __init__(self, loadables: dict[str, Any]) -> None:
        """Register a hook for each loadable."""
        hooks = {name: _hook_for(part) for name, part in loadables.items()}
        super().__init__(loadables=loadables, custom_hooks=hooks)

    def collect_files(
        self,
        default_source: Any = None,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig | None = None,
    ) -> dict[str, Path]:
        """Fetch the card and each loadable's file; SpeechBrain's interfaces call this.

        Args:
            default_source: Folder or repository of the files.
            local_strategy: Way to put files into the folder to collect in, if there is one.
            fetch_config: Settings of downloads.

        Raises:
            InputError: If there is no source.
        """
        if default_source is None:
            raise InputError("there is no source to collect from; pass default_source")

        def collect(name: str) -> Path:
            found: Path = fetch(
                name,
                default_source,
                savedir=self.collect_in,
                local_strategy=local_strategy,
                fetch_config=FetchConfig() if fetch_config is None else fetch_config,
            )
            return found

        card = collect(CARD_NAME)
        found = {
            name: card if hook is load_labels else collect(f"{name}.safetensors")
            for name, hook in self.custom_hooks.items()
        }
        self.paths.update({name: str(path) for name, path in found.items()})
        self.is_local.extend(found)
        return found


def _hook_for(part: Any) -> Any:
    return load_labels if isinstance(part, CategoricalEncoder) else load_safetensors


def speechbrain_section(part_names: Sequence[str] = _PARTS) -> str:
    """Return the YAML that a publisher appends to ``hyperparams.yaml`` for ``from_hparams``.

    Args:
        part_names: Top-level keys of the YAML: ``compute_features``, ``embedding_model`` and, for
            models that classify, ``classifier``. The front end must have ``sample_rate_hz``.

    Raises:
        InputError: If a part is missing or unknown.

    Example:
        >>> "label_encoder" in speechbrain_section(["compute_features", "embedding_model"])
        False
    """
    names = set(part_names)
    if not set(_PARTS[:2]) <= names <= set(_PARTS):
        raise InputError(f"got parts {sorted(names)}, expected {_PARTS}; the last may be left out")
    here = __name__
    # block style throughout, since references to objects break inside [...] and {...}
    lines = [
        "# For SpeechBrain's EncoderClassifier.from_hparams and SpeakerRecognition.from_hparams;",
        "# nip-audio itself never builds what follows.",
        "modules:",
        f"  compute_features: !new:{here}.Features",
        "    front_end: !ref <compute_features>",
        f"  mean_var_norm: !new:{here}.NoNormalization",
        f"  embedding_model: !new:{here}.Embedding",
        "    network: !ref <embedding_model>",
    ]
    loadables = ["    embedding_model: !ref <embedding_model>"]
    if "classifier" in names:
        lines += [
            "  classifier: !ref <classifier>",
            "label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder",
        ]
        loadables += [
            "    classifier: !ref <classifier>",
            "    label_encoder: !ref <label_encoder>",
        ]
    lines += [
        "audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer",
        "  sample_rate: !ref <compute_features.sample_rate_hz>",
        f"pretrainer: !new:{here}.SafetensorsPretrainer",
        "  loadables:",
        *loadables,
    ]
    return "\n".join(lines) + "\n"


def as_encoder_classifier(pretrained: PretrainedModel) -> SpeakerRecognition:
    """Return a loaded model as SpeechBrain's ``SpeakerRecognition`` (an ``EncoderClassifier``).

    No YAML is read, so unlike ``from_hparams`` this is safe for models from strangers. The modules
    are shared with ``pretrained``. Without a head the result embeds and verifies, but does not
    classify.

    Raises:
        InputError: If the model does not take waveforms.
    """
    modules, hparams = parts_for_speechbrain(pretrained)
    device = next(pretrained.model.parameters()).device
    return SpeakerRecognition(modules=modules, hparams=hparams, run_opts={"device": str(device)})


def parts_for_speechbrain(
    pretrained: PretrainedModel,
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return modules and hparams for SpeechBrain's interfaces; see ``as_encoder_classifier``."""
    model = pretrained.model
    hparams: dict[str, Any] = {"audio_normalizer": AudioNormalizer(pretrained.card.sample_rate_hz)}
    if model.labels:
        hparams["label_encoder"] = CategoricalEncoder()
        _add_labels(hparams["label_encoder"], model.labels)
    if isinstance(model, SpeechBrainModel):
        return model.original_modules(), hparams
    if model.front_end is None:
        raise InputError("the model has no front end, but SpeechBrain gives waveforms; add one")
    modules: dict[str, nn.Module] = {
        "compute_features": Features(model.front_end),
        "mean_var_norm": NoNormalization(),
        "embedding_model": Embedding(model.network),
    }
    if model.head is not None:
        modules["classifier"] = Scores(model.head)
    return modules, hparams
