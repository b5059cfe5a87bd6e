"""`embedstore add` as a person runs it: in a process of its own, the official client against the stand-in."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import save_picture

from embedstore.cli import main
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

KEY = "nk-stand-in-4f1d6c0b9a7e"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    """A stand-in that this process and its children are led to."""
    with NomicServer(key=KEY) as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


def run(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin, catch_exceptions=False)


def run_process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedstore", *(str(word) for word in words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- the plan -------------------------------------------------------------------------------------------------


def test_the_plan_needs_no_key_and_writes_nothing(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, a model's weights or a store, --dry-run counts requests, bytes and seconds, and makes no file."""
    save_picture(pictures / "again.png", 3)
    before = sorted(tmp_path.rglob("*"))
    result = run(
        "add", tmp_path / "s.store", pictures, "--model", "nomic", "--dry-run", "--batch-size", 5, "--json"
    )
    plan = json.loads(result.stdout)
    assert (plan["found"], plan["embedded"], plan["copied"], plan["requests"]) == (13, 12, 1, 3)
    assert 12 * 400 < plan["upload_bytes"] < 12 * 2000
    assert plan["seconds"] == pytest.approx(3 * 301 / 1200)
    assert sorted(tmp_path.rglob("*")) == before
    text = run("add", tmp_path / "s.store", pictures, "--model", "nomic", "--dry-run").stdout
    assert "1 request to the model" in text
    assert "nothing was embedded or written" in text
    local = run("add", tmp_path / "s.store", pictures, "--model", "nomic-local", "--dry-run").stdout
    assert "12 to embed" in local
    assert "rate limit" not in local


def test_the_plan_is_what_happens(store: EmbedStore, pictures: Path) -> None:
    """After moves, copies, changes and new files the plan and the report count the same."""
    (pictures / "cat" / "00.png").rename(pictures / "moved.png")
    save_picture(pictures / "cat" / "03.png", 300)
    save_picture(pictures / "new.png", 301)
    save_picture(pictures / "new copy.png", 301)
    save_picture(pictures / "copy.png", 1)
    plan = json.loads(run("add", store.path, pictures, "--dry-run", "--json").stdout)
    report = json.loads(run("add", store.path, pictures, "--json").stdout)
    names = ("found", "embedded", "copied", "replaced", "updated", "moved", "unchanged", "requests")
    assert {name: plan[name] for name in names} == {name: report[name] for name in names}
    assert (plan["embedded"], plan["copied"], plan["moved"], plan["replaced"]) == (2, 2, 1, 1)


