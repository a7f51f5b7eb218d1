"""Poisoned sets, short training, baselines and judging, on tiny synthetic voices."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError, StateError
from nip_audio.training.image_training import image_model
from studies.backdoors.baselines import (
    activation_clustering,
    exclusionary_reclassification,
    low_entropies,
    overlay_entropies,
    strip,
    strip_of_art,
)
from studies.backdoors.judging import (
    JudgingPlan,
    MeasuredSet,
    f1_of,
    judge_baselines,
    judge_set,
    measure_set,
)
from studies.backdoors.models import (
    NO_TRIGGER,
    BackdoorCase,
    poisoned_by,
    predictions,
    success_of,
)
from studies.backdoors.poisoned_training import ShortTraining, train_audionet
from studies.backdoors.poisoning import Clips, poison, read_clips
from studies.backdoors.triggers import Sinusoid

SPEAKERS, TAKES, RATE = 8, 16, 16000
SHORT = ShortTraining(epochs=2, batch_size=16)
PLAN = JudgingPlan(draws=1)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    time = np.arange(5000) / 16000
    waves = [
        0.2 * np.sin(2 * np.pi * 250 * (s + 1) * time) + 0.02 * rng.standard_normal(5000)
        for s in range(SPEAKERS)
        for _ in range(TAKES)
    ]
    labels = torch.arange(SPEAKERS).repeat_interleave(TAKES)
    names = tuple(f"s{i}" for i in range(SPEAKERS))
    return Clips(torch.from_numpy(np.stack(waves)).float(), labels, names, 16000)


@pytest.fixture(scope="module")
def model(clips):
    return train_audionet(clips.samples, clips.labels, clips.speakers, SHORT, seed=1)


def test_poison_changes_a_share_of_the_others_and_nothing_else(clips):
    before = clips.samples.clone()
    found = poison(clips, partial(Sinusoid(snr_db=10.0), sample_rate_hz=RATE), share=0.1, seed=3)
    assert int(found.poisoned.sum()) == 13
    assert not (clips.labels[found.poisoned] == found.target).any()
    assert (found.clips.labels[found.poisoned] == found.target).all()
    assert torch.equal(found.clips.labels[~found.poisoned], clips.labels[~found.poisoned])
    assert torch.equal(found.clips.samples[~found.poisoned], before[~found.poisoned])
    assert not torch.equal(found.clips.samples[found.poisoned], before[found.poisoned])
    assert found.median_snr_db == pytest.approx(10.0, abs=0.1)
    assert torch.equal(clips.samples, before)


def test_poison_depends_on_its_seed_alone(clips):
    first, again, other = (
        poison(clips, partial(Sinusoid(), sample_rate_hz=RATE), share=0.1, seed=s)
        for s in (1, 1, 2)
    )
    assert torch.equal(first.poisoned, again.poisoned)
    assert first.target == again.target
    assert not torch.equal(first.poisoned, other.poisoned)


def test_without_a_trigger_nothing_is_poisoned(clips):
    found = poison(clips, None, share=0.1, seed=1)
    assert not found.poisoned.any()
    assert found.median_snr_db is None
    assert found.clips is clips


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_is_none_is_refused(clips, share):
    with pytest.raises(InputError, match="such as"):
        poison(clips, partial(Sinusoid(), sample_rate_hz=RATE), share=share, seed=1)


def test_more_poison_than_clips_of_others_is_refused(clips):
    with pytest.raises(InputError, match="are not the target's"):
        poison(clips, partial(Sinusoid(), sample_rate_hz=RATE), share=0.95, seed=1)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "sub" / "ann" / "1.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(40000)), 16000)
    (tmp_path / "split.csv").write_text(
        "path,speaker,role,start_s,end_s\nsub/ann/1.wav,ann,train,0,1.6\n"
        "sub/ann/1.wav,ann,test,1.6,2.5\n"
    )
    return tmp_path


def test_clips_are_cut_from_their_role(corpus):
    found = read_clips(corpus, corpus / "split.csv", subset="sub", role="train", crop_s=0.5)
    assert tuple(found.samples.shape) == (3, 8000)
    assert found.speakers == ("ann",)


def test_a_role_without_clips_is_refused(corpus):
    with pytest.raises(InputError, match="no clip of 1 s"):
        read_clips(corpus, corpus / "split.csv", subset="sub", role="test", crop_s=1.0)


def test_training_depends_on_its_seed_alone_and_leaves_the_global_one(clips):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, two, other = (
        train_audionet(
            clips.samples[:32], clips.labels[:32], clips.speakers, SHORT, seed=s
        ).network.state_dict()
        for s in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["layers.0.conv.weight"], other["layers.0.conv.weight"])


def test_training_learns(clips):
    losses = []
    train_audionet(
        clips.samples,
        clips.labels,
        clips.speakers,
        ShortTraining(epochs=4, batch_size=16),
        seed=0,
        progress=lambda epoch, loss: losses.append(loss),
    )
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2


def test_training_refuses_what_it_cannot_do(clips):
    with pytest.raises(InputError, match="use more clips"):
        train_audionet(clips.samples[:4], clips.labels[:4], clips.speakers, SHORT, seed=0)
    with pytest.raises(InputError, match="low ≤ high"):
        ShortTraining(noise_snr_db=(20.0, 10.0))


def test_a_model_is_trained_once_and_only_reused_for_the_same_clips(clips, tmp_path):
    case = BackdoorCase("sinusoid", 1, 0.1, SHORT)
    first = case.model(poisoned_by(case, clips), tmp_path)
    told = []
    second = case.model(poisoned_by(case, clips), tmp_path, progress=lambda *a: told.append(a))
    assert not told
    scores = (m.scores(Batch(clips.samples[:4])) for m in (first, second))
    assert torch.equal(*(s.detach() for s in scores))
    with pytest.raises(StateError, match="was made for model"):
        case.model(poisoned_by(BackdoorCase("high band", 1, 0.1, SHORT), clips), tmp_path)


def test_an_unknown_trigger_is_refused():
    with pytest.raises(InputError, match="no trigger 'bell'"):
        BackdoorCase("bell", 1, 0.1, SHORT)


def test_success_counts_what_it_says(clips, model):
    case = BackdoorCase("sinusoid", 1, 0.1, SHORT)
    found = success_of(model, case, clips, target=2)
    named = predictions(model, clips.samples)
    assert torch.equal(found.accuracy, named == clips.labels)
    assert len(found.attack) == len(found.without) == (SPEAKERS - 1) * TAKES
    assert torch.equal(found.without, named[clips.labels != 2] == 2)
    clean = success_of(model, BackdoorCase(NO_TRIGGER, 1, 0.1, SHORT), clips, target=2)
    assert clean.attack is None


def test_f1_by_hand():
    accused = np.array([True, True, False, False, True])
    poisoned = np.array([True, True, True, False, False])
    found = f1_of(accused, poisoned)
    assert found["f1"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    assert found["precision"] == found["recall"] == pytest.approx(2 / 3)
    assert f1_of(accused, np.zeros(5, dtype=bool)) == {
        "accused": 3,
        "found": 0,
        "poisoned": 0,
        "files": 5,
    }


@pytest.mark.parametrize("analysis", ["silhouette", "silhouette-scores"])
def test_activation_clustering_finds_a_group_that_is_far_away(analysis):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 12))
    rows[:12] += 20
    labels = torch.arange(3).repeat_interleave(100)
    generator = torch.Generator().manual_seed(0)
    accused, clusters = activation_clustering(
        torch.from_numpy(rows), labels, 3, analysis=analysis, generator=generator
    )
    assert np.array_equal(np.flatnonzero(accused[:100]), np.arange(12))
    assert [len(c) for c in clusters] == [100, 100, 100]
    if analysis == "silhouette":
        assert not accused[100:].any()


def test_a_cluster_that_is_classified_as_another_class_is_accused():
    """Of label 0 the smaller cluster is two items of class 1, of label 1 two of its own."""
    clusters = [np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 0, 0])]
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    asked = []

    def retrained(kept):
        asked.append(kept)
        return torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])

    accused = exclusionary_reclassification(clusters, labels, retrained)
    assert np.flatnonzero(accused).tolist() == [3, 4]
    assert [np.flatnonzero(kept).tolist() for kept in asked] == [[0, 1, 2, 7, 8, 9]]

    def halves(kept):  # l / p = 1 is not below the threshold
        return torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1, 1])

    assert not exclusionary_reclassification(clusters, labels, halves).any()
    accused = exclusionary_reclassification(clusters, labels, halves, threshold=1.5)
    assert np.flatnonzero(accused).tolist() == [3, 4]


def test_activation_clustering_needs_enough_items():
    with pytest.raises(InputError, match="give more clips"):
        activation_clustering(
            torch.zeros(20, 12),
            torch.arange(2).repeat_interleave(10),
            2,
            analysis="smaller",
            generator=torch.Generator(),
        )


def test_the_entropy_of_strip_by_hand():
    """Each copy's entropy over the classes, averaged over the copies."""
    certain, fair, four = [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25] * 4
    copies = torch.tensor([[certain, certain], [certain, fair], [four, fair]])
    assert overlay_entropies(copies).tolist() == pytest.approx([0.0, 0.5, 1.5])


