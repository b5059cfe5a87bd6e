"""What takes long or cannot be: each wait is one line with its reason, and a final refusal says what it means."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import pytest
from atlas_stores import NAME, require_whole, sync, vector_store
from click.testing import CliRunner

from embedstore.cli import main
from embedstore.errors import AtlasError
from embedstore.store import EmbedStore
from embedstore.testing import Fault, Kind, NomicServer

ADD = "/v1/project/data/add/arrow"


@pytest.fixture
def store(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "s.store", 90)


@pytest.mark.parametrize("path", [ADD, "/v1/user"])
def test_asked_to_wait_until_a_date(server: NomicServer, store: EmbedStore, path: str) -> None:
    """A Retry-After that is a date is waited for, in one line that says how long and why."""
    sync(store, where="number < 5")  # so that all is imported when the date is set
    told: list[str] = []
    started = time.monotonic()
    server.faults.script([Fault("429", retry_after=6.0, as_date=True)], path=path)
    assert sync(store, timeout=30.0, progress=told.append).sent == 85
    assert time.monotonic() - started > 3
    [line] = [text for text in told if text.startswith("waiting")]
    assert re.match(r"waiting [2-6] s, then trying again: Atlas answered 429 to .*: Rate limit exceeded", line)
    require_whole(server.atlas.dataset("photos"), store)


def test_a_date_after_the_timeout(server: NomicServer, store: EmbedStore) -> None:
    """When the date lies beyond the timeout the sync ends at once, with what Atlas said."""
    server.faults.script([Fault("429", retry_after=600.0, as_date=True)], path="/v1/user")
    started = time.monotonic()
    with pytest.raises(AtlasError, match="Rate limit exceeded"):
        sync(store, timeout=20.0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("402", "the plan of the organisation does not cover this"),
        ("plan-403", "Look at its plan and billing in Atlas"),
        ("403", "has no right to this: ask an owner"),
    ],
)
def test_refused_in_the_middle(server: NomicServer, store: EmbedStore, kind: Kind, said: str) -> None:
    """A 402, and a 403 about plan or rights, in mid-sync ends it at once, says what it means and what is there."""
    server.faults.script([None, kind], path=ADD)
    started = time.monotonic()
    with pytest.raises(AtlasError, match=said) as caught:
        sync(store, shard_rows=30, timeout=60.0)
    assert time.monotonic() - started < 10
    assert caught.value.__notes__ == ["30 of 90 rows were sent and seen in Atlas before this"]
    assert sync(store, shard_rows=30).sent == 60
    require_whole(server.atlas.dataset("photos"), store)


@pytest.mark.parametrize("kind", ["redirect-307", "redirect-308"])
@pytest.mark.parametrize("path", [ADD, "/v1/project/data/get", "/v1/project/create", "/v1/project/index/create"])
def test_a_redirect_takes_the_body_along(server: NomicServer, store: EmbedStore, kind: Kind, path: str) -> None:
    """A request that is redirected arrives whole at its new place."""
    server.faults.script([kind], path=path)
    report = sync(store, index=True)
    assert (report.sent, report.uploads, report.refused) == (90, 1, 0)
    assert set(server.counts.statuses) == {200, 201, 404, int(kind[-3:])}  # 404: there was no such dataset
    require_whole(server.atlas.dataset("photos"), store)
    assert len(server.atlas.dataset("photos").indices) == 1


def test_waits_of_a_command(server: NomicServer, store: EmbedStore) -> None:
    """The command says on stderr that it waits for a map, once, with the reason and the seconds; with -q nothing."""
    server.atlas.build_seconds = 1.0
    words = ["sync", "atlas", str(store.path), "photos", "--timeout", "20"]
    done = CliRunner().invoke(main, [*words, "--index"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if "waiting" in line]
    assert lines == ["waiting for at most 20 s: Atlas makes the map of stand-in/photos (Embedding)"]
    server.atlas.dataset("photos").locked_until = time.monotonic() + 1.0
    quiet = CliRunner().invoke(main, [*words, "-q"])
    assert (quiet.exit_code, quiet.stderr, quiet.stdout) == (0, "", "")


def test_waits_of_python(server: NomicServer, store: EmbedStore, caplog: pytest.LogCaptureFixture) -> None:
    """Without a progress function waits are warnings of the log."""
    server.atlas.build_seconds = 0.4
    with caplog.at_level(logging.WARNING, "embedstore"):
        sync(store, NAME, index=True)
    assert sum("Atlas makes the map" in text for text in caplog.messages) == 1


def test_a_key_in_a_file(
    server: NomicServer, store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sync atlas` reads its key from --api-key-file, as the other commands do."""
    monkeypatch.setenv("NOMIC_API_KEY", "nk-wrong")
    (tmp_path / "key").write_text(server.key)
    words = ["sync", "atlas", str(store.path), NAME]
    assert CliRunner().invoke(main, words).exit_code == 1
    done = CliRunner().invoke(main, [*words, "--api-key-file", str(tmp_path / "key")])
    assert done.exit_code == 0, done.output
    assert len(server.atlas.dataset("photos").ids) == 90
