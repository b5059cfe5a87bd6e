"""The commands that look after a store do what their methods do."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import run, run_process

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


def test_remove_says_first_and_restore_brings_back(store: EmbedStore, pictures: Path) -> None:
    """A dry run lists the records and changes nothing; ids come on stdin; the message's own command undoes it."""
    path, before = store.path, store.version
    cats = store.to_table(["id", "uri"], where="label = 'cat'").to_pylist()
    told = run("remove", path, "--where", "label = 'cat'", "--dry-run").stdout.splitlines()
    assert told[0] == "4 would be removed, 8 left"
    assert [line.split()[0] for line in told[1:]] == [row["id"] for row in cats]
    asked = run("remove", path, cats[1]["id"], cats[0]["id"], cats[1]["id"], "--dry-run", "--json").stdout
    assert json.loads(asked) == {"removed": 2, "images": 10, "dry_run": True, "records": [cats[1], cats[0]]}
    assert EmbedStore.open(path).version == before
    assert run("remove", path, "-", stdin="").stdout == "0 removed, 12 left\n"
    result = run("remove", path, "-", stdin="".join(f"{row['id']}\r\n" for row in cats))
    assert result.stdout == f"4 removed, 8 left; `embedstore restore {path} {before}` brings them back\n"
    assert run("remove", path, "-", stdin="nobody\n").exit_code == 1
    assert "6 found" not in run("add", path, pictures / "cat").stdout
    assert EmbedStore.open(path).info()["images"] == 12
    restored = run("restore", path, before + 1, "--json")
    assert json.loads(restored.stdout) == {"restored": before + 1, "version": before + 3, "images": 8}
    text = f"version {before + 4} has the rows of version {before}: 12 images, where there were 8\n"
    assert run("restore", path, before).stdout == text
    assert "nothing to do" in run("restore", path, before).stdout


def test_found_again_until_a_vacuum_whose_cost_is_said(store: EmbedStore, pictures: Path) -> None:
    """Removed, and added again by a process of its own without a request; info and a dry run name the cost; then it is
    paid, and the version is gone."""
    path = store.path
    assert run("remove", path, "--where", "label = 'cat'").exit_code == 0
    again = run_process("add", path, pictures / "cat", "--model", "objects")
    assert "4 found: 4 found again in older versions" in again.stdout
    run("remove", path, "--where", "label is null")
    cost = "4 images are in them alone, and would have to be embedded again"
    told = run("info", path).stdout
    assert f"only older versions need: `embedstore vacuum {path} --keep-hours 0` deletes them; {cost}\n" in told
    assert f"MB) would be deleted; {cost}\n" in run("vacuum", path, "--keep-hours", 0, "--dry-run").stdout
    assert json.loads(run("vacuum", path, "--keep-hours", 0, "--dry-run", "--json").stdout)["images"] == 4
    assert "MB) deleted\n" in run("vacuum", path, "--keep-hours", 0).stdout
    assert "older" not in run("info", path).stdout
    refused = run("restore", path, store.version)
    assert refused.exit_code == 1
    assert "vacuum has removed; choose a later version" in refused.stderr
    assert "4 embedded" in run("add", path, pictures).stdout
