"""Syncs that are killed at any moment: each row once, one map, nothing asked for twice, every column back or named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_syncs.py"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the script forks")
def test_kills_at_twenty_moments() -> None:
    """Rows up, 40 vectors replaced and a map, killed at 20 moments, before and after a request is served."""
    words = ["--rows", "300", "--dim", "8", "--shard-rows", "100", "--kills", "20", "--timeout", "15"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["kills"], found["wrong"], found["unexplained_requests"], found["maps"]) == (20, [], 0, [1])
    for one in found["sessions"]:
        assert (one["whole"], one["rows_taken"], one["map_is_of_now"]) == (True, 340, True)
        assert (one["POST /v1/project/create"], one["POST /v1/project/index/create"]) == (1, 1)
    columns = found["columns"]
    assert columns.pop("share") == "named: numbers of 32-bit precision"
    assert set(columns) == {
        *("id", "uri", "content_hash", "width", "height"),
        *("label", "flag", "big", "day", "_private", "x"),
    }
    assert set(columns.values()) == {"restored"}