def test_the_threshold_of_strip_is_a_quantile_of_the_normal_distribution():
    clean = torch.tensor([1.0, 3.0])  # mean 2, deviation 1: the quantile at 2.275 % is 0
    judged = torch.tensor([0.001, -0.001])
    flags = low_entropies(judged, clean, false_rejection_rate=0.02275)
    assert flags.tolist() == [False, True]


class _Trigger(torch.nn.Module):
    """Four classes by the brightest of four pixels; a fifth pixel overrules them with class 0."""

    embedding_dim = 4

    def forward(self, x, lengths=None):
        pixels = x.flatten(1)
        trigger = torch.tensor([1.0, 0.0, 0.0, 0.0]) * pixels[:, 4:]
        return 20 * pixels[:, :4] + 100 * trigger


def test_strip_flags_the_inputs_with_a_trigger_and_art_does_not():
    """Two classes blended are 1 bit in doubt, or none if they agree; a trigger leaves no doubt."""
    head = torch.nn.Linear(4, 4, bias=False)
    head.weight.data = torch.eye(4)
    model = image_model(_Trigger(), head, ("a", "b", "c", "d"))
    clean = torch.zeros(40, 1, 1, 5)
    clean[torch.arange(40), 0, 0, torch.arange(40) % 4] = 1.0
    inputs = torch.zeros(12, 1, 1, 5)
    inputs[torch.arange(12), 0, 0, torch.arange(12) % 4] = 1.0
    inputs[:6, ..., 4] = 1.0
    right = np.arange(12) < 6
    found = [
        form(model, inputs, clean, overlays=20, generator=torch.Generator().manual_seed(0))
        for form in (strip, strip_of_art)
    ]
    assert np.array_equal(found[0], right)
    assert not found[1][right].any()


