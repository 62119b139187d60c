"""Text comes back out of the markup as it went in; scales put values where they belong."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.report.document import parse

from tilewright.report.markup import Markup, join, tag, text
from tilewright.report.scale import Linear, Log, log_scale
from tilewright.report.trials import rank_correlation

SHOWABLE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]))


@given(SHOWABLE, SHOWABLE)
def test_any_text_is_shown_and_nothing_else(content: str, attribute: str) -> None:
    root = parse(tag("p", content, title=attribute))
    [p] = root.children
    assert not isinstance(p, str) and (p.text, p.attributes) == (content, {"title": attribute})


@given(st.text())
def test_no_text_makes_an_invalid_document(content: str) -> None:
    [p] = parse(tag("p", content)).children
    assert not isinstance(p, str) and not list(p.walk()) and len(p.text) == len(content)
    p.text.encode()
    assert not any(ord(c) < 32 and c not in "\t\n\r" for c in p.text)


def test_markup_is_not_escaped_twice() -> None:
    assert join(tag("b", "<"), "<", None) == "<b>&lt;</b>&lt;"
    assert text(Markup("<b>")) == "<b>" and tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("details", open=True, id=None, hidden=False) == "<details open></details>"


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e6))
def test_logarithmic_ticks_lie_on_the_axis(low: float, span: float) -> None:
    scale = Log(low, low * span)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 9 and ticks == sorted(ticks)
    assert all(-0.01 * math.log(10) / math.log(span) - 1e-6 <= scale.place(t) for t in ticks)
    assert scale.place(low) == pytest.approx(0, abs=1e-9) and scale.place(low * span) == pytest.approx(1)
    assert scale.place(low * math.sqrt(span)) == pytest.approx(0.5)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
@example(1.0, 599401.0)  # a little less than three steps of 200,000
def test_linear_ticks_lie_on_the_axis(low: float, span: float) -> None:
    ticks = Linear(low, low + span).ticks()
    assert 3 <= len(ticks) <= 12
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in ticks)


def test_a_scale_holds_a_single_value() -> None:
    assert 0 < log_scale([3e-3]).place(3e-3) < 1


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: covariance 4.5, variances 4.5 and 5 (times n).
    assert rank_correlation([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
