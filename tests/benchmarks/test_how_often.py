"""The whole grid behind "How often compression pays", which its page is too short for; takes minutes.

``pytest tests/benchmarks/test_how_often.py -m benchmark -s`` prints the page's table of all models.
"""

from pathlib import Path

import pytest

from gradwire.analysis.frequency import how_often, setups
from gradwire.sim.models.registry import MODELS

WORKERS = [8, 16, 32, 64, 96]
NETWORKS = ["10 Gbit/s", "25 Gbit/s", "100 Gbit/s"]
PAGE = Path(__file__).parents[2] / "docs" / "background" / "how-often.md"


@pytest.mark.benchmark
def test_the_page_has_the_counts_of_all_models() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = []
    for model in MODELS:
        found = setups([model], WORKERS, NETWORKS)
        counts = how_often(found, by=lambda one: one.bandwidth)
        cells = []
        for network in NETWORKS:
            total, some, _ = counts[network]
            most = max(one.most for one in found if one.bandwidth == network)
            cells.append(f"{some} of {total}, {most:.0%}")
        line = f"| `{model}` | {' | '.join(cells)} |"
        print(line)
        missing += [line] * (line not in page)
    assert not missing, "the page does not have:\n" + "\n".join(missing)
