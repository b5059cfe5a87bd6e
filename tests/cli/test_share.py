"""The commands that keep a store and Atlas in step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from atlas_stores import NAME, vector_store
from click.testing import CliRunner

import embedstore
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


def test_for_a_newcomer(server: NomicServer, small: EmbedStore) -> None:
    """A bare name is a dataset of the key's own organisation, made without being told to; it may be described."""
    words = ["sync", "atlas", str(small.path), "Cats and_dogs", "--description", "Both", "--index"]
    done = CliRunner().invoke(main, [*words, "--topic-model", '{"build_topic_model": false}'])
    assert done.exit_code == 0, done.output
    assert "stand-in/cats-and-dogs (made now, private): 60 rows sent" in done.stdout
    dataset = server.atlas.dataset("cats-and-dogs")
    assert dataset.description.startswith("Both\n")
    near = CliRunner().invoke(main, ["sync", "atlas", str(small.path), "cats-and-dog"])
    assert near.exit_code == 1
    assert "did you mean that? --create makes a new one" in near.stderr
    wrong = CliRunner().invoke(main, [*words, "--topic-model", "{build"])
    assert (wrong.exit_code, "is no JSON" in wrong.stderr) == (2, True)


def test_python_has_it_too(server: NomicServer, small: EmbedStore) -> None:
    """`embedstore.sync` does in one call what the command does, with a store or its path."""
    report = embedstore.sync(small.path, "cats-and-dogs", description="Both", index=True, topic_model=False)
    assert (report.dataset, report.sent, report.created) == ("stand-in/cats-and-dogs", 60, True)
    assert embedstore.sync(small, "cats-and-dogs").present == 60
