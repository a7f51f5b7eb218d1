from __future__ import annotations

import pytest

from nip_audio.detectors.baselines.transform_difference import TransformDifference
from nip_audio.errors import InputError


class Times:
    name = "times"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def settings(self):
        return {"name": self.name, "factor": self.factor}

    def purify(self, batch, *, generator):
        return batch.with_x(batch.x * self.factor)


def test_difference_of_the_named_class_by_hand(by_hand, item, generator):
    """Scores (1, 0.4) become (0.25, 0.1): the named class loses 0.75, whoever is named then."""
    measure = TransformDifference("quarter", "nobody", Times(0.25))
    row = measure.measure(by_hand([[1.0, 0.0], [0.0, 1.0]]), item(0.5, 0.2), generator=generator)
    assert row == pytest.approx([0.75])
    assert measure.suspicion(row[None]) == pytest.approx([0.75])


def test_the_class_is_the_one_named_before(by_hand, item, generator):
    """Turned round, scores (1, 0) become (0, 1): the difference is that of the first class."""
    model = by_hand([[1.0, 0.0], [0.0, 0.5]])
    row = TransformDifference("turned", "nobody", Times(-1.0)).measure(
        model, item(0.5, -0.9), generator=generator
    )
    assert row == pytest.approx([1.0])


def test_settings_are_those_of_the_change():
    measures = [TransformDifference("t", "nobody", Times(f)) for f in (0.5, 0.25)]
    assert measures[0].settings() != measures[1].settings()


def test_an_answer_that_is_no_number_is_an_error(by_hand, item, generator):
    model = by_hand([[float("inf"), 0.0], [0.0, 1.0]])
    measure = TransformDifference("quarter", "nobody", Times(0.25))
    with pytest.raises(InputError, match="quarter of this item is not finite"):
        measure.measure(model, item(0.1, 0.2), generator=generator)