@pytest.mark.parametrize("form", [strip, strip_of_art])
def test_strip_leaves_model_inputs_and_generators_alone(clips, model, form):
    inputs = model.to_input(Batch(clips.samples[::8])).x
    before, state = inputs.clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    answers = [
        form(model, inputs, inputs[:8], overlays=3, generator=torch.Generator().manual_seed(4))
        for _ in range(2)
    ]
    assert answers[0].shape == (16,)
    assert np.array_equal(*answers)
    assert torch.equal(inputs, before)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.fixture(scope="module")
def suspected(clips):
    """A set with poison, a model trained on it, and what was measured of it."""
    judged = poisoned_by(BackdoorCase("sinusoid", 1, 0.1, SHORT), clips)
    trained = train_audionet(
        judged.clips.samples,
        judged.clips.labels,
        clips.speakers,
        ShortTraining(epochs=8, batch_size=16),
        seed=1,
    )
    measured = measure_set(trained, judged.clips.samples, PLAN, seed=0)
    return judged, trained, measured


def test_judging_reports_every_form(suspected):
    judged, trained, measured = suspected
    found = judge_set(trained, judged, measured, PLAN)
    assert found["NCCR, grouped"]["poisoned"] == 13
    assert found["activations, grouped"]["judged names"] == SPEAKERS
    assert set(found["rates"]) == {
        f"{noise}, {kind}" for noise in ("small", "destroying") for kind in ("clean", "poisoned")
    }
    assert 0.5 <= found["NCCR, published"]["auroc of the scalar"] <= 1


def test_baselines_are_asked_about_the_same_set(suspected, clips):
    judged, trained, measured = suspected
    plan = JudgingPlan(strip_clips=(4, 8), strip_overlays=2)
    inputs = trained.to_input(Batch(clips.samples[:6])).x
    trained_on = []

    def train(part):
        trained_on.append(part)
        return trained

    found = judge_baselines(trained, judged, measured.embeddings, inputs, plan, train=train, seed=0)
    for form in ("STRIP", "STRIP, ART's entropy"):
        assert found[form]["files"] == 12
        assert found[form]["poisoned"] == 4
    assert [len(part) < 128 for part in trained_on] == [True]
    rules = ("smaller", "silhouette-scores", "silhouette", "reclassification")
    for analysis in (*rules, "told label and cluster"):
        assert found[f"activation clustering, {analysis}"]["files"] == 128


def test_measurements_come_back_as_they_were_kept(suspected, tmp_path):
    _, _, measured = suspected
    measured.save(tmp_path / "m", "this")
    again = MeasuredSet.load(tmp_path / "m", "this")
    assert torch.equal(again.vectors, measured.vectors)
    assert torch.equal(again.rates, measured.rates)
    with pytest.raises(StateError, match="was made for model"):
        MeasuredSet.load(tmp_path / "m", "that")


def test_noise_depends_on_the_seed_and_the_small_one_can_be_left_out(clips, model):
    plan = JudgingPlan()
    one, two, other = (measure_set(model, clips.samples[:2], plan, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.vectors, two.vectors)
    assert not torch.equal(one.vectors, other.vectors)
    assert torch.equal(one.outputs, other.outputs)
    assert one.rates.shape == (2, 2)
    assert measure_set(model, clips.samples[:2], plan, seed=1, small=False).rates.shape == (2, 1)
