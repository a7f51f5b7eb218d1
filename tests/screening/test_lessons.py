"""Lessons of a detector: clean windows changed harmlessly, and attacked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nip_audio.audio.io import to_16_bits
from nip_audio.core.adapter import Batch
from nip_audio.screening import lessons
from nip_audio.screening.changes import CHANGES
from nip_audio.screening.lessons import (
    ATTACKS,
    AttackLesson,
    attacked_lesson,
    by_length,
    distances,
    harmless_lesson,
)

RATE_HZ = 16_000
PGD = AttackLesson("pgd", "reject", (0.002, 0.002), {"steps": 3})


@pytest.fixture(scope="module")
def windows(voice) -> list[torch.Tensor]:
    return [torch.from_numpy(voice(i % 6, i // 6)) for i in range(12)]


@pytest.fixture
def whole(monkeypatch):
    """No window is cut shorter."""
    monkeypatch.setattr(lessons, "_SHORT_SHARE", 0.0)


def attacked(lesson, model, windows, *, seed=0, least_move=0.0):
    return attacked_lesson(
        lesson, model, windows, sample_rate_hz=RATE_HZ, seed=seed, least_move=least_move
    )


def equal(first, other) -> bool:
    return (
        (first.places, first.names) == (other.places, other.names)
        and len(first.windows) == len(other.windows)
        and all(torch.equal(a, b) for a, b in zip(first.windows, other.windows, strict=True))
    )


def test_clean_windows_stay_as_they_would_be_in_a_file(windows):
    lesson = harmless_lesson("none", windows, sample_rate_hz=RATE_HZ, seed=0)
    assert lesson.places == tuple(range(12))
    assert set(lesson.names) == {"as recorded"}
    for made, window in zip(lesson.windows, windows, strict=True):
        assert torch.equal(made, to_16_bits(window))
        assert (made - window).abs().max() <= 2**-16


@pytest.mark.parametrize("name", ["white", "gain", "gsm"])
def test_harmless_lessons_repeat_by_seed(name, windows):
    first, again, other = (
        harmless_lesson(name, windows, sample_rate_hz=RATE_HZ, seed=seed) for seed in (1, 1, 2)
    )
    assert equal(first, again)
    assert not equal(first, other)
    assert len(first.windows) == len(first.names) == 12
    if name != "gsm":
        assert len(set(first.names)) > 6  # a strength is drawn for each


def test_a_harmless_lesson_holds_the_change_that_its_name_says(windows, whole):
    lesson = harmless_lesson("gain", windows, sample_rate_hz=RATE_HZ, seed=3)
    for made, window, name in zip(lesson.windows, windows, lesson.names, strict=True):
        gain_db = float(name.removesuffix(" dB"))
        if gain_db > 10:  # may clip
            continue
        got = 20 * float(torch.log10(made.norm() / window.norm()))
        assert got == pytest.approx(gain_db, abs=0.51)  # the name is rounded to 1 dB


def test_a_quarter_of_changed_windows_is_cut_but_not_below_half_a_second(windows):
    many = [windows[i % 12] for i in range(200)]
    lesson = harmless_lesson("gain", many, sample_rate_hz=RATE_HZ, seed=0)
    sizes = np.array([len(one) for one in lesson.windows])
    # 200 draws of a quarter: a standard deviation of 6
    assert 25 <= (sizes < RATE_HZ).sum() <= 75
    assert set(sizes) <= {8000, 9600, 11200, 12800, 14400, 16000}


def test_what_hardly_moves_the_model_is_left_out(embedding_model, windows, whole):
    everything = attacked(PGD, embedding_model, windows)
    assert sorted(everything.places) == list(range(12))
    clean = torch.stack([windows[i] for i in everything.places])
    moved = distances(embedding_model, clean, torch.stack(everything.windows))
    assert moved.min() > 0
    limit = float(moved.sort().values[4:6].mean())
    some = attacked(PGD, embedding_model, windows, least_move=limit)
    far = [i for i, d in enumerate(moved.tolist()) if d >= limit]
    assert some.places == tuple(everything.places[i] for i in far)
    assert len(far) == 7
    for made, i in zip(some.windows, far, strict=True):
        assert torch.equal(made, everything.windows[i])
    none = attacked(PGD, embedding_model, windows, least_move=2.1)
    assert (none.places, none.names, none.windows) == ((), (), ())


@pytest.mark.parametrize(
    "attack", [PGD, replace(PGD, changed=True), AttackLesson("score", "reject")]
)
def test_attacked_lessons_repeat_by_seed(attack, embedding_model, windows):
    first, again, other = (attacked(attack, embedding_model, windows, seed=s) for s in (1, 1, 2))
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize("method", ["pgd", "fgsm", "mi-fgsm", "score"])
def test_attacks_stay_within_their_eps_and_say_it(method, embedding_model, windows, whole):
    settings = {"steps": 3} if "pgd" in method or "mi" in method else {}
    attack = AttackLesson(method, "reject", (0.004, 0.004), settings)
    lesson = attacked(attack, embedding_model, windows)
    assert set(lesson.names) == {f"an attack ({method.upper()}, ε 0.0040)"}
    for place, made in zip(lesson.places, lesson.windows, strict=True):
        change = (made - windows[place]).abs().max()
        assert 0.002 < change <= 0.004 + 2**-15  # rounding to 16 bits adds at most half a step
        assert torch.equal(made, to_16_bits(made))


def test_strengths_are_drawn_between_the_weakest_and_the_strongest(embedding_model, windows):
    attack = replace(PGD, eps=(0.001, 0.01))
    drawn = {
        float(attacked(attack, embedding_model, windows[:2], seed=s).names[0].split()[-1][:-1])
        for s in range(8)
    }
    assert len(drawn) == 8
    assert 0.001 <= min(drawn) < 0.004 < max(drawn) <= 0.01


def test_the_two_goals(embedding_model, windows, whole):
    with torch.no_grad():
        clean = embedding_model.embed(Batch(torch.stack(windows)))
    similar = torch.cosine_similarity(clean[:, None], clean[None], dim=2)
    gains = {}
    for goal in ("accept", "reject"):
        attack = replace(PGD, goal=goal, eps=(0.01, 0.01))
        lesson = attacked(attack, embedding_model, windows)
        with torch.no_grad():
            made = embedding_model.embed(Batch(torch.stack(lesson.windows)))
        places = list(lesson.places)
        now = torch.cosine_similarity(made[:, None], clean[None], dim=2)
        # windows of one batch aim at the voice of the one before
        aims = [places[i - 1] for i in range(len(places))]
        rows = torch.arange(len(places))
        gains[goal] = now[rows, aims] - similar[places, aims]
        assert (now[rows, places] < 1 - 1e-4).all()
    assert gains["accept"].mean() > 0
    assert gains["accept"].mean() > gains["reject"].mean() + 0.05


@pytest.mark.parametrize("goal", ["accept", "reject"])
def test_a_prediction_by_logits_is_attacked(goal, tiny_model, windows, whole):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = torch.nn.Linear(6, 3)
    model = type(tiny_model)(
        tiny_model.network,
        front_end=tiny_model.front_end,
        head=head,
        output_kind="logits",
        labels=("ann", "bob", "cyd"),
        bounds=tiny_model.bounds,
        input_bounds=tiny_model.input_bounds,
    ).eval()
    lesson = attacked(replace(PGD, goal=goal, eps=(0.02, 0.02)), model, windows)
    with torch.no_grad():
        before = model.scores(Batch(torch.stack([windows[i] for i in lesson.places])))
        after = model.scores(Batch(torch.stack(lesson.windows)))
    named = before.argmax(dim=1, keepdim=True)
    own = [scores.log_softmax(dim=1).gather(1, named) for scores in (before, after)]
    assert (own[1] < own[0]).all()


def test_a_share_of_the_windows_is_attacked(embedding_model, windows):
    lesson = attacked(replace(PGD, share=0.5), embedding_model, windows)
    assert len(set(lesson.places)) == len(lesson.places) == 6


def test_narrow_attacks_hold_nothing_above_4_khz(embedding_model, windows, whole):
    lesson = attacked(replace(PGD, narrow=True, eps=(0.01, 0.01)), embedding_model, windows[:4])
    rounding = 2**-15 / np.sqrt(12)
    for place, made in zip(lesson.places, lesson.windows, strict=True):
        spectrum = np.fft.rfft(made.double().numpy() * np.hanning(len(made)))
        above = np.abs(spectrum[4200:])
        # all that is left is the rounding to 16 bits
        assert np.sqrt(np.mean(above**2)) < 3 * rounding * np.sqrt(0.375 * len(made))
        assert not torch.equal(made, to_16_bits(windows[place]))


def test_names_of_lessons_differ():
    names = [attack.name for attack in ATTACKS]
    assert len({*names, *CHANGES}) == len(names) + len(CHANGES)
    assert names[0] == "PGD of ε 0.0003 to 0.006, towards another voice"
    assert "PGD of ε 0.0003 to 0.006 then changed, towards another voice" in names
    assert "PGD of ε 0.001 to 0.01 at 8 kHz, towards another voice" in names


def test_windows_are_grouped_by_length():
    sizes = [5, 3, 5, 3, 5, 4]
    parts = list(by_length([torch.zeros(n) for n in sizes], most=2))
    assert parts == [[1, 3], [5], [0, 2], [4]]
    assert list(by_length([])) == []


def test_written_samples_are_multiples_of_a_step_within_full_scale():
    got = to_16_bits(torch.tensor([0.1, -1.5, 1.5, 2**-17, 0.9 * 2**-15]))
    assert got.tolist() == [round(0.1 * 2**15) / 2**15, -1.0, 1 - 2**-15, 0.0, 2**-15]


def test_distances_by_hand(embedding_model, windows):
    x = torch.stack(windows[:2])
    assert distances(embedding_model, x, x).abs().max() < 1e-6  # 32 bits
    with torch.no_grad():
        a, b = embedding_model.embed(Batch(x))
    expected = 1 - float(a @ b / a.norm() / b.norm())
    got = distances(embedding_model, x[:1], x[1:])
    assert float(got[0]) == pytest.approx(expected, abs=1e-6)
