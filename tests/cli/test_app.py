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


@pytest.mark.parametrize("position", [0, 1, 3])
def test_debug_anywhere_shows_where(position: int, tmp_path) -> None:
    args = ["run", str(tmp_path / "missing.onnx"), "--threads", "1"]
    args.insert(position, "--debug")
    assert isinstance(tilewright(*args).exception, ImportFailure)


def test_commands_of_a_terminal_program_agree_with_the_listed_ones() -> None:
    from tilewright.cli.app import build_app

    assert list(get_group(build_app()).commands) == [e.name for e in ENTRIES]
