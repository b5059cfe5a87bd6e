"""README's tables of speed and scale are what data/speed.json gives, and the estimates are their plain definitions."""

from __future__ import annotations

import copy
import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("readme_tables")


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("estimate_scale")


@pytest.fixture
def told(tables: ModuleType) -> dict[str, Any]:
    return dict(json.loads(tables.SPEED.read_text()))


def test_the_speed_tables_are_those_of_the_run(tables: ModuleType, told: dict[str, Any]) -> None:
    """Every figure between the markers is in data/speed.json, and another figure there would be seen."""
    shown = tables.between(tables.README.read_text(), "speed")
    assert shown == tables.speed_tables(told)
    other = copy.deepcopy(told)
    other["sizes"]["1000000"]["peers"]["numpy"]["seconds"]["top"][1] *= 2
    assert shown != tables.speed_tables(other)


def test_ratios_are_to_the_quickest_other_exact_peer(told: dict[str, Any]) -> None:
    """A ratio names the peer that it is to, and is the quotient of the two medians."""
    for found in told["sizes"].values():
        peers = found["peers"]
        rivals = {name for name, peer in peers.items() if peer["exact"] and not name.startswith("embedstore")}
        for work, ratio in peers["embedstore"]["ratios"].items():
            medians = {name: peers[name]["seconds"][work][1] for name in rivals if work in peers[name]["seconds"]}
            assert medians[ratio["to"]] == min(medians.values())
            own = peers["embedstore"]["seconds"][work][1]
            assert ratio["ratio"] == pytest.approx(own / medians[ratio["to"]])


def test_the_scale_table_follows_from_the_run(tables: ModuleType, estimates: ModuleType, told: dict[str, Any]) -> None:
    """README's table is computed from data/speed.json; rates that double would be seen."""
    shown = tables.between(tables.README.read_text(), "scale")
    assert shown == estimates.scale_table(told)
    slower = copy.deepcopy(told)
    slower["sizes"]["1000000"]["peers"]["embedstore"]["seconds"]["top"][1] *= 2
    assert shown != estimates.scale_table(slower)


def test_only_what_was_measured_stands_without_a_mark(estimates: ModuleType, told: dict[str, Any]) -> None:
    """The line of a million rows has the measured figures; every further one is marked as extrapolated."""
    lines = [line for line in estimates.scale_table(told).splitlines() if line.startswith("| 1")]
    assert [line.count("*") for line in lines] == [0, 5, 5, 5, 5]
    measured = estimates.Estimate.of(1_000_000, estimates.Rates.of(told))
    peers = told["sizes"]["1000000"]["peers"]
    assert measured.scan_seconds == pytest.approx(peers["embedstore"]["seconds"]["top"][1])
    assert measured.int8_seconds == pytest.approx(peers["embedstore + index"]["seconds"]["top"][1])
    assert measured.store_bytes == pytest.approx(1e6 * peers["embedstore"]["bytes_per_row"])


def test_estimates_are_their_plain_definitions(estimates: ModuleType) -> None:
    """By hand, for round rates: 3,000 B a row of which 2,500 are read, 100 ns a row by scan and 20 ns by int8."""
    rates = estimates.Rates(3_000, 2_500, 800, 50_000, 1e-7, 2e-8, 10e9, 2)
    found = estimates.Estimate.of(10**9, rates)
    assert (found.store_bytes, found.index_bytes) == (3e12, 8e11)
    assert found.add_seconds == 20_000
    assert found.int8_seconds == pytest.approx(20)
    assert found.machines == math.ceil(1e9 * 2_500 / 8e9) == 313
    assert found.scan_seconds == pytest.approx(100 / 313 * estimates.CLUSTER)
    assert found.api_seconds == pytest.approx(1e9 / 256)
    assert estimates.Estimate.of(10**6, rates).scan_seconds == pytest.approx(0.1)
    assert estimates.s3_dollars(1e12) == pytest.approx(23)
    assert estimates.s3_dollars(600e12) == pytest.approx(50_000 * 0.023 + 450_000 * 0.022 + 100_000 * 0.021)


def test_the_rule_comes_out_of_the_rates(estimates: ModuleType) -> None:
    """Exact up to the rows that one machine ranks in time; where everything is twice as quick, twice as many."""
    rates = estimates.Rates(3_000, 2_500, 800, 50_000, 1e-7, 2e-8, 10e9, 2)
    assert estimates.exact_rows(1.0, rates) == pytest.approx(50e6)
    assert estimates.advice(50_000_000, 1.0, rates) == "exact, int8 index"
    assert estimates.advice(50_000_001, 1.0, rates) == "approximate, `--kind ivf`; exact on 16 machines"
    assert estimates.advice(50_000_001, 0.3, rates) == "approximate, `--kind ivf`"
    assert estimates.advice(50_000_001, 2.0, rates) == "exact, int8 index"
    assert estimates.advice(10**10, 1.0, rates) == "approximate, another engine; exact on 3,125 machines"


def test_the_index_of_kind_ivf_is_as_the_estimate_says(estimates: ModuleType) -> None:
    """What the rule says of our approximate index is what is built and visited."""
    from embedstore.searching import index
    from embedstore.storage.parts import ROWS_PER_PART

    assert estimates.LISTS_VISITED == index._LISTS_VISITED
    assert estimates.PART == ROWS_PER_PART
    assert int(4 * math.sqrt(ROWS_PER_PART)) == estimates.LISTS_OF_A_PART


def test_markers_that_are_not_there_once_are_an_error(tables: ModuleType) -> None:
    first, last = tables.markers("speed")
    assert tables.replaced(f"a\n{first}\nold\n{last}\nb", "speed", "new") == f"a\n{first}\nnew\n{last}\nb"
    for text in ("nothing", f"{first}{last}{first}{last}"):
        with pytest.raises(ValueError, match="expected once"):
            tables.replaced(text, "speed", "new")
