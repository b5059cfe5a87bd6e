"""The commands that look after a store do what their methods do."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import run

from embedstore.store import EmbedStore


def test_a_store_is_looked_after_from_the_command_line(store: EmbedStore, pictures: Path) -> None:
    """info, versions, remove, compact, vacuum and verify do what their methods do."""
    assert "12 images" in run("info", store.path).stdout
    assert json.loads(run("info", store.path, "--json").stdout)["images"] == 12
    assert json.loads(run("remove", store.path, "--where", "label == 'cat'", "--json").stdout) == {
        "removed": 4,
        "images": 8,
    }
    assert len(run("versions", store.path, "--nl").stdout.splitlines()) == store.version + 2
    assert "2 parts" not in run("compact", store.path).stdout
    assert "would be deleted" in run("vacuum", store.path, "--keep-hours", 0, "--dry-run").stdout
    assert run("vacuum", store.path, "--keep-hours", 0).exit_code == 0
    result = run("verify", store.path, "--deep")
    assert result.exit_code == 0
    assert "the store is sound" in result.stdout
    (pictures / "dog" / "01.png").unlink()
    assert json.loads(run("verify", store.path, "--json").stdout)["missing_files"] == [str(pictures / "dog" / "01.png")]


def test_verify_of_a_damaged_store_exits_with_1(store: EmbedStore) -> None:
    """A script can tell."""
    part = store.snapshot.parts[0]
    data = bytearray(part.path.read_bytes())
    data[(part.blocks or ())[0].offset + 3] ^= 0x7F
    part.path.write_bytes(data)
    result = run("verify", store.path)
    assert result.exit_code == 1
    assert "damaged" in result.stdout
