"""Configurations of block programs: measuring leaves arrays alone, hooks run, options are honoured or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.language as tl

BOTH = [tw.Config({"STEP": 1}), tw.Config({"STEP": 2})]


@tw.jit
def add_one(x, mark, n, STEP: tl.constexpr):
    """The configurations are two kernels: each leaves its mark."""
    at = tl.program_id(0) * 8 + tl.arange(0, 8)
    tl.store(x + at, tl.load(x + at, mask=at < n) + 1.0, mask=at < n)
    tl.store(mark, 1.0 * STEP)


@tw.jit
def add_one_each(arrays, n, STEP: tl.constexpr):
    at = tl.program_id(0) * 8 + tl.arange(0, 8)
    for k in tl.static_range(2):
        tl.store(arrays[k] + at, tl.load(arrays[k] + at, mask=at < n) + 1.0, mask=at < n)
    tl.store(arrays[2], 1.0 * STEP)


def tuned(program: Any = add_one, configs: list[tw.Config] = BOTH, **options: Any) -> Any:
    return tw.autotune(configs=configs, key=["n"], **options)(tw.jit(program.block_function))


def test_arrays_passed_by_name_are_updated_once() -> None:
    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    tuned()[(2,)](x=x, mark=mark, n=15)
    assert (x == 1).all()


@pytest.mark.parametrize("kind", [tuple, list])
def test_arrays_in_tuples_and_lists_are_updated_once(kind: Callable[[Any], Any]) -> None:
    x, y, mark = np.zeros(15, np.float32), np.ones(15, np.float32), np.zeros(1, np.float32)
    tuned(add_one_each)[(2,)](kind((x, y, mark)), 15)
    assert (x == 1).all() and (y == 2).all()


def test_an_array_passed_twice_is_measured_as_one() -> None:
    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    program = tuned(add_one_each)
    program[(2,)]((x, x, mark), 15)
    assert (x == 2).all()
    assert all(len(launch.kernel.args) == 2 for launch in program.function.launches.values())


def test_strided_arrays_and_bfloat16_are_measured_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    wide, mark = torch.zeros((15, 4), dtype=torch.bfloat16), np.zeros(1, np.float32)
    program = tuned()
    program[(2,)](wide[:, 0], mark, 15)
    assert {str(a.dtype) for launch in program.function.launches.values() for a in launch.kernel.args} == {"bf16", "f32"}
    assert wide.view(-1)[:15].eq(1).all() and wide.view(-1)[15:].eq(0).all()


def test_every_measured_run_begins_with_the_same_numbers() -> None:
    seen: list[float] = []
    hooks: list[tw.Config] = [tw.Config({"STEP": s}, pre_hook=lambda named: seen.append(float(named["x"].sum()))) for s in (1, 2)]
    x, mark = np.ones(15, np.float32), np.zeros(1, np.float32)
    tuned(configs=hooks)[(2,)](x, mark, 15)
    assert len(seen) > 4 and set(seen) == {15.0}
    seen.clear()
    zeroed = tuned(configs=hooks, reset_to_zero=["x"])
    zeroed[(2,)](x, mark, 15)
    assert set(seen[:-1]) == {0.0} and seen[-1] == 30.0 and (x == 3).all(), "the launch itself begins with the caller's numbers"


def test_hooks_run_before_each_launch() -> None:
    hook = tw.Config({"STEP": 2}, pre_hook=lambda named: named["x"].fill(5.0 * named["STEP"]))
    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    program = tuned(configs=[hook])
    for _ in range(2):
        program[(2,)](x, mark, n=15, num_warps=4)
        assert (x == 11).all()


def test_an_error_in_a_hook_leaves_the_arrays() -> None:
    def broken(named: dict[str, Any]) -> None:
        named["x"][:] = -1
        raise ValueError("no")

    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="no"):
        tuned(configs=[BOTH[0], tw.Config({"STEP": 2}, pre_hook=broken)])[(2,)](x, mark, 15)
    assert (x == 0).all()


def test_configurations_are_pruned_by_the_arguments() -> None:
    asked: list[tuple[list[tw.Config], dict[str, Any], int]] = []

    def prune(configs: list[tw.Config], named: dict[str, Any], n: int) -> list[tw.Config]:
        asked.append((configs, named, n))
        return configs[1:] if n > 3 else []

    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    program = tuned(prune_configs_by={"early_config_prune": prune})
    program[(2,)](x, mark, n=15)
    assert mark[0] == 2 and asked[0][0] == BOTH and asked[0][1]["x"] is x and asked[0][2] == 15
    with pytest.raises(tw.TilewrightError, match="leaves no configuration"):
        program[(1,)](x, mark, n=3)


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a hook of all": (lambda: tuned(pre_hook=print), "no option 'pre_hook'", "before the launch"),
    "what runs after": (lambda: tuned(post_hook=print), "no option 'post_hook'", "after the launch"),
    "a way to measure": (lambda: tuned(do_bench=print), "no option 'do_bench'", "leave it out"),
    "a misspelt option": (lambda: tuned(restore_values=["x"]), "no option 'restore_values'", "restore_value"),
    "a model of times": (lambda: tuned(prune_configs_by={"perf_model": print, "top_k": 3}), "no entry 'perf_model'", "measured"),
    "zeros of nothing": (lambda: tuned(reset_to_zero=["z"]), "no parameter 'z'", ""),
    "restoring nothing": (lambda: tuned(restore_value=["z"]), "no parameter 'z'", ""),
    "an option of jit": (lambda: tw.jit(fast=True), "jit has no option 'fast'", "do_not_specialize"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_would_change_results_are_refused(case: str) -> None:
    make, message, hint = REFUSED[case]
    with pytest.raises(tw.TilewrightError, match=message) as caught:
        make()
    assert hint in (caught.value.hint or "")


def test_options_that_change_nothing_are_accepted() -> None:
    program = tw.autotune(configs=BOTH[:1], key=["n"], warmup=25, rep=100, use_cuda_graph=True, restore_value=["x"])(
        tw.jit(do_not_specialize=["n"], noinline=True)(add_one.block_function)
    )
    x, mark = np.zeros(15, np.float32), np.zeros(1, np.float32)
    program[(2,)](x, mark, 15)
    assert (x == 1).all()
