"""ONNX's own backend node tests against this package: how many pass, and why the rest do not.

    python benchmarks/onnx_node_tests.py [--filter REGEX] [--reference] [--json FILE]

Prints the count and the failures grouped by reason; exit status 1 if fewer than --floor pass.
``--reference`` runs the kernels through the reference semantics instead of compiling them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections import defaultdict
from typing import Any

from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner, _normalize_tensor

from tilewright.graph.backend import PreparedModel
from tilewright.util.errors import TilewrightError, UnsupportedOperator

PASS = "pass"


def reason(error: Exception) -> str:
    """The group a failure belongs to."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if isinstance(error, UnsupportedOperator):
        named = re.search(r"^\s+(\S+) \(opset", str(error), re.M) or re.match(r"(\S+) node", first)
        return f"unsupported operator {named[1] if named else first}"
    if (found := re.search(r"element type (\w+), which is not supported", first)) is not None:
        return f"unsupported element type {found[1]}"
    if re.search(r"is an? (sequence|optional)", first):
        return "sequence or optional input"
    if isinstance(error, TilewrightError):
        return f"{type(error).__name__}: " + re.sub(r"'[^']*'", "'..'", first)[:120]
    if isinstance(error, AssertionError):
        return "wrong result"
    if isinstance(error, ValueError) and "inhomogeneous" in first:
        return "sequence or optional input"
    return f"{type(error).__name__}: {first[:100]}"


def run(case: Any, *, native: bool) -> None:
    """Compile and run one case on all its data sets, comparing with its tolerance."""
    for inputs, outputs in case.data_sets:
        got = PreparedModel(case.model, native=native).run([_normalize_tensor(i) for i in inputs])
        Runner.assert_similar_outputs([_normalize_tensor(o) for o in outputs], got, case.rtol, case.atol)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="only tests whose name matches this regular expression")
    parser.add_argument("--reference", action="store_true", help="run the reference semantics instead of compiled code")
    parser.add_argument("--json", help="write names by reason to this file")
    parser.add_argument("--floor", type=int, default=0, help="fail when fewer tests pass")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # raised by the generators of the test data
    cases = [c for c in collect_testcases(None) if re.search(options.filter, c.name)]
    groups: dict[str, list[str]] = defaultdict(list)
    start = time.perf_counter()
    for number, case in enumerate(cases, 1):
        try:
            run(case, native=not options.reference)
            groups[PASS].append(case.name)
        except Exception as error:  # every failure is a row of the report
            groups[reason(error)].append(case.name)
        if sys.stderr.isatty():
            print(f"\r{number}/{len(cases)}", end="", file=sys.stderr)
    passed = len(groups[PASS])
    print(f"{passed} of {len(cases)} node tests pass ({time.perf_counter() - start:.0f} s)\n")
    for why, names in sorted(groups.items(), key=lambda g: -len(g[1])):
        if why != PASS:
            print(f"{len(names):5}  {why}\n       {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"passed": passed, "total": len(cases), "by_reason": dict(groups)}, file, indent=1)
    return 0 if passed >= options.floor else 1


if __name__ == "__main__":
    sys.exit(main())
