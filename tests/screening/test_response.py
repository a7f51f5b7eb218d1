"""Thresholds and p-values of the detector of a purifier's response."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Bounds
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import load_state, save_state
from nip_audio.detectors.fitted import FittedPerceptron
from nip_audio.errors import CalibrationError
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.changes import CHANGES
from nip_audio.screening.measured import Measurement
from nip_audio.screening.probes import Place, ResponseProbe
from nip_audio.screening.response import (
    Examples,
    ResponseDetector,
    odds_distance,
    scaled_rows,
)

EVEN = np.log(2)
WIDE, NARROW = Place(), Place(narrow=True)
FEATURES = 2


def network() -> FittedPerceptron:
    """The log-odds are the first number of a scaled row, clipped to ±4, times 2 minus 1."""
    return FittedPerceptron.from_tensors(
        {
            "center": torch.zeros(FEATURES).double(),
            "scale": torch.ones(FEATURES).double(),
            "w1": torch.tensor([[1.0, -1.0], [0.0, 0.0]]).double(),
            "b1": torch.zeros(2).double(),
            "w2": torch.tensor([[2.0], [-2.0]]).double(),
            "b2": torch.tensor([-1.0]).double(),
            "clip": torch.tensor(4.0).double(),
        }
    )


@cache
def purifier() -> GuidedNip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = InverseNet(1, width=4)
        torch.nn.init.normal_(net.out.weight, std=0.3)
    net = net.half().float().eval().requires_grad_(False)  # files hold 16 bits a weight
    return GuidedNip(net, bounds=Bounds(0.0, 1.0), seen={"b", "a"}, training={"steps": 3})


def detector(scores: dict[str, np.ndarray], *, files: int | None = None) -> ResponseDetector:
    config = NccrConfig(("frames.2",), (Noise("gaussian", "raw", 0.004),), 1)
    rng = np.random.default_rng(0)
    return ResponseDetector(
        ResponseProbe(config, names=False, purifier=purifier(), window_s=2.5),
        network(),
        files or min(len(one) for one in scores.values()),
        {name: np.sort(one) for name, one in scores.items()},
        {name: CHANGES[name].kind for name in scores},
        Examples(
            rng.normal(size=(4, FEATURES)).astype(np.float16).astype(np.float64),
            ("as recorded", "white noise at 20 dB", "GSM", "an attack (PGD, ε 0.0010)"),
            ("none", "white", "gsm", "attack"),
        ),
    )


def uniform(count: int, *, low: float, high: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, count)


def measurement(rows: np.ndarray) -> Measurement:
    return Measurement(
        np.zeros(1), rows.flatten(), np.zeros(1), windows=np.tile([0.0, 1.0], len(rows))
    )


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_rate_holds_in_each_condition(rate):
    """Over draws of the calibration, new files of any condition are flagged at most so often."""
    rng = np.random.default_rng(7)
    spans = {"none": (2.0, 3.0), "white": (2.5, 4.0), "8 kHz": (5.0, 6.0)}
    above: dict[str, list[float]] = {name: [] for name in spans}
    for _ in range(1500):
        made = detector({name: rng.uniform(*span, 99) for name, span in spans.items()})
        for name, (low, high) in spans.items():
            limit = made.threshold(rate, NARROW if name == "8 kHz" else WIDE)
            above[name].append(np.clip((high - limit) / (high - low), 0, 1))
    shares = {name: float(np.mean(values)) for name, values in above.items()}
    # the exact rate of the condition that determines the threshold; 4 standard errors
    assert shares["white"] == pytest.approx(rate, abs=0.0035)
    assert shares["8 kHz"] == pytest.approx(rate, abs=0.0035)
    assert shares["none"] == 0  # white noise at the threshold lies above every clean one


def test_the_rate_holds_for_the_worst_of_several_windows():
    rng, count, rate = np.random.default_rng(3), 4, 0.1
    flagged = []
    for _ in range(1000):
        made = detector({"none": 2 + rng.exponential(size=199), "white": rng.uniform(1, 2, 199)})
        limit = made.threshold(rate, Place(windows=count))
        flagged.append((2 + rng.exponential(size=(50, count))).max(axis=1) > limit)
    share = float(np.mean(flagged))
    # 1 - (1 - 0.1 / 4)^4 for independent windows
    assert share == pytest.approx(0.0963, abs=0.012)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", ["uniform", "exponential", "one far off"])
def test_more_windows_and_lower_rates_never_lower_the_threshold(shape, seed):
    rng = np.random.default_rng(seed)
    scores = 1 + (rng.uniform(size=120) if shape == "uniform" else rng.exponential(size=120))
    if shape == "one far off":
        scores[0] = 30.0
    made = detector({"none": scores})
    limits = [made.threshold(0.02, Place(windows=n)) for n in range(1, 40)]
    assert np.diff(limits).min() >= 0
    assert limits[-1] > limits[0]
    by_rate = [made.threshold(rate, Place(windows=6)) for rate in (0.2, 0.1, 0.05, 0.02, 0.01)]
    assert np.diff(by_rate).min() >= 0


def test_thresholds_by_hand():
    tens = np.arange(1.0, 100.0)  # 99 scores
    made = detector({"none": tens, "white": tens / 2, "8 kHz": 3 * tens})
    assert made.threshold(0.01, WIDE) == 99
    assert made.threshold(0.1, WIDE) == 90
    assert made.threshold(0.01, NARROW) == 3 * 99
    # a tail of the largest ten, of which 4.5 is left above the limit of 89 on average: 5.5
    expected = 89 + 5.5 * np.log((10 / 99) / 0.0005)
    assert made.threshold(0.01, Place(windows=20)) == pytest.approx(expected)


def test_wide_and_narrow_are_apart():
    wide, narrow = uniform(99, low=1, high=2), uniform(99, low=8, high=9)
    both = detector({"none": wide, "gsm": narrow})
    for rate in (0.02, 0.2):
        alone = detector({"none": wide})
        assert both.threshold(rate, WIDE) == alone.threshold(rate, WIDE) < 2
        assert both.threshold(rate, NARROW) > 8
    assert both.p_value(5.0, WIDE) == 0.01
    assert both.p_value(5.0, NARROW) == 1.0
    np.testing.assert_array_equal(both.distances, np.sort(wide))


def test_what_is_more_likely_harmless_is_never_flagged():
    made = detector({"none": uniform(99, low=0, high=1e-3)})
    assert made.threshold(0.1, WIDE) == pytest.approx(EVEN)
    assert made.threshold(0.01, Place(windows=9)) == pytest.approx(EVEN)


@pytest.mark.parametrize(("files", "rate"), [(98, 0.01), (18, 0.05), (300, 0.001)])
def test_a_rate_that_the_files_cannot_give_is_refused(files, rate):
    made = detector({"none": uniform(999, low=1, high=2)}, files=files)
    needed = round(1 / rate) - 1
    with pytest.raises(CalibrationError, match=rf"{files} clean files .* at least {needed} are"):
        made.threshold(rate, WIDE)
    made = replace(made, files=needed)
    assert made.threshold(rate, WIDE) > 1


@pytest.mark.parametrize("windows", [1, 2, 7, 60])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.15])
def test_flagged_is_what_has_a_p_value_of_the_rate_at_most(rate, windows):
    rng = np.random.default_rng(11)
    scores = {"none": 1 + rng.exponential(size=120), "white": 0.5 + 2 * rng.uniform(size=99)}
    made, place = detector(scores), Place(windows=windows)
    limit = made.threshold(rate, place)
    near = limit * (1 + np.array([-1e-9, 1e-9]))
    tried = np.concatenate([*scores.values(), np.linspace(EVEN, 30, 500), near])
    for distance in tried:
        if distance == limit:
            continue
        assert (distance > limit) == (made.p_value(float(distance), place) <= rate), distance


def test_p_values_by_hand_and_in_the_tail():
    made = detector({"none": np.arange(1.0, 100.0), "white": np.arange(0.5, 99.5)})
    assert made.p_value(50.0, WIDE) == pytest.approx(0.51)  # 50 of 99 clean ones are as far
    assert made.p_value(99.5, WIDE) == 0.01
    assert made.p_value(1e9, WIDE) == 0.01
    expected = 3 * 10 / 99 * np.exp(-10.5 / 5.5)
    assert made.p_value(99.5, Place(windows=3)) == pytest.approx(expected)
    assert made.p_value(50.0, Place(windows=3)) == 1.0
    assert made.tail_p_value(50.0, WIDE) == pytest.approx(50 / 99)
    far, farther = (made.tail_p_value(x, WIDE) for x in (120.0, 150.0))
    assert farther < far < 0.01
    # an exponential tail with a mean of 5.5 above its limit
    assert far / farther == pytest.approx(np.exp(30 / 5.5))


def test_p_values_never_grow_with_the_distance():
    rng = np.random.default_rng(5)
    made = detector({"none": rng.exponential(size=100), "white": rng.uniform(size=50)})
    for windows in (1, 5):
        found = [made.p_value(x, Place(windows=windows)) for x in np.linspace(0, 20, 800)]
        assert np.diff(found).max() <= 0
        assert 0 < found[-1] < found[0] == 1


def test_distance_is_that_of_the_worst_window():
    made = detector({"none": uniform(99, low=1, high=2)})
    rows = np.array([[0.01, 5.0], [0.2, -1.0], [-0.3, 0.0]])
    log_odds = 2 * np.sign(rows[:, 0]) * np.log1p(20 * np.abs(rows[:, 0])) - 1
    np.testing.assert_allclose(made.distances_of(rows), np.log1p(np.exp(log_odds)))
    measured = measurement(rows)
    np.testing.assert_array_equal(made.rows(measured), rows)
    assert made.worst(measured) == 1
    assert made.distance(measured) == pytest.approx(float(np.log1p(np.exp(log_odds[1]))))


def test_a_row_far_from_all_others_has_no_distance_far_from_all_others():
    made = detector({"none": uniform(99, low=1, high=2)})
    assert made.distances_of(np.array([[1e12, 0.0]]))[0] == pytest.approx(7, abs=1e-3)  # 2 · 4 − 1


def test_scales_by_hand():
    np.testing.assert_allclose(
        scaled_rows(np.array([[0.0, 1.0, -1.0]])), [[0, np.log(21), -np.log(21)]]
    )
    np.testing.assert_allclose(odds_distance(np.array([-1e9, 0.0, 50.0])), [0, EVEN, 50])


def test_resembles_the_family_that_most_of_the_nearest_examples_have():
    """Four kinds of rows are planted; single ones of other kinds lie nearer."""
    rng = np.random.default_rng(2)
    centres = {"none": (-2, -2), "white": (2, -2), "gsm": (-2, 2), "attack": (2, 2)}
    rows, names, families = [], [], []
    for family, centre in centres.items():
        rows += [centre + 0.2 * rng.standard_normal(2) for _ in range(30)]
        names += [f"{family} {i}" for i in range(30)]
        families += [family] * 30
    rows += [np.array([2.0, 2.0])]
    names += ["a stray clean one"]
    families += ["none"]
    examples = Examples(np.array(rows), tuple(names), tuple(families))
    made = replace(detector({"none": uniform(99, low=1, high=2)}), examples=examples)
    for family, centre in centres.items():
        place = np.array(centre, dtype=float)
        row = np.sign(place) * np.expm1(np.abs(place)) / 20  # what scaled_rows maps to the centre
        found = made.resembles(row)
        assert found.startswith(f"{family} ")
        own = [i for i, one in enumerate(families) if one == family and "stray" not in names[i]]
        nearest = min(own, key=lambda i: np.square(rows[i] - place).sum())
        assert found == names[nearest]


def test_round_trip_through_a_file_is_exact(tmp_path):
    made = detector({"none": uniform(50, low=1, high=2), "gsm": uniform(40, low=2, high=3)})
    state = made.to_state("m")
    save_state(tmp_path / "d", state)
    loaded = ResponseDetector.from_state(load_state(tmp_path / "d", kind="response", model_id="m"))
    again = loaded.to_state("m")
    assert again.meta == state.meta
    assert again.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name
    assert loaded.probe.to_json() == made.probe.to_json()
    assert loaded.probe.purifier.seen == {"a", "b"}
    assert (loaded.files, loaded.kinds) == (40, {"none": "level", "gsm": "telephone"})
    rows = np.random.default_rng(0).normal(size=(20, FEATURES))
    np.testing.assert_array_equal(loaded.distances_of(rows), made.distances_of(rows))
    assert [loaded.resembles(row) for row in rows] == [made.resembles(row) for row in rows]
    for place in (WIDE, NARROW, Place(windows=30)):
        assert loaded.threshold(0.05, place) == made.threshold(0.05, place)
        assert loaded.p_value(1.7, place) == made.p_value(1.7, place)
