"""Contractions as index text: ``einsum("ik,kj->ij", a, b)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import mul

from tilewright.ir.expr import Const, Expr, Var
from tilewright.ir.types import DType
from tilewright.lang.reductions import Axis, reduce_axis, sum
from tilewright.lang.tensors import Tensor, compute
from tilewright.util.errors import LanguageError


def einsum(spec: str, *operands: Tensor, name: str = "out", dtype: DType | None = None) -> Tensor:
    """The tensor of products of ``operands``, summed over the letters that the result lacks.

    ``spec`` is explicit, like ``"bik,bkj->bij"``: one letter for each dimension. Raises
    LanguageError when ranks or extents do not fit.
    """
    inputs, arrow, output = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or len(terms) != len(operands) or not all(t.isalpha() or not t for t in [*terms, output]):
        raise LanguageError(f"einsum {spec!r} does not describe {len(operands)} operands", hint='write "ik,kj->ij" with one term for each')
    extents: dict[str, Expr] = {}
    for term, t in zip(terms, operands, strict=True):
        if len(term) != len(t.shape):
            raise LanguageError(f"einsum {spec!r}: {t.name} has {len(t.shape)} dimensions, its term {term!r} has {len(term)}")
        for letter, n in zip(term, t.shape, strict=True):
            known = extents.setdefault(letter, n)
            if known != n and isinstance(known, Const) and isinstance(n, Const):
                raise LanguageError(f"einsum {spec!r}: {letter!r} is {known.value} and, in {t.name}, {n.value}")
    if unknown := set(output) - set(extents):
        raise LanguageError(f"einsum {spec!r}: {sorted(unknown)[0]!r} of the result is in no operand")
    axes = [reduce_axis(0, n, letter) for letter, n in extents.items() if letter not in output]
    return compute(name, tuple(extents[c] for c in output), _product(terms, operands, output, axes), axes=list(output), dtype=dtype)


def _product(terms: list[str], operands: tuple[Tensor, ...], output: str, axes: list[Axis]) -> Callable[..., object]:
    def body(*indices: Var) -> object:
        at: dict[str, Var] = dict(zip(output, indices, strict=True)) | {a.name: a for a in axes}
        product = reduce(mul, (t[tuple(at[c] for c in term)] for term, t in zip(terms, operands, strict=True)))
        return sum(product, axes) if axes else product

    return body
