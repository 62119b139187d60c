"""Configurations of block programs: which values of their constexprs a launch takes, found by measuring.

A configuration is measured on the arrays of the launch that needs it. They hold after it what they held before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tilewright.codegen.commands import has_words
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.descriptors import TensorDescriptor
from tilewright.runtime.dlpack import as_numpy
from tilewright.runtime.launch import OPTIONS, JitFunction, is_array
from tilewright.runtime.pointers import Pointers
from tilewright.util.errors import LanguageError

#: Options of ``autotune`` that say how other hardware measures; ``restore_value`` asks for what is always done here.
MEASURING = ("warmup", "rep", "use_cuda_graph", "cache_results", "restore_value")
#: Options of ``autotune`` that change what is run: what to write in their place.
_REFUSED = {
    "pre_hook": "tilewright.Config(..., pre_hook=...), or do this before the launch",
    "post_hook": "do this after the launch",
    "do_bench": "leave it out: configurations are measured on the launch's own arguments",
}
_REPEATS = 5


@dataclass(frozen=True)
class Config:
    """Values of constexprs to try. ``pre_hook(arguments by name)`` runs before each launch; the other fields mean nothing here."""

    kwargs: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    num_ctas: int = 1
    pre_hook: Callable[[dict[str, Any]], Any] | None = None
    maxnreg: int | None = None


@dataclass(eq=False)
class Autotuner:
    """A block program whose configuration is measured once for each value of the arguments ``key``.

    ``prune(configs, positional arguments by name, **keywords)`` chooses those to measure; the arrays in ``zeroed`` begin each
    measured run as zeros.
    """

    function: JitFunction
    configs: list[Config]
    key: list[str]
    best: dict[Any, Config] = field(default_factory=dict)
    prune: Callable[..., Sequence[Config]] | None = None
    zeroed: tuple[str, ...] = ()

    @property
    def block_function(self) -> Callable[..., Any]:
        return self.function.block_function

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **keywords: self.run(grid, arguments, keywords)

    def run(self, grid: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Run with the best configuration for these arguments, finding it first when they are new."""
        config = self.configured(grid, arguments, keywords)
        if config.pre_hook is not None:
            config.pre_hook(self.function.bound(arguments, {**self.function.placed(keywords)[1], **config.kwargs}))
        self.function.run(grid, arguments, {**keywords, **config.kwargs})

    def configured(self, grid: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Config:
        """The configuration used for these arguments. Configurations that become the same kernel are measured once."""
        machine, keywords = self.function.placed(keywords)
        partial = self.function.signature.bind_partial(*arguments, **{k: v for k, v in keywords.items() if k not in OPTIONS}).arguments
        types = tuple(str(x.dtype) for v in partial.values() for x in _arrays(v) if is_array(x))
        key = (tuple(partial.get(k) for k in self.key), types, *([machine] if machine else []))
        if key not in self.best:
            configs = self._candidates(arguments, keywords)
            self.best[key] = self._measured(configs, grid, arguments, keywords, machine) if len(configs) > 1 else configs[0]
        return self.best[key]

    def _candidates(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> list[Config]:
        if self.prune is None:
            return self.configs
        left = list(self.prune(list(self.configs), dict(zip(self.function.signature.parameters, arguments, strict=False)), **keywords))
        if not left:
            raise LanguageError(f"autotune of {self.function.definition.name}: early_config_prune leaves no configuration")
        return left

    def _measured(
        self, configs: list[Config], grid: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], machine: Machine | None
    ) -> Config:
        distinct: dict[tuple[Kernel, int], tuple[Config, dict[str, Any]]] = {}
        for config in configs:
            named = _described(config, self.function.bound(arguments, {**keywords, **config.kwargs}))
            launch, _ = self.function.specialized(grid, named, build=False)
            distinct.setdefault((launch.kernel, id(config.pre_hook)), (config, named))
        found = list(distinct.values())
        if len(found) == 1:
            return found[0][0]
        return min(found, key=lambda f: self._seconds(f[0], grid, f[1], machine))[0]

    def _seconds(self, config: Config, grid: Any, named: dict[str, Any], machine: Machine | None) -> float:
        """The fastest of some launches; where the machine is simulated, what its cycle model says."""
        launch, values = self.function.specialized(grid, named, build=True, machine=machine)
        if machine is not None and has_words(machine):
            return float(launch.module.seconds)
        call = launch.module.bind(*values)
        passed: list[Any] = []
        for name in self.zeroed:
            self.function.spec(name, named[name], passed)
        zeroed = [x for x in passed if isinstance(x, np.ndarray)]
        times = []
        for _ in range(_REPEATS + 1):
            with _kept(values):
                for x in zeroed:
                    x[...] = 0
                start = time.perf_counter()
                if config.pre_hook is not None:
                    config.pre_hook(named)
                call()
                times.append(time.perf_counter() - start)
        return min(times[1:])  # the first one warms up


def _arrays(x: Any) -> tuple[Any, ...]:
    """The arrays an argument stands for."""
    return x.arrays if isinstance(x, Pointers) else (x.base,) if isinstance(x, TensorDescriptor) else (x,)


def _described(config: Config, named: dict[str, Any]) -> dict[str, Any]:
    """``named`` with the host's tensor descriptors as the hook of ``config`` sets them; nothing else stays changed."""
    made = {k: replace(v) for k, v in named.items() if isinstance(v, TensorDescriptor)}
    if config.pre_hook is None or not made:
        return named
    arrays = [as_numpy(v.base if isinstance(v, TensorDescriptor) else v, k) for k, v in named.items() if is_array(v) or k in made]
    with _kept(arrays):
        config.pre_hook({**named, **made})
    return {**named, **made}


@contextmanager
def _kept(values: Sequence[Any]) -> Iterator[None]:
    """Arrays hold afterwards what they hold now: each run is measured on the same numbers, and the caller's stay."""
    saved = [(v, v.copy()) for v in values if isinstance(v, np.ndarray) and v.flags.writeable]
    try:
        yield
    finally:
        for v, old in saved:
            v[...] = old


def autotune(
    configs: Sequence[Config],
    key: Sequence[str],
    prune_configs_by: Mapping[str, Any] | None = None,
    reset_to_zero: Sequence[str] | None = None,
    **options: Any,
) -> Callable[[JitFunction], Autotuner]:
    """Choose among ``configs`` by measuring, once for each combination of the arguments named in ``key``.

    ``prune_configs_by={"early_config_prune": f}``: only what ``f(configs, positional arguments by name, **keywords)`` returns
    is measured. ``reset_to_zero``: arrays that begin each measured run as zeros. The launch itself finds all arrays as they
    were. Options that say how to measure (:data:`MEASURING`) are accepted; LanguageError names others.
    """
    if not configs:
        raise LanguageError("autotune has no configuration to try", hint="configs=[Config({'BLOCK': 64})]")
    for o in (o for o in options if o not in MEASURING):
        known = ("configs", "key", "prune_configs_by", "reset_to_zero", *MEASURING)
        raise LanguageError(f"autotune has no option {o!r}", hint=_REFUSED.get(o, f"its options: {', '.join(known)}"))
    pruning = dict(prune_configs_by or {})
    prune = pruning.pop("early_config_prune", None)
    if pruning:
        hint = "'early_config_prune' chooses configurations; times are measured, a model of another machine's does not hold here"
        raise LanguageError(f"autotune: prune_configs_by has no entry {next(iter(pruning))!r}", hint=hint)

    def wrap(function: JitFunction) -> Autotuner:
        if not isinstance(function, JitFunction):
            raise LanguageError("autotune decorates a block program", hint="put @tilewright.jit below it")
        named = (*key, *(reset_to_zero or ()), *(options.get("restore_value") or ()))
        unknown = [k for k in named if k not in function.signature.parameters]
        if unknown:
            raise LanguageError(f"autotune: {function.definition.name} has no parameter {unknown[0]!r}")
        return Autotuner(function, list(configs), list(key), prune=prune, zeroed=tuple(reset_to_zero or ()))

    return wrap
