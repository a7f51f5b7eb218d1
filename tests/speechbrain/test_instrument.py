"""SpeechBrain's own networks as instrumented models: scores, labels, padding."""

from __future__ import annotations

import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import CosineHead
from nip_audio.errors import InputError
from nip_audio.models.sources.speechbrain_modules import SpeechBrainModel, instrument
from tests.tolerance import assert_same_but_for_rounding, depth_of

pytestmark = pytest.mark.usefixtures("own_global_generator")

LABELS = ("ann", "bob", "cyd", "dee")


def test_scores_are_those_of_classify_batch(make_speechbrain, waveforms, kind):
    theirs = make_speechbrain(kind)
    model = instrument(theirs)
    torch.manual_seed(0)
    scores, _, index, labels = theirs.classify_batch(waveforms(5))
    batch = Batch(waveforms(5))
    assert_same_but_for_rounding(model.scores(batch), scores, depth=depth_of(model))
    assert [model.labels[i] for i in model.predict(batch)] == labels
    assert torch.equal(model.predict(batch), index)
    torch.manual_seed(0)
    embeddings = theirs.encode_batch(batch.x)[:, 0]
    assert_same_but_for_rounding(model.embed(batch), embeddings, depth=depth_of(model))
    assert scores.std(dim=0).max() > 1e-3


def relative_lengths(model: SpeechBrainModel, batch: Batch, kind: str) -> Tensor:
    """Lengths for SpeechBrain. Its statistics pooling rounds frames down half of the time, while
    its normalisation rounds them up, as the model does; at the end of a frame they agree."""
    assert batch.lengths is not None
    if kind == "ecapa":
        return batch.lengths / batch.x.shape[1]
    inputs = model.to_input(batch)
    assert inputs.lengths is not None
    return ((inputs.lengths - 0.25) / inputs.x.shape[2]).clamp(max=1)


def test_a_padded_batch_scores_as_speechbrains_batch_does(make_speechbrain, padded, kind):
    theirs = make_speechbrain(kind)
    batch = padded
    model = instrument(theirs)
    torch.manual_seed(0)
    scores = theirs.classify_batch(batch.x, relative_lengths(model, batch, kind))[0]
    assert_same_but_for_rounding(model.scores(batch), scores, depth=depth_of(model))


def test_what_stands_in_the_padding_does_not_matter(make_speechbrain, padded, kind):
    model = instrument(make_speechbrain(kind))
    batch = padded
    junk = torch.where(batch.masked() == 0, torch.full_like(batch.x, 0.5), batch.x)
    torch.testing.assert_close(model.scores(batch.with_x(junk)), model.scores(batch))


@pytest.mark.parametrize("longest", range(7800, 8300, 50))
def test_every_length_gives_speechbrains_frames(make_speechbrain, waveforms, kind, longest):
    theirs = make_speechbrain(kind)
    model = instrument(theirs)
    lengths = torch.tensor([longest, *range(2000, 7000, 333)])
    batch = Batch(waveforms(1, longest).expand(len(lengths), -1), lengths)
    torch.manual_seed(0)
    expected = theirs.encode_batch(batch.masked(), relative_lengths(model, batch, kind))[:, 0]
    assert_same_but_for_rounding(model.embed(batch), expected, depth=depth_of(model))


def test_meaning_of_speechbrains_classifiers(make_speechbrain, waveforms):
    ecapa, xvector = instrument(make_speechbrain("ecapa")), instrument(make_speechbrain("xvector"))
    assert (ecapa.output_kind, ecapa.scale) == ("cosine", 30.0)
    assert (xvector.output_kind, xvector.scale) == ("logits", 1.0)
    dense = instrument(make_speechbrain("ecapa", classifier=nn.Linear(12, 4)))
    assert (dense.output_kind, dense.scale) == ("logits", 1.0)
    assert instrument(make_speechbrain("ecapa"), scale=20.0).scale == 20.0
    log_posteriors = xvector.logits(xvector.scores(Batch(waveforms())))
    torch.testing.assert_close(log_posteriors.exp().sum(dim=1), torch.ones(2))


