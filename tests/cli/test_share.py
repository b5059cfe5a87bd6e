"""The commands that keep a store and Atlas in step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from atlas_stores import NAME, vector_store
from click.testing import CliRunner

from embedstore.cli import main
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_command_line(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """The command plans, syncs, and refuses with exit status 1; its JSON is the report."""
    runner = CliRunner()
    path = str(small.path)
    dry = runner.invoke(main, ["sync", "atlas", path, NAME, "--create", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "60 missing" in dry.output
    assert server.atlas.datasets() == []
    missing = runner.invoke(main, ["sync", "atlas", path, NAME, "--no-create"])
    assert missing.exit_code == 1
    assert "--create" in missing.output
    done = runner.invoke(main, ["sync", "atlas", path, NAME, "--create", "--index", "--json", "-q"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sent"] == 60
    copy = str(tmp_path / "copy.store")
    pulled = runner.invoke(main, ["add", copy, f"atlas://{NAME}"])
    assert pulled.exit_code == 0, pulled.output
    assert len(EmbedStore.open(copy)) == 60
    assert runner.invoke(main, ["add", copy, f"atlas://{NAME}", "--dry-run"]).exit_code == 2
