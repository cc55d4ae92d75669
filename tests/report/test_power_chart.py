"""The power curve: drawn from the facts of a detector, with what could not have been seen shaded."""

import re

import pytest

from medtrust.report.charts import power_chart


def row(powers, seen=0.01, status="ok"):
    return {
        "status": status,
        "facts": {f"power_at_{share:g}_percent": power for share, power in powers.items()} | {"p_at_5": 0.2},
        "resolution": {"min_detectable": seen, "power": 0.8, "sentence": ""},
    }


def test_every_point_is_drawn_and_spoken():
    """Higher power stands higher, larger shares farther right, and the label says the numbers."""
    drawn = str(power_chart(row({0.5: 0.2, 1: 0.9, 2: 1.0, 10: 1.0})))
    points = [
        tuple(map(float, found)) for found in re.findall(r'circle class="value" cx="([0-9.]+)" cy="([0-9.]+)"', drawn)
    ]
    assert len(points) == 4
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[0][1] > points[1][1] > points[2][1] == points[3][1]
    assert "not seen below 1 %" in drawn
    assert "0.9 at 1 % copies" in drawn
    shaded = float(re.search(r'class="fails" x="92" y="22.0" width="([0-9.]+)"', drawn)[1])
    assert 92 + shaded == pytest.approx(points[1][0], abs=0.2)


@pytest.mark.parametrize("given", [row({1: 0.5, 2: 0.7}), row({}), row({1: 0.1, 2: 0.5, 5: 1.0}, status="skipped")])
def test_no_curve_is_drawn_from_too_little(given):
    """Two points, none, or a result without an answer give no picture."""
    assert power_chart(given) == ""


def test_a_detector_that_sees_nothing_has_no_line():
    """Where no share could have been seen the curve stands alone."""
    drawn = str(power_chart(row({1: 0.1, 2: 0.2, 5: 0.3}, seen=1.0)))
    assert "not seen below" not in drawn
    assert drawn.count("circle") == 3
