"""The command as a whole: help, speed of starting, errors, exit codes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest
from tests.cli.command import tilewright, words
from typer.main import get_group

from tilewright.cli.app import ENTRIES, load
from tilewright.util.errors import ImportFailure


def test_help_starts_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tilewright.cli.app import run\nstatus = run(['--help'])\n"
        "heavy = {'numpy', 'llvmlite', 'islpy', 'onnx', 'torch'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else status)"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert all(entry.name in done.stdout for entry in ENTRIES)
    assert min(times) < 0.5  # seconds of processor time: other load on the computer does not count


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_command_has_examples_and_the_summary_it_is_listed_with(entry) -> None:
    command = load(entry)
    assert (command.help or "").strip().partition("\n")[0] == entry.summary
    result = tilewright(entry.name, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output and re.search(rf"(^|\s|/)tilewright {entry.name}\b", words(result.output))


def test_unknown_command_suggests_the_nearest() -> None:
    result = tilewright("doktor")
    assert result.exit_code == 2 and "Did you mean 'doctor'?" in words(result.output)


def test_version() -> None:
    import tilewright as package

    assert tilewright("--version").output == f"tilewright {package.__version__}\n"


def test_errors_are_messages_with_hints_and_no_traceback(tmp_path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    result = tilewright("run", str(tmp_path / "broken.onnx"))
    assert result.exit_code == 1
    assert "error:" in result.output and "hint:" in result.output and "Traceback" not in result.output
    assert not result.stdout


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError("16 PiB wanted"), "error: memory does not suffice: 16 PiB wanted hint: smaller sizes"),
        (MemoryError(), "error: memory does not suffice hint: smaller sizes"),
        (OSError(28, "No space left on device"), "error: the system refused: No space left on device hint: --debug"),
        (OSError(5, "Input/output error", "f.db"), "error: the system refused: Input/output error (f.db) hint: --debug"),
    ],
)
def test_what_the_system_refuses_is_said_without_a_traceback(raised: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise raised

    monkeypatch.setattr("tilewright.cli.doctor.doctor", refuse)
    result = tilewright("doctor")
    assert result.exit_code == 1 and said in words(result.output) and "Traceback" not in result.output
    assert tilewright("--debug", "doctor").exception is raised


def test_output_that_finds_no_room_is_an_error() -> None:
    command = f"{sys.executable} -m tilewright.cli map matmul --shape i=16,j=16,k=16 > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "No space left on device" in words(done.stderr) and "Traceback" not in done.stderr


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m tilewright.cli opt conv2d --emit llvm | head -c 20"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert not done.stderr and len(done.stdout) == 20


@pytest.mark.parametrize("args", [("tune", "matmul", "--seed", "-1"), ("run", "model.onnx", "--seed", "-1")])
def test_seeds_are_not_negative(args: tuple[str, ...]) -> None:
    result = tilewright(*args)
    assert result.exit_code == 2 and "Invalid value for '--seed'" in words(result.output)


def test_extents_beyond_all_memory_are_refused() -> None:
    result = tilewright("tune", "matmul", "--shape", "i=8,j=99999999999,k=99999999999", "--trials", "1")
    assert result.exit_code == 1 and "operand w of MatMul has 9999999999800000000001 elements" in words(result.output)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_debug_anywhere_shows_where(position: int, tmp_path) -> None:
    args = ["run", str(tmp_path / "missing.onnx"), "--threads", "1"]
    args.insert(position, "--debug")
    assert isinstance(tilewright(*args).exception, ImportFailure)


def test_commands_of_a_terminal_program_agree_with_the_listed_ones() -> None:
    from tilewright.cli.app import build_app

    assert list(get_group(build_app()).commands) == [e.name for e in ENTRIES]
