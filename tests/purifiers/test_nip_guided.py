from __future__ import annotations

import inspect

import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import HashMismatchError, InputError, StateError
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip

UNIT = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def purifier(noise: float = 0.0, *, channels: int = 1, snr_db: float | None = None) -> GuidedNip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = InverseNet(channels, width=4)
        torch.nn.init.normal_(net.out.weight, std=0.3)
    return GuidedNip(
        net.eval().requires_grad_(False),
        bounds=UNIT,
        noise=noise,
        snr_db=snr_db,
        raw_bounds=None if snr_db is None else Bounds(-1.0, 1.0),
        seen={"b", "a"},
        training={},
    )


@pytest.fixture
def batch() -> Batch:
    return Batch.collate([torch.rand(8, n, generator=seeded(n)) for n in (12, 7)])


def test_it_adds_what_the_network_predicts_and_clips(batch):
    guided = purifier()
    found = guided.purify(batch, generator=seeded())
    expected = (batch.x + guided.net(batch.x[:, None], batch.lengths)[:, 0]).clamp(0, 1)
    assert torch.equal(found.x, expected)
    assert not torch.equal(found.x, batch.x)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_bounds_and_padding(batch, noise):
    x = batch.x.clone()
    junk = x.clone()
    junk[1, :, 7:] = 0.9
    found = purifier(noise).purify(batch.with_x(junk), generator=seeded())
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert not found.x[1, :, 7:].any()
    assert torch.equal(junk[:, :, :7], x[:, :, :7])


def test_noise_is_drawn_anew_from_the_generator(batch):
    guided = purifier(0.05)
    first, second = (guided.purify(batch, generator=g).x for g in (seeded(1), seeded(2)))
    assert guided.random
    assert not torch.equal(first, second)
    assert torch.equal(first, guided.purify(batch, generator=seeded(1)).x)
    assert not purifier().random


def test_gradients_flow_to_the_input(batch):
    x = batch.x.clone().requires_grad_(True)
    found = purifier().purify(batch.with_x(x), generator=seeded()).x
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.isfinite().all()
    assert gradient[0].ne(0).any()


def test_pictures_pass_with_their_channels():
    picture = Batch(torch.rand(2, 3, 9, 10))
    assert purifier(channels=3).purify(picture, generator=seeded()).x.shape == (2, 3, 9, 10)


def test_double_precision_stays(batch):
    found = purifier().purify(batch.with_x(batch.x.double()), generator=seeded())
    assert found.x.dtype == torch.float64


def test_it_is_what_it_was_after_a_file(batch, tmp_path):
    guided = purifier(0.02)
    guided.save(tmp_path / "p", model_id="m")
    loaded = GuidedNip.load(tmp_path / "p", model_id="m")
    assert loaded.seen == {"a", "b"}
    assert loaded.noise == 0.02
    before, after = (p.purify(batch, generator=seeded()).x for p in (guided, loaded))
    assert torch.allclose(before, after, atol=2e-3)  # weights are stored as 16-bit floats
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_a_file_of_another_model_is_refused(tmp_path):
    purifier().save(tmp_path / "p", model_id="m")
    with pytest.raises(StateError, match="was made for model m"):
        GuidedNip.load(tmp_path / "p", model_id="other")


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "p"
    purifier().save(path, model_id="m")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(HashMismatchError, match="changed"):
        GuidedNip.load(path, model_id="m")


def test_names_and_settings_tell_purifiers_apart():
    plain, noisy = purifier(), purifier(0.1)
    adaptive = GuidedNip(plain.net, bounds=UNIT, training={"adaptive_share": 0.5})
    assert [p.name for p in (plain, noisy, adaptive)] == [
        "guided",
        "guided + noise 0.1",
        "guided + adaptive",
    ]
    other = purifier()
    other.net.out.bias.data += 1
    assert plain.settings() != other.settings()
    assert plain.settings() != noisy.settings()


def test_noise_in_raw_input_survives_the_file(tmp_path):
    path = tmp_path / "p"
    purifier(snr_db=12.0).save(path, model_id="m")
    loaded = GuidedNip.load(path, model_id="m")
    assert loaded.random
    assert loaded.name == "guided + noise 12 dB"
    assert loaded.settings()["snr_db"] == 12
    assert loaded.before is not None
    assert loaded.before.bounds == Bounds(-1.0, 1.0)


def test_noise_in_raw_input_needs_its_bounds():
    with pytest.raises(InputError, match="expected both or neither"):
        GuidedNip(InverseNet(width=2), bounds=UNIT, snr_db=12)


def test_senseless_noise_is_refused():
    with pytest.raises(InputError, match="expected 0 to 0.5"):
        GuidedNip(InverseNet(width=2), bounds=UNIT, noise=8)


def test_it_is_given_no_label_and_no_original():
    assert list(inspect.signature(GuidedNip.purify).parameters) == ["self", "batch", "generator"]
