"""Measured rates of a million rows -> bytes, seconds and dollars for up to ten thousand times as many.

    python scripts/estimate_scale.py [--per-1000-pictures DOLLARS] [--seconds 1]

Reads data/speed.json. Times grow with the rows: a search reads every vector, or every whole number of the int8 index,
once. What was not measured is marked; what no run here can tell, prices and what a cluster costs, are the assumptions
below, each with its source. `bench_all` puts the table into README.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEED = Path(__file__).parents[1] / "data" / "speed.json"
SIZES = tuple(10**power for power in range(6, 11))
MEASURED = 1_000_000

S3_DOLLARS = ((50e12, 0.023), (450e12, 0.022), (math.inf, 0.021))
"""Dollars a month for each GB (1e9 bytes), for so many bytes, then for the next: S3 Standard, us-east-1. The first is
that of https://cloudburn.io/blog/amazon-s3-pricing (13 March 2026), the three together those of
https://gist.github.com/EverettBerry/a37438006529a55f42da6fdbc44a505c (7 July 2022); Amazon's own page fills its figures
in late, so that no stored copy has them. Requests ($0.0004 for 1,000 GETs in several public estimates) and traffic are
not in it: to read a million rows once takes some 25 parts."""
MEMORY_SHARE = 0.8
"""How much of a machine's memory may hold what each search reads; the rest is left to the system and processes."""
CLUSTER = 1.2
"""How much longer a search takes on a Ray cluster than in one process: the largest median, on one node with two
workers, rounded up (README, "Many machines"). No cluster of more machines was measured."""
REQUESTS_A_SECOND, PICTURES_A_REQUEST = 1200 / 300, 64
"""Nomic's rate limit for one address (https://docs.nomic.ai/api/getting-started/rate-limits, read on 2026-11-30), and
what a request of `embedstore add` holds. No page with their price for pictures was found
that day: give it as an option."""
LISTS_VISITED, LISTS_OF_A_PART, PART = 16, 800, 40_000
"""Of an index of kind ivf, whose codes are half as long as the vectors: see `searching.index`."""


@dataclass(frozen=True)
class Rates:
    """What was measured with a million rows on one machine."""

    row_bytes: float
    """Of the store, metadata included."""
    vector_bytes: float
    index_bytes: float
    add_rows_a_second: float
    scan_seconds: float
    """Of a top-20, for each row."""
    int8_seconds: float
    memory_bytes: float
    cores: int

    @classmethod
    def of(cls, told: dict[str, Any]) -> Rates:
        """Return the rates in data/speed.json."""
        peers = told["sizes"][str(MEASURED)]["peers"]
        plain, indexed = peers["embedstore"], peers["embedstore + index"]
        return cls(
            plain["bytes_per_row"],
            4 * told["dim"],
            indexed["bytes_per_row"] - plain["bytes_per_row"],
            plain["rows_per_second"],
            plain["seconds"]["top"][1] / MEASURED,
            indexed["seconds"]["top"][1] / MEASURED,
            told["machine"]["memory_bytes"],
            told["machine"]["cores"],
        )

    @property
    def rows_in_memory(self) -> float:
        """Rows whose vectors one such machine keeps in memory."""
        return MEMORY_SHARE * self.memory_bytes / self.vector_bytes

    @property
    def ivf_share(self) -> float:
        """The share of the vectors' bytes that a search by an index of kind ivf reads: lists, and their centres."""
        return LISTS_VISITED / LISTS_OF_A_PART / 2 + LISTS_OF_A_PART / PART


@dataclass(frozen=True)
class Estimate:
    """What one number of rows comes to."""

    rows: int
    store_bytes: float
    index_bytes: float
    s3_dollars: float
    """A month, store and index."""
    api_seconds: float
    add_seconds: float
    """Writing rows whose vectors are there already, by one process."""
    int8_seconds: float
    """On one machine with so many cores as were measured and memory for the index."""
    machines: int
    """Like the one measured, that hold the vectors in memory together."""
    scan_seconds: float
    """On those."""

    @classmethod
    def of(cls, rows: int, rates: Rates) -> Estimate:
        """Return the estimate for a number of rows."""
        store, index = rows * rates.row_bytes, rows * rates.index_bytes
        machines = math.ceil(rows / rates.rows_in_memory)
        scan = rows * rates.scan_seconds / machines * (CLUSTER if machines > 1 else 1)
        return cls(
            rows,
            store,
            index,
            s3_dollars(store + index),
            rows / (REQUESTS_A_SECOND * PICTURES_A_REQUEST),
            rows / rates.add_rows_a_second,
            rows * rates.int8_seconds,
            machines,
            scan,
        )

    @property
    def extrapolated(self) -> bool:
        """Whether more rows than were measured."""
        return self.rows > MEASURED


def s3_dollars(stored: float) -> float:
    """Return what so many bytes cost a month."""
    dollars = 0.0
    for most, price in S3_DOLLARS:
        dollars += min(stored, most) / 1e9 * price
        stored -= min(stored, most)
    return dollars


def exact_rows(seconds: float, rates: Rates) -> float:
    """Return how many rows one machine ranks exactly within so many seconds, by the int8 index."""
    return seconds / rates.int8_seconds


