import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vidistill.errors import UserError
from vidistill.methods import latency_table
from vidistill.methods.delta import Delta
from vidistill.methods.latency_table import ITSELF, block_costs
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.search import Search

FULL, THIN, NOTHING = StudentSpec("copy"), StudentSpec("separable"), StudentSpec("nothing")
EXAMPLE = torch.zeros(1, 3, 16, 24)


def test_each_call_of_a_shared_block_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwoSizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, frame):
            return self.shared(frame).mean() + self.shared(frame[..., ::2, ::2]).mean()

    sizes = {"(1, 3, 16, 24)": 4.0, "(1, 3, 8, 12)": 1.0}

    def times(functions, *, title: str) -> dict[str, float]:
        known = {"network": 7.0, "measured": 3.0}
        return {name: known.get(name) or sum(t for size, t in sizes.items() if size in name) for name in functions}

    monkeypatch.setattr(latency_table, "median_milliseconds", times)
    search, selection = Search((FULL, NOTHING), "latency"), Selection(leave_first=0, leave_last=0)
    plan = plan_conversion(TwoSizes(), EXAMPLE, selection, search.candidates)
    table = latency_table.measure_table(TwoSizes(), plan, search, (16, 24))
    assert table.blocks == {"shared": {ITSELF: 5.0, "copy": 5.0, "nothing": 5.0}}
    assert table.whole["predicted"] == 7.0
    assert "measured 3.0 ms, a gap of 133% (the network: 7.0 ms); measure again on an idle machine" in str(table)


def test_a_latency_table_is_kept_and_refused_elsewhere(network, tmp_path: Path) -> None:
    search = Search((FULL, THIN, NOTHING), "latency", table=tmp_path / "table.json")
    student = Delta(search=Search((FULL, THIN, NOTHING))).prepare(network, EXAMPLE)
    costs = block_costs(network, student, search, Selection(), (16, 24))
    kept = json.loads((tmp_path / "table.json").read_text())
    assert set(kept["blocks"]) == set(costs) == {"body.0", "mix"}
    whole = sum(block[ITSELF] for block in kept["blocks"].values())
    assert costs["mix"][1].item() == pytest.approx(kept["blocks"]["mix"]["separable of 4 channels"] / whole)
    assert {"network", "measured", "predicted"} == set(kept["whole"])
    again = block_costs(network, student, search, Selection(), (16, 24))
    assert all(torch.equal(again[path], costs[path]) for path in costs), "read, not measured again"
    with pytest.raises(UserError, match=r"table\.json: was measured for size \[16, 24\], this run needs \[32, 24\]"):
        block_costs(network, student, search, Selection(), (32, 24))
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(UserError, match="delete it to measure again"):
        block_costs(network, student, search, Selection(), (16, 24))
