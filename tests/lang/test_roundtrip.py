"""``parse(print(k)) == k`` over random kernels."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from tests.ir.strategies import SCALE, kernels

from tilewright.ir.printer import module_text
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(kernels())
def test_parse_of_print_is_the_same_kernel(k: Kernel) -> None:
    text = str(k)
    again = parse(text, scale=SCALE)
    assert str(again) == text
    assert again == k


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(kernels())
def test_module_text_needs_no_context(k: Kernel) -> None:
    assert parse(module_text(k)) == k
