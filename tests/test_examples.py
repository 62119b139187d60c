"""Every example runs and says what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: File -> arguments and something its output holds.
PROGRAMS = {
    "block_attention.py": ((), ("attention: largest error", "attention (causal): largest error")),
    "block_gemmini.py": ((), ("quantised: ", "attention_1, attention_3")),
    "block_matmul.py": ((), ("grouped_matmul: largest error", "on a simulated Gemmini: exact")),
    "block_vectors.py": ((), ("block @add", "@kernel", "layer_norm: largest error")),
    "codesign.py": ((), ("machine: dim", "default machine / ours", "proven optimum", "report.html")),
    "demo.py": (("--quick", "--threads", "1"), ("agree", "of peak", "49 mappings", "theirs / ours", "--records", "report: ")),
    "kernels.py": ((), ("right", "GFLOP/s", "refused")),
    "quantised_resnet.py": ((), ("QLinearConv+Relu+MaxPool", "9 of 12 kernels on the array")),
    "toy_accelerator.py": ((), ("machine toy3",)),
}
#: Modules that programs import.
MODULES = {"light.py", "vit.py"}


def test_no_example_is_forgotten() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == MODULES | set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_example_runs(name: str, tmp_path: Path) -> None:
    arguments, said = PROGRAMS[name]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    assert all(text in done.stdout for text in said), done.stdout
    for named in re.findall(r"(?:--records|^report:) (\S+)", done.stdout, re.MULTILINE):
        assert Path(named).is_file(), "what the example tells its reader to use is there"
