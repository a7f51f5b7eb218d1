"""What one training step does, without training; tests/recipes trains."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch
from safetensors.torch import load
from torch import nn

from nip_audio.audio.features import LogMel
from nip_audio.errors import InputError
from nip_audio.models.audionet import AudioNet
from nip_audio.models.pretrained import load_pretrained
from nip_audio.training import training
from nip_audio.training.training import SpeakerBrain


@pytest.fixture
def brain():
    torch.manual_seed(0)
    options = {
        "compute_features": LogMel(n_mels=32),
        "adversarial_attack": "pgd",
        "adversarial_eps": 0.01,
        "adversarial_steps": 3,
        "adversarial_step_share": 0.4,
        "adversarial_share": 0.5,
        "scale": 1.0,
        "crop_s": 0.5,
        "sample_rate": 16000,
        "speeds": [100, 50],
        "augment_group": 2,
        "augmentations": [],
        "teacher": None,
        "triplet_weight": 0.0,
    }
    modules = {"embedding_model": AudioNet(), "classifier": nn.Linear(32, 3)}
    brain = SpeakerBrain(modules=modules, hparams=options)
    brain.modules.train()
    brain.speed_changers = [nn.Identity(), lambda x: x.repeat(1, 2)]
    return brain


def loss_of(brain, wavs, labels):
    # in evaluation mode, as the attack sees the network
    brain.modules.eval()
    features, frames = brain.hparams.compute_features(wavs)
    scores = brain.modules.classifier(brain.modules.embedding_model(features, frames))
    brain.modules.train()
    return nn.functional.cross_entropy(scores, labels, reduction="none")


def test_a_share_of_the_batch_becomes_adversarial_and_nothing_else_changes(brain):
    wavs, labels = 0.1 * torch.randn(4, 8000), torch.tensor([0, 1, 2, 0])
    before = {k: v.clone() for k, v in brain.modules.state_dict().items()}
    attacked = brain.attack(wavs, labels)
    change = (attacked - wavs).abs().amax(dim=1)
    assert change[:2].min() > 0.005
    assert change[:2].max() <= 0.01 + 1e-6
    assert change[2:].eq(0).all()
    worse = loss_of(brain, attacked, labels) - loss_of(brain, wavs, labels)
    assert worse[:2].min() > 0
    for name, value in brain.modules.state_dict().items():
        assert value.equal(before[name]), name  # running statistics too
    assert all(m.training for m in brain.modules.modules())
    assert all(p.requires_grad for p in brain.modules.parameters())


def test_no_attack_is_no_attack(brain):
    wavs = torch.randn(4, 8000)
    brain.hparams.adversarial_attack = None
    assert brain.attack(wavs, torch.zeros(4).long()) is wavs


def test_a_defence_sees_adversarial_crops_beside_their_originals_and_adds_to_the_loss(brain):
    seen = {}

    def defence(embed, wavs, benign, labels):
        seen.update(wavs=wavs, benign=benign, labels=labels)
        return embed(wavs), torch.tensor(5.0)

    brain.defence, brain.hparams.speeds, brain.hparams.n_speakers = defence, [100], 3
    brain.hparams.compute_cost = lambda scores, labels: scores.sum() * 0 + 1.0
    batch = SimpleNamespace(
        sig=(0.1 * torch.randn(4, 9000), torch.ones(4)),
        speaker=SimpleNamespace(data=torch.tensor([0, 1, 2, 0])),
        to=lambda device: batch,
    )
    scores = brain.compute_forward(batch, sb.Stage.TRAIN)
    assert brain.compute_objectives(scores, batch, sb.Stage.TRAIN).item() == 6.0
    assert len(seen["wavs"]) == 4
    change = (seen["wavs"][:2] - seen["benign"]).abs().amax(dim=1)
    assert len(change) == 2
    assert change.min() > 0.005
    assert change.max() <= 0.01 + 1e-6
    brain.correct = brain.seen = 0
    scores = brain.compute_forward(batch, sb.Stage.VALID)
    assert brain.compute_objectives(scores, batch, sb.Stage.VALID).item() == 1.0


def test_a_published_network_is_a_start_for_one_with_a_defence(monkeypatch):
    published, network = AudioNet(), AudioNet(defence="cas", n_classes=4)
    own = network.defences["5"].classifier.weight.clone()
    monkeypatch.setattr(
        training,
        "load_pretrained",
        lambda name: SimpleNamespace(model=SimpleNamespace(network=published)),
    )
    training._start_from("published", network, None, [])
    assert torch.equal(network.layers[3].conv.weight, published.layers[3].conv.weight)
    assert torch.equal(network.defences["5"].classifier.weight, own)
    with pytest.raises(InputError, match="the network of published does not fit"):
        training._start_from("published", AudioNet(24), None, [])


def test_a_published_classifier_is_a_start_for_one_of_the_same_speakers():
    card = load_pretrained("audionet-libri251").card
    labels = list(card.labels)
    network, classifier = AudioNet(), torch.nn.Linear(32, 251)
    training._start_from("audionet-libri251", network, classifier, labels)
    assert torch.equal(classifier.weight, load(card.read("classifier.safetensors"))["weight"])
    with pytest.raises(InputError, match="are not the 251 of the train role"):
        training._start_from("audionet-libri251", network, classifier, labels[::-1])
    with pytest.raises(InputError, match=r"pass --speeds=\[100\]"):
        training._start_from("audionet-libri251", network, torch.nn.Linear(32, 502), labels)


def test_each_group_has_one_speed_and_crops_are_cut(brain):
    brain.hparams.augmentations = [lambda x, lengths: (3 * x, lengths)]
    seen = set()
    for _ in range(20):
        wavs, speed = brain.augment(torch.full((4, 9000), 0.2))
        assert wavs.shape == (4, 8000)
        assert wavs.allclose(torch.tensor(0.6))
        assert speed[0] == speed[1]
        assert speed[2] == speed[3]
        seen.add(tuple(speed.tolist()))
    assert len(seen) == 4
    loud, _ = brain.augment(torch.ones(4, 9000))
    assert loud.max() == 1  # clipped to what a waveform can be


def test_a_speaker_at_another_speed_is_another_class(brain):
    brain.hparams.n_speakers, brain.hparams.adversarial_attack = 30, None
    brain.hparams.augment_group = 4
    brain.modules.classifier = nn.Linear(32, 60)
    batch = SimpleNamespace(
        sig=(0.1 * torch.randn(4, 9000), torch.ones(4)),
        speaker=SimpleNamespace(data=torch.tensor([0, 1, 2, 3])),
        to=lambda device: batch,
    )
    seen = set()
    for _ in range(12):
        scores = brain.compute_forward(batch, sb.Stage.TRAIN)
        assert scores.shape == (4, 1, 60)
        seen.add(tuple(brain.labels.tolist()))
    assert seen == {(0, 1, 2, 3), (30, 31, 32, 33)}
    brain.compute_forward(batch, sb.Stage.VALID)
    assert brain.labels.tolist() == [0, 1, 2, 3]


def test_a_short_recording_is_repeated_and_a_crop_of_it_begins_anywhere():
    sig = torch.arange(3.0)
    assert training.repeated(sig, 3) is sig
    whole = training.repeated(sig, 4)
    assert whole.tolist() == [0, 1, 2, 0, 1, 2]
    plain = {"overlap_share": 0.0, "reversal_share": 0.0}
    assert training.scramble(whole, 2, 4, plain).tolist() == [2, 0, 1, 2]
