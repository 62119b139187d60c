"""Area of Gemminis: any kind of value, growth, and the published figures where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import area_model
from tilewright.hw.library.gemmini_costs import AREA, AREA_TERMS, area
from tilewright.hw.load import list_machines, load_machine
from tilewright.util.errors import MachineError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "timeloop_mappings.csv.gz"
DEFAULT = {"dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10}


def test_area_grows_with_every_parameter_and_takes_arrays_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    base = area(DEFAULT)
    for name in DEFAULT:
        assert area({**DEFAULT, name: 2 * DEFAULT[name]}) > base
    assert np.allclose(area({**DEFAULT, "dim": np.array([16, 16])}), base)
    dim = torch.tensor(16.0, requires_grad=True)
    area({**DEFAULT, "dim": dim}).backward()
    assert float(dim.grad) == pytest.approx((area({**DEFAULT, "dim": 16.001}) - base) / 0.001, rel=1e-3)


def test_a_file_of_the_library_without_machines_is_no_machine() -> None:
    assert not any(n.startswith("gemmini_costs") for n in list_machines())
    with pytest.raises(MachineError, match="no machine 'gemmini_costs'"):
        load_machine("gemmini_costs")


@pytest.mark.skipif(
    not PUBLISHED.is_file(), reason=f"the published table is not at {PUBLISHED.name} beside the repository (../shared/data)"
)
def test_constants_are_those_of_the_fit_and_their_error_is_small() -> None:
    terms, areas = area_model.load(PUBLISHED)
    assert np.allclose(area_model.fit(terms, areas), [AREA[name] for name in AREA_TERMS], rtol=1e-3)
    left_out = np.abs(area_model.held_out(terms, areas))
    assert len(areas) == 65 and left_out.mean() < 0.06 and left_out.max() < 0.19
