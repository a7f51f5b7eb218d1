"""Set up all baseline detectors for one system."""

from __future__ import annotations

from collections.abc import Sequence

from nip_audio.audio.meh_fest import MehFest
from nip_audio.core.adapter import Bounds
from nip_audio.core.nccr import NccrConfig
from nip_audio.detectors.base import Measure
from nip_audio.detectors.baselines.attack_cost import AttackCost
from nip_audio.detectors.baselines.coverage import BoundaryCoverage, NeuronCoverage
from nip_audio.detectors.baselines.dissector import Dissector
from nip_audio.detectors.baselines.feature_squeezing import FeatureSqueezing
from nip_audio.detectors.baselines.intrinsic_dimension import IntrinsicDimension
from nip_audio.detectors.baselines.mahalanobis import ActivationMahalanobis
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.detectors.baselines.score_change import ScoreChange
from nip_audio.detectors.baselines.transform_difference import TransformDifference
from nip_audio.purifiers.codec import Codec
from nip_audio.purifiers.down_sampling import DownSampling
from nip_audio.purifiers.median_filter import MedianFilter
from nip_audio.purifiers.quantization import Quantization
from studies.nccr.vocoders import GriffinLim, MelInversion

__all__ = ["baseline_detectors"]

_VOCODER = "Wu et al., ICASSP 2022 (score before − score after resynthesis)"
_CODEC = "Rajaratnam et al., ROCLING 2018 (answers before and after compression)"


def baseline_detectors(
    layers: Sequence[str], config: NccrConfig, *, sample_rate_hz: int
) -> tuple[Measure, ...]:
    """Return the detectors that NCCR is compared with, none of them fitted.

    Args:
        layers: Tapped layers, in the order in which the model runs them.
        config: Settings of NCCR, whose noise is also used for |Δscore|.
        sample_rate_hz: Sample rate of the waveforms that the model takes.

    Example:
        >>> from nip_audio.core.noise import Noise
        >>> config = NccrConfig(("pool",), (Noise("gaussian", "raw", 0.002),))
        >>> [d.passes for d in baseline_detectors(["pool"], config, sample_rate_hz=16000)][:3]
        [5, 0, 2]
    """
    rate, bounds = sample_rate_hz, Bounds(-1.0, 1.0)
    squeezers = (
        Quantization(bits=8, level="raw", bounds=bounds),
        MedianFilter(kernel=3, bounds=bounds),
        # half the rate removes more of a voice than any attack adds
        DownSampling(rate_hz=rate * 7 // 800 * 100, sample_rate_hz=rate, bounds=bounds),
    )
    vocoders = (
        GriffinLim(sample_rate_hz=rate, bounds=bounds),
        MelInversion(sample_rate_hz=rate, bounds=bounds),
    )
    codecs = (
        Codec(codec="mp3", sample_rate_hz=rate, bounds=bounds),
        Codec(codec="vorbis", compression_level=0.8, sample_rate_hz=rate, bounds=bounds),
    )
    return (
        ScoreChange(config),
        MehFest(sample_rate_hz=rate),
        *(TransformDifference(f"resynthesis: {v.name}", _VOCODER, v) for v in vocoders),
        FeatureSqueezing(squeezers),
        LabelChangeRate(),
        NeuronCoverage(layers),
        BoundaryCoverage(layers),
        Dissector(layers),
        AttackCost(),
        *(TransformDifference(f"codec difference: {c.name}", _CODEC, c) for c in codecs),
        ActivationMahalanobis(layers),
        IntrinsicDimension(layers),
    )
