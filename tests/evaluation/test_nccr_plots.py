from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from nip_audio.errors import InputError
from nip_audio.evaluation.nccr_plots import plot_activation_maps, plot_boxes


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_boxes_have_a_panel_a_layer_and_take_any_name():
    values = np.linspace(0.1, 1.0, 20)
    one = plot_boxes({"logits": {"a $x": values, "b_東": 2 * values}}, log=True)
    two = plot_boxes({"logits": {"a $x": values}, "pool": {"a $x": values}})
    assert size_of(two)[0] > size_of(one)[0]


@pytest.mark.parametrize("panels", [{}, {"logits": {}}])
def test_nothing_to_draw_is_said(panels):
    with pytest.raises(InputError, match="nothing to draw"):
        plot_boxes(panels)


def test_maps_are_drawn_side_by_side():
    maps = {"clean": np.eye(3, 5), "PGD": np.zeros((3, 5))}
    width, height = size_of(plot_activation_maps(maps, ["a", "b", "c"], layer="pool"))
    assert width > height


@pytest.mark.parametrize(
    ("second", "classes"), [(np.zeros((2, 5)), ["a", "b", "c"]), (np.zeros((3, 5)), ["a", "b"])]
)
def test_maps_of_other_shapes_are_refused(second, classes):
    with pytest.raises(InputError, match="expected one shape"):
        plot_activation_maps({"clean": np.eye(3, 5), "PGD": second}, classes, layer="pool")