def advice(rows: int, seconds: float, rates: Rates) -> str:
    """Return by what to rank so many rows within so many seconds.

    Exact while one machine is quick enough; then by our own approximate index while that is; then by an engine whose
    index is one for all rows, since ours is one for each part and so grows with the rows as a scan does. A cluster
    whose memory holds the vectors is named where it is quick enough.
    """
    if rows <= exact_rows(seconds, rates):
        return "exact, int8 index"
    ours = rows * rates.scan_seconds * rates.ivf_share <= seconds
    cluster = Estimate.of(rows, rates)
    instead = f"; exact on {cluster.machines:,} machines" if cluster.scan_seconds <= seconds else ""
    return ("approximate, `--kind ivf`" if ours else "approximate, another engine") + instead


def scale_table(told: dict[str, Any], seconds: float = 1.0, price: float | None = None) -> str:
    """Return README's table and the rule under it."""
    rates = Rates.of(told)
    estimates = [Estimate.of(rows, rates) for rows in SIZES]
    head = (
        "| rows | store | int8 index | S3, a month | embedding: API's dollars, and time at its limit | written in | "
        f"top-20 by int8, {rates.cores} cores | top-20 by scan, machines | ranked within {_time(seconds)} by |"
    )
    lines = [head, "|---" * 9 + "|", *(_line(each, rates, seconds, price) for each in estimates)]
    return "\n".join([*lines, "", *_rule(rates, seconds)])


def _line(each: Estimate, rates: Rates, seconds: float, price: float | None) -> str:
    mark = "*" if each.extrapolated else ""
    asked = f"{each.rows // 1000:,} p" if price is None else f"${each.rows / 1000 * price:,.0f}"
    machines = f"{each.machines:,} machine{'s' * (each.machines > 1)}"
    cells = [
        f"{each.rows:,}",
        _size(each.store_bytes) + mark,
        _size(each.index_bytes) + mark,
        f"${each.s3_dollars:,.2f}" if each.s3_dollars < 10 else f"${each.s3_dollars:,.0f}",
        f"{asked}, {_time(each.api_seconds)}",
        _time(each.add_seconds) + mark,
        _time(each.int8_seconds) + mark,
        f"{_time(each.scan_seconds)}{mark}, {machines}",
        advice(each.rows, seconds, rates),
    ]
    return f"| {' | '.join(cells)} |"


def _rule(rates: Rates, seconds: float) -> list[str]:
    own = seconds / (rates.scan_seconds * rates.ivf_share)
    return [
        f"Measured: 1,000,000 rows on one machine with {rates.cores} cores and {rates.memory_bytes / 2**30:.0f} GiB; "
        "what is marked \\* is extrapolated from that in proportion to the rows.",
        f"S3 Standard at ${S3_DOLLARS[0][1]} a GB, less from 50 TB on (US East, March 2026), without requests. `p` is "
        "the API's price of 1,000 pictures, of which no list was found",
        "(`scripts/estimate_scale.py --per-1000-pictures DOLLARS` puts it in); its limit is 1,200 requests in five "
        f"minutes, {PICTURES_A_REQUEST} pictures each.",
        f"int8 is for one machine with memory for the index; the scan for as many as hold the vectors in "
        f"{MEMORY_SHARE:.0%} of their memory, {CLUSTER} times as slow as one process where they are several.",
        "",
        f"The rule: stay exact while the int8 index answers in time, within {_time(seconds)} up to "
        f"{_rows(exact_rows(seconds, rates))} rows on {rates.cores} cores, and in proportion on more.",
        f"From there on *rank* by an approximate index: `embedstore index --kind ivf` reads {rates.ivf_share:.0%} of "
        f"the vectors' bytes, so up to {_rows(own)} rows (by the bytes, not measured);",
        "beyond that take an engine with one index for all rows, as ours is one for each part (FAISS IVF-PQ, DiskANN, "
        "Lance), fed from the table.",
        "A *threshold*, a count or a curve stays exact at any size, by a scan: approximate indexes leave matches out "
        "and do not say which.",
    ]


def _rows(count: float) -> str:
    """Return a number of rows with two digits that count."""
    digits = 10 ** (math.floor(math.log10(count)) - 1)
    return f"{round(count / digits) * digits:,.0f}"


def _size(stored: float) -> str:
    for unit in ("GB", "TB"):
        stored /= 1e9 if unit == "GB" else 1e3
        if stored < 1000 or unit == "TB":
            break
    return f"{stored:.2g} {unit}" if stored < 10 else f"{stored:,.0f} {unit}"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    units = ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h"), (math.inf, 86_400, "days"))
    unit, name = next((unit, name) for most, unit, name in units if seconds < most)
    found = seconds / unit
    return f"{found:.2g} {name}" if found < 10 else f"{found:,.0f} {name}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-1000-pictures", type=float, help="what the API asks, in dollars")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a search may take")
    chosen = parser.parse_args()
    print(scale_table(json.loads(SPEED.read_text()), chosen.seconds, chosen.per_1000_pictures))


if __name__ == "__main__":
    main()