def test_the_plan_knows_what_waits_in_a_journal(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """Pictures that a killed add has paid for count as embedded already."""
    path = tmp_path / "s.store"
    code = (
        "import os, sys; from embedstore.storage import journal; from embedstore.store import EmbedStore\n"
        "append = journal.Journal.append\n"
        "def die(self, table): append(self, table); os._exit(9)\n"
        "journal.Journal.append = die\n"
        "EmbedStore.create(sys.argv[1], model='nomic').add(sys.argv[2], batch_size=4, workers=1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path), str(pictures)]).returncode == 9
    plan = json.loads(run("add", path, pictures, "--dry-run", "--json").stdout)
    assert (plan["recovered"], plan["embedded"]) == (4, 8)
    assert "4 images in the journal" in run("info", path).stdout
    report = json.loads(run("add", path, pictures, "--json").stdout)
    assert (report["recovered"], report["unchanged"], report["embedded"]) == (4, 4, 8)


# --- budget, timeout, second try ------------------------------------------------------------------------------


def test_a_budget_ends_with_status_0(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """--max-requests 2 sends two requests, stores their pictures and says how to go on."""
    words = ("add", tmp_path / "s.store", pictures, "--model", "nomic", "--batch-size", 3)
    result = run(*words, "--max-requests", 2)
    assert result.exit_code == 0
    assert "stopped: the budget of 2 requests is spent" in result.stdout
    assert (server.requests, server.images) == (2, 6)
    assert run(*words).exit_code == 0
    assert (server.images, set(server.image_counts.values())) == (12, {1})


def test_a_hung_server_is_an_error_within_the_timeout(
    server: NomicServer, tmp_path: Path, pictures: Path
) -> None:
    """--timeout 0.3 ends an add at a server that never answers, with status 1 and one line; no store is left."""
    server.faults.script(["hung"] * 20)
    result = run("add", tmp_path / "s.store", pictures, "--model", "nomic", "--timeout", 0.3)
    assert result.exit_code == 1
    assert "no answer within" in result.stderr
    assert result.stderr.startswith("error: embedding 12 pictures: given up after")
    assert not (tmp_path / "s.store").exists()


def test_options_of_the_service_are_refused_elsewhere(tmp_path: Path, pictures: Path) -> None:
    """--max-requests with another model, or nothing to add, is wrong usage."""
    for words in (
        (pictures, "--model", "objects", "--max-requests", 3),
        (pictures, "--model", "objects", "--timeout", 3),
        ("--model", "objects"),
    ):
        result = run("add", tmp_path / "s.store", *words)
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "s.store").exists()


def test_failures_are_tried_again(tmp_path: Path, pictures: Path) -> None:
    """--retry-failed takes the files of failures.csv, and only those; one that is mended becomes a row."""
    path = tmp_path / "s.store"
    for name in ("one.jpg", "two.jpg"):
        (pictures / name).write_bytes(b"\xff\xd8 broken")
    first = run("add", path, pictures, "--model", "objects")
    assert first.exit_code == 0
    assert "2 failed" in first.stdout
    with (path / "failures.csv").open(newline="") as file:
        assert [row["uri"] for row in csv.DictReader(file)] == [
            str(pictures / "one.jpg"),
            str(pictures / "two.jpg"),
        ]
    save_picture(pictures / "one.jpg", 400)
    save_picture(pictures / "unrelated.png", 401)
    again = json.loads(run("add", path, "--retry-failed", path / "failures.csv", "--json").stdout)
    assert (again["found"], again["embedded"], len(again["failures"])) == (2, 1, 1)
    nothing = run("add", path, "--retry-failed", path / "no.csv")
    assert nothing.exit_code == 1
    assert "there is no" in nothing.stderr


# --- the key --------------------------------------------------------------------------------------------------


def test_the_key_comes_from_a_file_or_stdin(
    server: NomicServer, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--api-key-file FILE and `-` win over NOMIC_API_KEY, which wins over the client's file; none is kept after."""
    monkeypatch.setenv("NOMIC_API_KEY", "nk-wrong-environment")
    words = ("add", tmp_path / "s.store", pictures, "--model", "nomic")
    refused = run(*words)
    assert refused.exit_code == 1
    assert "NOMIC_API_KEY was refused" in refused.stderr
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert run(*words, "--api-key-file", tmp_path / "key", "--batch-size", 4).exit_code == 0
    save_picture(pictures / "new.png", 500)
    assert run(*words, "--api-key-file", "-", stdin=KEY).exit_code == 0
    assert os.environ["NOMIC_API_KEY"] == "nk-wrong-environment"
    empty = run(*words, "--api-key-file", "-", stdin=" ")
    assert (empty.exit_code, server.images) == (1, 13)


def test_no_file_and_no_output_holds_the_key(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """After adding, failing, searching and comparing with a key in the environment, no file that the runs wrote and
    nothing that they printed holds it, though the server repeats what it is sent."""
    home = tmp_path / "home"
    (home / ".nomic" / "credentials").unlink()
    environment = {"NOMIC_API_KEY": KEY, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    path = tmp_path / "s.store"
    printed = []
    server.faults.script(["500", "html-200", "nan", "reset"])
    for words in (
        ("add", path, pictures, "--model", "nomic", "--batch-size", 4),
        ("search", path, "a red ball", "--json"),
        ("info", path, "--json"),
        ("models", "--json"),
    ):
        done = run_process(*words, **environment)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout + done.stderr)
    save_picture(pictures / "late.png", 900)
    wrong = run_process("add", path, pictures, **(environment | {"NOMIC_API_KEY": KEY + "x"}))
    assert wrong.returncode == 1
    printed.append(wrong.stdout + wrong.stderr)
    assert not any(KEY in text for text in printed)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []


# --- offline --------------------------------------------------------------------------------------------------


def test_offline_adding_with_the_service_is_an_error(tmp_path: Path, pictures: Path) -> None:
    """With --offline the service is not asked, the error says what wanted it, and a plan still works."""
    environment = {"NOMIC_API_KEY": KEY}
    words = ("add", tmp_path / "s.store", pictures, "--model", "nomic")
    done = run_process("--offline", *words, **environment)
    assert done.returncode == 1
    assert "embedding with Nomic's service needs the network, which is switched off" in done.stderr
    assert run_process("--offline", *words, "--dry-run").returncode == 0


def test_reuse_by_environment(tmp_path: Path, store: EmbedStore, pictures: Path) -> None:
    """EMBEDSTORE_REUSE names stores whose vectors are copied, as --reuse does."""
    done = run_process(
        "add",
        tmp_path / "t.store",
        pictures,
        "--model",
        "objects",
        "--json",
        EMBEDSTORE_REUSE=str(store.path),
    )
    report = json.loads(done.stdout)
    assert (report["reused"], report["embedded"], report["requests"]) == (12, 0, 0)
    other = EmbedStore.open(tmp_path / "t.store")
    ids = store.to_table(["id"]).column("id").to_pylist()
    assert np.array_equal(other.vectors(ids), store.vectors(ids))
