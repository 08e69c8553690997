"""Charts of what hardly changes and of what is out of all bounds: any curve of numbers is drawn."""

from __future__ import annotations

import math
import re

import pytest

from llmos.sdk.draw import charts

ULP = 2.0000000000000004e-4


@pytest.mark.parametrize("from_zero", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [2e-4, ULP],
        [-2e-4, -ULP],
        [5e-324, 0.0],
        [0.0, 0.0],
        [1e308, -1e308],
        [1.7e308, 1.7e308],
        [1e308, 1.0],
        [1.0, 1.0 + 1e-11],
        [1e-290, 1e290],
        [123_456_789.0, 123_456_789.1],
    ],
)
def test_any_curve_is_drawn_inside_its_frame(values: list[float], from_zero: bool) -> None:
    points = [(float(place), value) for place, value in enumerate(values)]
    drawn = charts.line_chart([charts.Line("x", points)], "t", from_zero=from_zero)
    line = re.search(r'class="line c1" d="M([^"]*)"', drawn)
    assert line is not None
    places = [[float(part) for part in place.split()] for place in line[1].split("L")]
    assert len(places) == len(values)
    for x, y in places:
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    assert 2 <= drawn.count('class="rule"') <= 8
    assert "nan" not in drawn


def test_what_changes_by_less_than_rounding_is_level() -> None:
    drawn = charts.line_chart([charts.Line("lr", [(0, 2e-4), (1, ULP)])], "t", from_zero=False)
    ends = re.findall(r"[ML][\d.]+ ([\d.]+)", drawn.split('class="line')[1])
    assert len(set(ends)) == 1
    rising = [charts.Line("x", [(0, 1.0), (1, 1.0 + 1e-9)])]
    steps = re.findall(r"[ML][\d.]+ ([\d.]+)", charts.line_chart(rising, "t", from_zero=False))
    assert len(set(steps)) > 1


@pytest.mark.parametrize("x", [-1e308, 1e308, 5e-324])
def test_a_step_may_be_any_number(x: float) -> None:
    drawn = charts.line_chart([charts.Line("x", [(x, 1.0), (1e308, 2.0)])], "t")
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize("span", [0.0, -1.0, 5e-324, 1e-310, math.inf, math.nan])
def test_no_step_divides_nothing(span: float) -> None:
    assert charts.nice_step(span) == 1.0
