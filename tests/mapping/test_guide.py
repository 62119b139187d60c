"""docs/mapping.md runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "mapping.md"


def test_every_python_block_of_the_guide_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    exec("\n".join(blocks), {})
    said = capsys.readouterr().out
    assert "i = (n*196 + p*14 + q) mod 16" in said
    assert "image would need two elements in slot (i=0, k=0): p moves image, but a[i, k] has no index j" in said
    assert "tensorize {'loop': " in said and "matmul(out_packed[" in said
