"""Charts, by hand-computed places."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from nip_audio.reporting.distributions import Distributions
from nip_audio.reporting.figure import Axis, Chart, nice_ticks
from nip_audio.reporting.media import matrix_url


def test_axes_place_values():
    assert Axis("x", 0, 10).share(2.5) == 0.25
    assert Axis("x", 0, 10).share(99) == 1.0
    assert Axis("x", 1, 100, logarithmic=True).share(10) == pytest.approx(0.5)
    assert Axis("x", 1, 100, logarithmic=True).share(0) == 0.0


def test_ticks_are_round_and_inside():
    assert nice_ticks(-0.5, 1.0) == [-0.5, 0.0, 0.5, 1.0]
    assert nice_ticks(0, 0.003) == [0.0, 0.001, 0.002, 0.003]
    assert Axis("x", 0.9, 3000, logarithmic=True).marks() == [
        (1.0, "1"),
        (10.0, "10"),
        (100.0, "100"),
        (1000.0, "1000"),
    ]


def test_chart_is_drawn_to_scale_and_says_what_it_is():
    chart = Chart('a "title" <b>', Axis("x & y", 0, 10), Axis("files", 0, 4), width=158, height=150)
    chart.bar(0, 5, 0, 2, "bar", "two <files>")
    chart.rule(10, "limit")
    root = ElementTree.fromstring(chart.svg())
    assert root.get("aria-label") == 'a "title" <b>'
    (bar,) = root.findall("rect")
    # 100 units wide and high inside the margins (46 left, 10 above)
    assert [float(bar.get(k)) for k in ("x", "y", "width", "height")] == [46.0, 60.0, 49.0, 50.0]
    assert bar.find("title").text == "two <files>"
    (rule,) = (line for line in root.findall("line") if line.get("class") == "rule")
    assert rule.get("x1") == "146.0"
    assert "x & y" in [text.text for text in root.findall("text")]


def test_the_calibrations_distances_are_scaled_to_the_run(record_of):
    numbers = Distributions()
    for distance in (1.0, 1.0, 1.2, 2.0):
        numbers.add(record_of("a", None, distance))
    root = ElementTree.fromstring(numbers.distance_chart([1.0, 1.1]))
    (line,) = root.findall("polyline")
    assert line.get("class") == "expected"
    # two clean recordings stand for four files: two files a recording, one bar each
    heights = {float(point.split(",")[1]) for point in line.get("points").split()}
    assert len(heights) == 2
    assert len(root.findall("rect")) == 3


def test_picture_has_the_first_row_lowest():
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    url = matrix_url(torch.tensor([[1.0, 1.0], [0.0, 5.0]]), 0.0, 1.0, colours="gray")
    kind, data = url.split(",")
    assert kind == "data:image/png;base64"
    pixels = np.asarray(Image.open(BytesIO(b64decode(data))).convert("L"))
    assert pixels.tolist() == [[0, 255], [255, 255]]
