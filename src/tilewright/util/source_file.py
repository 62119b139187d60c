"""Python files that users name: machines, programs, rules."""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
from pathlib import Path
from types import ModuleType

from tilewright.util.errors import TilewrightError


def import_file(path: Path, error: type[TilewrightError], hint: str) -> ModuleType:
    """The file as a module, which is not kept in ``sys.modules``.

    ``error`` when there is no such file (``hint`` says what to name instead), it is not Python, or its code fails.
    """
    if not path.is_file():
        raise error(f"there is no file {path}", hint=hint)
    name = "tilewright_file_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{path} is not a Python file", hint=hint)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as e:
        raise error(f"{path} is not valid Python: {e}") from e
    except TilewrightError:
        raise
    except (Exception, SystemExit) as e:  # whatever the user's file raises; a script may end itself
        raise error(f"{path} fails when it is imported: {type(e).__name__}: {e}", hint="--debug shows where") from e
    finally:
        del sys.modules[name]
    return module
