"""The folder of a store: what makes it one, and how damage of that is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedstore import files
from embedstore.errors import DamagedStoreError, FormatVersionError, StoreNotFoundError
from embedstore.space import Space
from embedstore.storage.folder import Manifest, StoreFolder


@pytest.fixture
def made(tmp_path: Path) -> StoreFolder:
    return StoreFolder.create(tmp_path / "s.store", Space.given("mine", 4))


def test_every_flipped_bit_of_the_manifest_is_refused_or_changes_nothing(made: StoreFolder) -> None:
    """``store.json`` says what the vectors mean: no damage of it is believed."""
    file = made.path / "store.json"
    content, truth = file.read_bytes(), Manifest.read(made.path)
    refused = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert Manifest.read(made.path) == truth
        except DamagedStoreError:
            refused += 1
    assert refused > 5 * len(content)


def test_a_manifest_without_a_checksum_is_read(made: StoreFolder) -> None:
    """An earlier embedstore wrote none."""
    file = made.path / "store.json"
    content = json.loads(file.read_text())
    del content["checksum"]
    file.write_text(json.dumps(content))
    assert Manifest.read(made.path).space == made.space


def test_the_ledger_keeps_a_copy_of_the_manifest(made: StoreFolder) -> None:
    assert made.ledger.manifest() == (made.path / "store.json").read_text()


def test_a_newer_store_says_how_to_read_it(made: StoreFolder) -> None:
    content = json.loads((made.path / "store.json").read_text())
    (made.path / "store.json").write_text(json.dumps(files.sealed({**content, "format_version": 9})))
    with pytest.raises(FormatVersionError, match=r"format version 9.*newer embedstore"):
        StoreFolder.open(made.path)


def test_a_store_whose_manifest_is_gone_is_damaged_and_any_other_folder_is_no_store(
    made: StoreFolder, tmp_path: Path
) -> None:
    (made.path / "store.json").unlink()
    with pytest.raises(DamagedStoreError, match="is gone"):
        StoreFolder.open(made.path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(StoreNotFoundError, match=r"is a folder without store\.json"):
        StoreFolder.open(tmp_path / "photos")