class Unknown(nn.Module):
    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings[:, :, :4]


def test_unknown_classifier_needs_its_meaning(make_speechbrain, waveforms):
    theirs = make_speechbrain(classifier=Unknown())
    with pytest.raises(InputError, match="what Unknown returns is not known; pass output_kind="):
        instrument(theirs)
    with pytest.raises(InputError, match="the scale that Unknown was trained with is not known"):
        instrument(theirs, output_kind="cosine")
    assert instrument(theirs, output_kind="logits").scale == 1.0
    model = instrument(theirs, output_kind="cosine", scale=12.0)
    assert (model.output_kind, model.scale) == ("cosine", 12.0)
    assert model.scores(Batch(waveforms())).shape == (2, 4)


def test_labels_are_optional_and_in_order(make_speechbrain):
    assert instrument(make_speechbrain(labels=())).labels == ()
    theirs = make_speechbrain()
    del theirs.hparams.label_encoder
    assert instrument(theirs).labels == ()
    gap = make_speechbrain(labels=())
    gap.hparams.label_encoder.insert_label("ann", 3)
    with pytest.raises(InputError, match="labels are numbered 3–3, expected 0–0"):
        instrument(gap)


@pytest.mark.parametrize("without", [("embedding_model",), ("mean_var_norm", "compute_features")])
def test_missing_modules_are_named(make_speechbrain, without):
    with pytest.raises(InputError, match="EncoderClassifier lacks the modules") as caught:
        instrument(make_speechbrain(without=without))
    assert all(name in str(caught.value) for name in without)


def test_something_else_is_refused():
    with pytest.raises(InputError, match="Linear lacks the modules compute_features, mean_var"):
        instrument(nn.Linear(1, 1))


def test_recognition_without_classifier_only_embeds(make_speechbrain, waveforms, kind):
    theirs = make_speechbrain(kind, interface=SpeakerRecognition, without=("classifier",))
    model = instrument(theirs, scale=25.0)
    wavs = waveforms(3)
    torch.manual_seed(0)
    score, _ = theirs.verify_batch(wavs[:1], wavs[:1])
    assert float(score) == pytest.approx(1.0, abs=1e-4)
    assert model.head is None
    voices = model.embed(Batch(wavs))
    verifier = model.with_head(CosineHead(voices), labels=LABELS[:3])
    assert isinstance(verifier, SpeechBrainModel)
    assert (verifier.output_kind, verifier.scale) == ("cosine", 25.0)
    assert verifier.predict(Batch(wavs)).tolist() == [0, 1, 2]
    with verifier.tap("blocks.0") as tap:
        verifier.embed(Batch(wavs))
    assert tap["blocks.0"].shape == (3, 16, 51)


def test_recognition_with_classifier_classifies(make_speechbrain):
    assert instrument(make_speechbrain(interface=SpeakerRecognition)).labels == LABELS


@pytest.mark.parametrize("training", [False, True])
def test_noise_of_statistics_pooling_is_fixed_and_the_generator_put_back(
    make_speechbrain, waveforms, training
):
    model = instrument(make_speechbrain("xvector")).train(training)
    batch = Batch(waveforms())
    state = torch.get_rng_state()
    first = model.embed(batch)
    assert torch.equal(torch.get_rng_state(), state) is not training
    assert torch.equal(model.embed(batch), first) is not training


def test_embedding_model_must_pool(make_speechbrain, waveforms):
    theirs = make_speechbrain()
    theirs.mods["embedding_model"] = nn.Identity()
    theirs.mods["embedding_model"].forward = lambda features, lengths: features
    with pytest.raises(InputError, match=r"returns \(2, 51, 24\), expected \(batch, 1, size\)"):
        instrument(theirs).scores(Batch(waveforms()))


def test_waveforms_have_two_axes(make_speechbrain):
    with pytest.raises(InputError, match=r"wavs have shape \(1, 2, 800\), expected"):
        instrument(make_speechbrain()).scores(Batch(torch.zeros(1, 2, 800)))
