from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import median_filter
from sklearn.decomposition import sparse_encode

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers.bicubic import Bicubic
from nip_audio.purifiers.feature_distillation import FeatureDistillation
from nip_audio.purifiers.jpeg import Jpeg
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.quantization import Quantization
from nip_audio.purifiers.spatial_smoothing import SpatialSmoothing
from nip_audio.purifiers.variance_minimisation import TotalVarianceMinimisation

SPECTROGRAM = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def purified(purifier, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return purifier.purify(Batch(x), generator=seeded(seed)).x


def slopes(items: int = 2, rows: int = 24, columns: int = 40) -> torch.Tensor:
    """Smooth surfaces without noise."""
    f, t = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    waves = [0.5 + 0.2 * torch.sin(3 * f + 2 * t + i) + 0.1 * t for i in range(items)]
    return torch.stack(waves)


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.fixture(scope="module")
def smooth_patches() -> PatchDictionary:
    return PatchDictionary.fit(
        [Batch(slopes(6))], bounds=SPECTROGRAM, generator=seeded(), patch=6, atoms=12, nonzero=2
    )


SMOOTHING = [
    SpatialSmoothing(kernel=3, bounds=SPECTROGRAM),
    Bicubic(factor=2, bounds=SPECTROGRAM),
    TotalVarianceMinimisation(keep=0.5, weight=0.03, bounds=SPECTROGRAM),
]


@pytest.mark.parametrize("purifier", SMOOTHING, ids=lambda p: p.name)
def test_the_smooth_stays_and_noise_goes(purifier):
    clean = slopes()
    noise = 0.04 * torch.randn(clean.shape, generator=seeded(1))
    assert rms(purified(purifier, clean) - clean) < 0.02
    assert rms(purified(purifier, clean + noise) - clean) < 0.75 * rms(noise)


def test_a_lone_spike_is_smoothed_away():
    x = torch.full((1, 5, 6), 0.25)
    x[0, 2, 3] = 1.0
    out = purified(SpatialSmoothing(kernel=3, bounds=SPECTROGRAM), x)
    assert torch.equal(out, torch.full_like(x, 0.25))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_smoothing_is_scipys(kernel):
    x = torch.rand(2, 7, 9, generator=seeded())
    out = purified(SpatialSmoothing(kernel=kernel, bounds=SPECTROGRAM), x)
    expected = median_filter(x.numpy(), size=(1, kernel, kernel), mode="reflect")
    assert np.array_equal(out.numpy(), expected)


def test_bit_depth_has_its_levels():
    x = torch.tensor([[[0.0, 0.16, 0.17, 0.49, 0.51, 1.0]]])
    out = purified(Quantization(bits=2, level="input", bounds=SPECTROGRAM), x)
    torch.testing.assert_close(out, torch.tensor([[[0.0, 0.0, 1 / 3, 1 / 3, 2 / 3, 1.0]]]))
    shifted = purified(Quantization(bits=1, level="input", bounds=Bounds(-2.0, 2.0)), 4 * x - 2)
    assert shifted.flatten().tolist() == [-2.0, -2.0, -2.0, -2.0, 2.0, 2.0]


def test_bicubic_keeps_nothing_finer_than_it():
    checkers = (torch.arange(24)[:, None] + torch.arange(40)[None]).remainder(2).float()[None]
    out = purified(Bicubic(factor=2, bounds=SPECTROGRAM), checkers)
    assert rms(out[:, 4:-4, 4:-4] - 0.5) < 0.01


def test_variance_minimisation_does_not_look_at_what_it_drops(spectrograms):
    tvm = TotalVarianceMinimisation(keep=0.3, steps=30, bounds=SPECTROGRAM)
    x = spectrograms()
    kept = torch.rand(x.shape, generator=seeded(4)) < 0.3
    other = torch.where(kept, x, 1 - x)
    assert torch.equal(purified(tvm, x, 4), purified(tvm, other, 4))


def test_variance_minimisation_solves_two_pixels():
    """½(z₁−a)² + ½(z₂−b)² + w|z₁−z₂| moves both by w towards each other, or to their mean."""
    for weight, expected in ((0.1, [0.3, 0.7]), (5.0, [0.5, 0.5])):
        tvm = TotalVarianceMinimisation(keep=1.0, weight=weight, steps=500, bounds=SPECTROGRAM)
        out = purified(tvm, torch.tensor([[[0.2, 0.8]]], dtype=torch.float64))
        torch.testing.assert_close(out[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_variance_minimisation_has_converged_by_default(spectrograms):
    x = spectrograms()
    long = TotalVarianceMinimisation(steps=1000, bounds=SPECTROGRAM)
    assert (
        rms(purified(TotalVarianceMinimisation(bounds=SPECTROGRAM), x) - purified(long, x)) < 3e-3
    )


def test_jpeg_is_jpeg(spectrograms):
    x = spectrograms(1, columns=33)
    levels = (x[0] * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="jpeg", quality=40)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()) / 255
    out = purified(Jpeg(quality=40, bounds=SPECTROGRAM), x)
    torch.testing.assert_close(out[0], expected)


def test_jpeg_takes_other_ranges_and_colours(spectrograms):
    x = torch.stack([spectrograms(1, seed=s)[0] for s in range(3)])[None]
    unit = purified(Jpeg(bounds=SPECTROGRAM), x)
    wide = purified(Jpeg(bounds=Bounds(-3.0, 1.0)), 4 * x - 3)
    torch.testing.assert_close(wide, 4 * unit - 3, rtol=0, atol=0.02)
    grey = purified(Jpeg(bounds=SPECTROGRAM), x[0])
    assert not torch.equal(unit[0], grey)  # three channels share their colours
    best = Jpeg(quality=95, bounds=SPECTROGRAM)
    worst = Jpeg(quality=5, bounds=SPECTROGRAM)
    assert rms(purified(best, x) - x) < rms(unit - x) < rms(purified(worst, x) - x)


def test_jpeg_files_have_an_end():
    with pytest.raises(InputError, match="input has 65501 columns, expected at most 65500; cut it"):
        Jpeg(bounds=SPECTROGRAM).purify(Batch(torch.zeros(1, 2, 65501)), generator=seeded())


def test_distillation_rounds_the_cosine_transform(spectrograms):
    x = spectrograms(1, rows=16, columns=24, seed=8)
    out = purified(FeatureDistillation(fine_step=20, coarse_step=40, bounds=SPECTROGRAM), x)
    table = np.full((8, 8), 40.0)
    table[:4, :4] = 20.0
    for row, column in ((0, 0), (8, 8), (8, 16)):
        cut = np.s_[row : row + 8, column : column + 8]
        given = dctn(255 * x[0].double().numpy()[cut], norm="ortho")
        got = dctn(255 * out[0].double().numpy()[cut], norm="ortho")
        np.testing.assert_allclose(got, np.round(given / table) * table, atol=1e-2)


def test_distillation_drops_a_faint_pattern_and_keeps_a_slope():
    levels = torch.full((1, 8, 16), 125.0)  # 40 of the steps of 25 a block's mean is rounded to
    checkers = (torch.arange(8)[:, None] + torch.arange(16)[None]).remainder(2) * 3.0 - 1.5
    distillation = FeatureDistillation(bounds=SPECTROGRAM)
    out = purified(distillation, (levels + checkers) / 255)
    torch.testing.assert_close(out, levels / 255)
    assert rms(purified(distillation, slopes()) - slopes()) < 0.015


def test_patch_dictionary_knows_what_it_was_shown(smooth_patches):
    clean = slopes(8)[6:]
    noise = 0.04 * torch.randn(clean.shape, generator=seeded(1))
    assert rms(purified(smooth_patches, clean) - clean) < 0.005
    assert rms(purified(smooth_patches, clean + noise) - clean) < 0.6 * rms(noise)
    flat = torch.full((1, 9, 5), 0.3)
    torch.testing.assert_close(purified(smooth_patches, flat), flat)


def test_patch_dictionary_rebuilds_from_its_atoms():
    """With one atom, a patch becomes its mean plus its share of the atom."""
    atom = torch.tensor([[0.5, -0.5], [0.5, -0.5]])
    patches = PatchDictionary(dictionary=atom.reshape(1, 4), nonzero=1, bounds=SPECTROGRAM)
    x = 0.5 + 0.2 * atom + 0.1 * torch.tensor([[0.5, 0.5], [-0.5, -0.5]])
    torch.testing.assert_close(purified(patches, x[None])[0], 0.5 + 0.2 * atom)


def test_patch_dictionary_pursues_as_scikit_learn_does(patches, spectrograms):
    x = spectrograms(1, rows=4, columns=4)  # one patch
    centred = (x[0] - x[0].mean()).reshape(1, 16).double().numpy()
    atoms = patches.dictionary.double().numpy()
    codes = sparse_encode(centred, atoms, algorithm="omp", n_nonzero_coefs=3)
    expected = torch.from_numpy((codes @ atoms).reshape(4, 4)).float() + x[0].mean()
    torch.testing.assert_close(purified(patches, x)[0], SPECTROGRAM.clip(expected))


def test_patch_dictionary_is_fitted_reproducibly(patches, spectrograms):
    def fit(seed: int) -> PatchDictionary:
        batch = Batch(spectrograms(), torch.tensor([37, 11]))
        return PatchDictionary.fit(
            iter([batch]),
            bounds=SPECTROGRAM,
            generator=seeded(seed),
            patch=4,
            atoms=5,
            nonzero=2,
            patches_per_item=50,
        )

    one = fit(1)
    assert fit(1).settings() == one.settings() != fit(2).settings()
    assert one.seen == frozenset()
    assert patches.seen == {"a", "b"}
    torch.testing.assert_close(patches.dictionary.norm(dim=1), torch.ones(16))


def test_patch_dictionary_needs_more_than_silence():
    silence = [Batch(torch.zeros(1, 20, 30))]
    with pytest.raises(InputError, match="got 0 patches that are not flat for 128 atoms"):
        PatchDictionary.fit(silence, bounds=SPECTROGRAM, generator=seeded())


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (SpatialSmoothing, {"kernel": 1}, "kernel is 1, expected 2 to 15"),
        (Quantization, {"level": "both"}, "level is 'both', expected 'raw' or 'input'"),
        (Quantization, {"bits": 4.0}, "bits is 4.0, expected 1 to 16, a whole number; 8 is usual"),
        (Bicubic, {"factor": 1}, "factor is 1, expected 2 to 8"),
        (TotalVarianceMinimisation, {"keep": 0.0}, "keep is 0.0, expected 0.05 to 1"),
        (TotalVarianceMinimisation, {"weight": -1.0}, "weight is -1.0, expected 0 to 10"),
        (TotalVarianceMinimisation, {"steps": 0}, "steps is 0, expected 1 to 10000"),
        (Jpeg, {"quality": 96}, "quality is 96, expected 1 to 95"),
        (FeatureDistillation, {"fine_step": 0}, "fine_step is 0, expected 1 to 255"),
        (FeatureDistillation, {"fine_step": 31}, "fine_step is 31, expected at most coarse_step ="),
        (PatchDictionary, {"dictionary": torch.ones(3, 7)}, r"has shape \(3, 7\)"),
        (
            PatchDictionary,
            {"dictionary": torch.ones(3, 16), "nonzero": 4},
            "nonzero is 4, expected 1 to 3",
        ),
    ],
)
def test_senseless_settings_are_errors(kind, settings, match):
    with pytest.raises(InputError, match=match):
        kind(bounds=SPECTROGRAM, **settings)


@pytest.mark.parametrize("setting", ["patch", "atoms", "nonzero", "patches_per_item"])
def test_senseless_fits_are_errors(setting):
    with pytest.raises(InputError, match=f"{setting} is 0, expected"):
        PatchDictionary.fit([], bounds=SPECTROGRAM, generator=seeded(), **{setting: 0})


@pytest.mark.parametrize(
    "purifier",
    [*SMOOTHING, Jpeg(bounds=SPECTROGRAM), FeatureDistillation(bounds=SPECTROGRAM)],
    ids=lambda p: p.name,
)
def test_images_are_needed(purifier):
    with pytest.raises(InputError, match="expected spectrograms"):
        purifier.purify(Batch(torch.zeros(2, 30)), generator=seeded())
