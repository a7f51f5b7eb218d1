from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.detectors.rates import LogRates
from nip_audio.errors import InputError


@pytest.fixture
def rows() -> np.ndarray:
    """Rates that fall with the square root of the length, and one that does not depend on it."""
    lengths = np.geomspace(1.0, 16.0, 9)
    return np.column_stack([0.4 / np.sqrt(lengths), np.full(9, 0.2), lengths])


def test_learns_the_power_of_the_length(rows):
    fitted = LogRates().fit(rows)
    np.testing.assert_allclose(fitted.slopes_, [-0.5, 0.0], atol=1e-4)
    corrected = fitted.transform(rows)
    assert corrected.shape == (9, 2)
    # at the mean log length, 4, nothing is corrected: log(0.4 / 2)
    np.testing.assert_allclose(corrected[:, 0], np.log(0.2), atol=1e-4)
    np.testing.assert_allclose(corrected[:, 1], np.log(0.2), atol=1e-4)


def test_does_not_extrapolate_beyond_the_lengths_seen(rows):
    fitted = LogRates().fit(rows)
    at_the_edge, beyond = fitted.transform([[0.1, 0.1, 16.0], [0.1, 0.1, 1600.0]])
    np.testing.assert_array_equal(at_the_edge, beyond)


def test_equal_lengths_need_no_correction():
    rows = np.array([[0.1, 2.0], [0.3, 2.0]])
    np.testing.assert_allclose(LogRates().fit_transform(rows), np.log([[0.1], [0.3]]), rtol=1e-4)


def test_round_trips_through_tensors(rows):
    fitted = LogRates().fit(rows)
    loaded = LogRates.from_tensors(fitted.to_tensors())
    np.testing.assert_array_equal(loaded.transform(rows), fitted.transform(rows))


@pytest.mark.parametrize("row", [[-0.1, 1.0], [0.1, 0.0], [0.1, -1.0]])
def test_impossible_rows_are_an_error(row):
    with pytest.raises(InputError, match="change rates"):
        LogRates().fit([row, row])


def test_signed_changes_are_scaled_and_corrected_for_length(rows):
    change = np.sign([-1, 1, -1, 1, -1, 1, -1, 1, -1]) * np.arange(9.0)
    with_change = np.column_stack([rows[:, :2], change, rows[:, 2]])
    fitted = LogRates(signed=1).fit(with_change)
    got = fitted.transform(with_change)
    excess = np.log(rows[:, 2]) - np.log(rows[:, 2]).mean()
    expected = np.sign(change) * np.log1p(np.abs(change))
    np.testing.assert_allclose(got[:, 2], expected - excess * fitted.slopes_[2])
    row = torch.from_numpy(with_change[3:4, :-1])
    np.testing.assert_allclose(fitted.correct(row, rows[3, 2]).numpy()[0], got[3])
    loaded = LogRates.from_tensors(fitted.to_tensors(), signed=1)
    np.testing.assert_array_equal(loaded.transform(with_change), got)


def test_a_negative_rate_is_an_error_and_a_negative_change_is_not():
    LogRates(signed=1).fit([[0.1, -0.2, 1.0], [0.2, 0.3, 2.0]])
    with pytest.raises(InputError, match="1 signed changes"):
        LogRates(signed=1).fit([[-0.1, 0.2, 1.0], [0.2, 0.3, 2.0]])
