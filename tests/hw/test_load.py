"""Machines are found by name in the library and by path anywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tilewright.hw import Machine, list_machines, load_machine
from tilewright.util.errors import MachineError

ROOT = Path(__file__).parents[2]
TWO_MACHINES = """
from tilewright.hw import Machine, Memory, Unit

def sized(name, count):
    return Machine(name, memories=[Memory("dram", "main", None, level=1)], units=[Unit("core", count)])

small = sized("mine.small", 1)
big = sized("mine.big", 8)
_hidden = sized("mine.hidden", 2)
"""

LIBRARY = {
    "arm.dotprod",
    "cuda.sm70",
    "cuda.sm80",
    "cuda.sm90",
    "gemmini",
    "gemmini.bf16",
    "gemmini.fp16",
    "gemmini.fp32",
    "mali.g76",
    "virtual.axpy",
    "virtual.gemv",
    "virtual.pointwise",
    "vta.pynq",
    "x86.amx",
    "x86.avx2",
    "x86.avx512",
    "x86.vnni",
    "x86.zen4",
}


def test_library_is_complete() -> None:
    assert set(list_machines()) >= LIBRARY
    for name in LIBRARY:
        assert load_machine(name).name == name


def test_unknown_machine_lists_the_known_ones() -> None:
    with pytest.raises(MachineError, match=r"cuda\.sm80") as caught:
        load_machine("tpu.v9")
    assert "there is no machine 'tpu.v9'" in str(caught.value)
    with pytest.raises(MachineError, match=r"cuda has: cuda\.sm70"):
        load_machine("cuda.sm99")


def test_family_name_means_its_last_machine() -> None:
    assert load_machine("cuda").name == "cuda.sm90"


def test_file_with_two_machines(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TWO_MACHINES)
    assert load_machine(file).name == "mine.big"
    assert load_machine(f"{file}:mine.small").cores == 1
    with pytest.raises(MachineError, match=r"it has: mine.small, mine.big"):
        load_machine(f"{file}:mine.hidden")
    file.write_text(TWO_MACHINES.replace("8", "16"))
    assert load_machine(file).cores == 16


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="there is no file"):
        load_machine(tmp_path / "absent.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(MachineError, match="declares no Machine"):
        load_machine(tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("def (:\n")
    with pytest.raises(MachineError, match="not valid Python"):
        load_machine(tmp_path / "broken.py")
    (tmp_path / "failing.py").write_text("import no_such_package\n")
    with pytest.raises(MachineError, match="fails when it is imported: ModuleNotFoundError: No module named"):
        load_machine(tmp_path / "failing.py")


def test_a_script_that_ends_itself_is_no_machine(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(MachineError, match="fails when it is imported: SystemExit: 3"):
        load_machine(str(tmp_path / "script.py"))


def test_example_accelerator_is_loaded_by_path_and_runs() -> None:
    path = ROOT / "examples" / "toy_accelerator.py"
    m = load_machine(path)
    assert (m.name, m.instruction("multiply").macs) == ("toy3", 8 * 8 * 16)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("machine toy3: 1 x array at 0.5 GHz")


def test_guide_code_runs() -> None:
    """The Python blocks of docs/declare_a_machine.md, executed in order as one file."""
    text = (ROOT / "docs" / "declare_a_machine.md").read_text()
    blocks = [b.partition("```")[0] for b in text.split("```python\n")[1:]]
    assert len(blocks) >= 5
    program = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", _as_file(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _as_file(program: str) -> str:
    """A program that writes ``program`` to a file (declarations need their source) and runs it."""
    return f"""
import pathlib, runpy, tempfile
with tempfile.TemporaryDirectory() as d:
    file = pathlib.Path(d) / "guide.py"
    file.write_text({program!r})
    runpy.run_path(str(file))
"""


def test_importing_hw_loads_no_heavy_module() -> None:
    heavy = "{'llvmlite', 'islpy', 'onnx', 'torch', 'scipy'}"
    code = f"import sys, tilewright.hw as hw; hw.load_machine('x86.avx512'); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_host_is_a_machine_that_can_be_loaded() -> None:
    assert load_machine("host") == Machine.host()


def test_parameters_after_a_colon() -> None:
    name = "gemmini:dim=8,inputs=bf16,column=f32,dma_bytes=32"
    m = load_machine(name)
    assert m.name == name and m is load_machine(name)
    assert (m.parameters["dim"], m.parameters["dma_bytes"], m.parameters["column_bits"]) == (8, 32, 32)
    assert str(m.instruction("matmul")) == "matmul(c: f32[8, 8] @ acc, a: bf16[8, 8] @ spad, b: bf16[8, 8] @ spad)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemmini:colour=3", "gemmini has no parameter 'colour'"),
        ("gemmini:types=f32", "gemmini has no parameter 'types'"),
        ("gemmini:", "gemmini has no parameter ''"),
        ("gemmini:dim=wide", "parameter dim of gemmini is 'wide', not a whole number"),
        ("gemmini:inputs=i4", "parameter inputs of gemmini is 'i4', not an element type"),
        ("gemmini:inputs=f64", "multiplies f64 into f32"),
        ("vta:dim=3", "'vta' has no parameters"),
        ("gemmini.fp64", "there is no machine 'gemmini.fp64'"),
    ],
)
def test_parameters_that_are_none(name: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        load_machine(name)
