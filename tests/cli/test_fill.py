"""`embedstore add`, `models`, `queries` and `compare-backends`: the official client against the stand-in."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run, run_process
from conftest import save_picture
from PIL import Image

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


# --- the plan -------------------------------------------------------------------------------------------------


def test_the_plan_needs_no_key_and_writes_nothing(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, a model's weights or a store, --dry-run counts requests, bytes and seconds, and makes no file."""
    save_picture(pictures / "again.png", 3)
    before = sorted(tmp_path.rglob("*"))
    result = run("add", tmp_path / "s.store", pictures, "--model", "nomic", "--dry-run", "--batch-size", 5, "--json")
    plan = json.loads(result.stdout)
    assert (plan["found"], plan["embedded"], plan["copied"], plan["requests"]) == (13, 12, 1, 3)
    assert 12 * 400 < plan["upload_bytes"] < 12 * 2000
    assert plan["seconds"] == pytest.approx(3 * 301 / 1200)
    assert sorted(tmp_path.rglob("*")) == before
    text = run("add", tmp_path / "s.store", pictures, "--model", "nomic", "--dry-run").stdout
    assert text.startswith(f"13 picture files in {pictures}\n13 found\n")
    assert "1 request to the service" in text
    assert "nothing was embedded or written" in text
    local = run("add", tmp_path / "s.store", pictures, "--model", "nomic-local", "--dry-run").stdout
    assert "12 to embed" in local
    assert "rate limit" not in local
    assert "request" not in local


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


def test_the_plan_knows_what_waits_in_the_ledger(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """Pictures that a killed add has paid for count as embedded already."""
    path = tmp_path / "s.store"
    code = (
        "import os, sys; from embedstore.storage.ledger import Ledger; from embedstore.store import EmbedStore\n"
        "pay = Ledger.pay\n"
        "def die(self, run, table): pay(self, run, table); os._exit(9)\n"
        "Ledger.pay = die\n"
        "EmbedStore.create(sys.argv[1], model='nomic').add(sys.argv[2], batch_size=4, workers=1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path), str(pictures)]).returncode == 9
    plan = json.loads(run("add", path, pictures, "--dry-run", "--json").stdout)
    assert (plan["recovered"], plan["embedded"]) == (4, 8)
    assert "4 images wait in the ledger" in run("info", path).stdout
    report = json.loads(run("add", path, pictures, "--json").stdout)
    assert (report["recovered"], report["unchanged"], report["embedded"]) == (4, 4, 8)


# --- budget, timeout, second try ------------------------------------------------------------------------------


def test_a_budget_ends_with_status_3(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """--max-requests 2 sends two requests, stores their pictures, says what was paid for, what is left and the way on;
    the status is one of its own, also without a word."""
    words = ("add", tmp_path / "s.store", pictures, "--model", "nomic", "--batch-size", 3)
    result = run(*words, "--max-requests", 2)
    assert result.exit_code == 3
    assert (
        "stopped: the budget of 2 requests is spent; what was embedded is kept: 6 pictures were paid for, 6 of 12 are "
        "left; run the same command again to go on\n"
    ) in result.stdout
    assert (server.requests, server.images) == (2, 6)
    assert run(*words).exit_code == 0
    assert (server.images, set(server.image_counts.values())) == (12, {1})


def test_a_hung_server_is_an_error_within_the_timeout(server: NomicServer, tmp_path: Path, pictures: Path) -> None:
    """--timeout 0.3 ends an add at a server that never answers, with status 1 and one line; no store is left."""
    server.faults.script(["hung"] * 20)
    result = run("add", tmp_path / "s.store", pictures, "--model", "nomic", "--timeout", 0.3)
    assert result.exit_code == 1
    assert "no answer within" in result.stderr
    assert result.stderr.startswith("error: 127.0.0.1:"), "the reason stands first"
    assert ": embedding 12 pictures was given up after" in result.stderr
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


# --- vectors of one's own -------------------------------------------------------------------------------------


def vectors_file(path: Path, dim: int, rows: int = 5) -> Path:
    unit = np.linalg.qr(np.random.default_rng(0).normal(size=(max(dim, rows),) * 2))[0][:rows, :dim]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pq.write_table(pa.table({"v": pa.array(list(unit.astype(np.float32))), "name": list("abcdefgh")[:rows]}), path)
    return path


def test_the_dimension_is_that_of_the_vectors(tmp_path: Path) -> None:
    """A new store of given vectors needs no --dim, and holds every row; a --dim that fits is taken."""
    file = vectors_file(tmp_path / "v.parquet", 24)
    words = ("--space", "mine", "--embedding-column", "v")
    for name, extra in (("a.store", ()), ("b.store", ("--dim", 24))):
        result = run("add", tmp_path / name, file, *words, *extra)
        assert result.exit_code == 0, result.stderr
        made = EmbedStore.open(tmp_path / name)
        assert (len(made), made.space.dim, made.space.model) == (5, 24, "mine")
        assert made.to_table(["name"]).column("name").to_pylist() == list("abcde")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--embedding-column", "v", "--dim", "12"),
            "--dim 12 does not fit: the vectors in 'v' have 24 components",
        ),
        (("--embedding-column", "w"), "there is no column 'w'"),
        ((), "needs their dimension"),
    ],
)
def test_a_dimension_that_does_not_fit_leaves_no_store(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    """Another --dim than the vectors have, no such column, or no vectors to take it from: one line, and no store."""
    file = vectors_file(tmp_path / "v.parquet", 24)
    result = run("add", tmp_path / "s.store", file, "--space", "mine", *words)
    assert result.exit_code == 1
    assert says in result.stderr
    assert not (tmp_path / "s.store").exists()


def test_vectors_of_nobody_make_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose they are is asked for, and not taken from what happens to be configured."""
    monkeypatch.setenv("EMBEDSTORE_MODEL", "objects")
    result = run("add", tmp_path / "s.store", vectors_file(tmp_path / "v.parquet", 256), "--embedding-column", "v")
    assert result.exit_code == 2
    assert "--space NAME" in result.stderr
    assert not (tmp_path / "s.store").exists()


def test_vectors_that_are_refused_leave_no_store(tmp_path: Path) -> None:
    """A store that was made for vectors that are not of unit length goes again; with --normalise it stays."""
    pq.write_table(pa.table({"v": [[3.0, 4.0], [0.0, 2.0]]}), tmp_path / "v.parquet")
    words = (
        "add",
        tmp_path / "s.store",
        tmp_path / "v.parquet",
        "--space",
        "mine",
        "--embedding-column",
        "v",
    )
    refused = run(*words)
    assert refused.exit_code == 1
    assert "unit length" in refused.stderr
    assert not (tmp_path / "s.store").exists()
    assert run(*words, "--normalise").exit_code == 0
    assert len(EmbedStore.open(tmp_path / "s.store")) == 2


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


# --- offline, and other stores --------------------------------------------------------------------------------


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


# --- models ---------------------------------------------------------------------------------------------------


def test_models_lists_what_is_here(weights: Path) -> None:
    """The list names every model with its backend, and the bytes of weights that are on this machine."""
    listed = {row["name"]: row for row in json.loads(run("models", "--json").stdout)["models"]}
    assert {"nomic", "nomic-local", "nomic-local-q", "clip", "jina-clip", "siglip2", "objects"} <= set(listed)
    local = listed["nomic-local"]
    on_disk = sum(file.stat().st_size for file in weights.rglob("*") if file.name != "config.json" and file.is_file())
    refs = sum(file.stat().st_size for file in weights.rglob("refs/main"))
    assert (local["ready"], local["backend"], local["size_bytes"]) == (True, "fastembed", on_disk - refs)
    assert not listed["nomic"]["ready"]
    text = run("models").stdout
    assert "nomic needs a key" in text
    lines = text.splitlines()
    assert not [line for line in lines if len(line) > 80]
    pulls = " ".join(lines[lines.index(next(line for line in lines if line.startswith("weights to download"))) :])
    assert "clip 0.61 GB" in pulls
    assert "nomic-local 0.92 GB" not in pulls
    assert listed["nomic-local"]["revisions"]["nomic-ai/nomic-embed-text-v1.5"] == "0" * 40


def test_pull_keeps_what_is_here_and_says_where(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulling weights that are here needs no network; what is not here is refused offline; an unknown name helps."""
    for name in ("EMBEDSTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    here = run("models", "pull", "nomic-local")
    assert here.exit_code == 0
    assert f"in {weights}" in here.stdout
    assert "nothing to download" in run("models", "pull", "objects").stdout
    missing = run("models", "pull", "nomic-local-q")
    assert missing.exit_code == 1
    assert "needs the network" in missing.stderr
    unknown = run("models", "pull", "nomic-locale")
    assert unknown.exit_code == 1
    assert "Did you mean 'nomic-local'" in unknown.stderr


def test_models_stand_in_columns(weights: Path) -> None:
    """The head stands above the columns, sizes to the right, whatever the length of a name."""
    head, *lines = run("models").stdout.splitlines()
    end = head.index("on disk") + len("on disk")
    from embedstore.embedders.registry import MODELS

    rows = lines[: len(MODELS)]
    assert [line[:end].split()[0] for line in rows] == list(MODELS)
    assert all(line[end - 1] in "B-" and line[end] == " " for line in rows)
    assert head.index("what it is") == lines[0].index("Nomic Embed")


# --- queries --------------------------------------------------------------------------------------------------


def test_a_file_of_queries_is_one_request_for_ten(server: NomicServer, tmp_path: Path) -> None:
    """25 lines under a template are three requests; again they are none, and searching for them needs no service."""
    path = tmp_path / "s.store"
    folder = save_picture(tmp_path / "p" / "one.png", 1).parent
    assert run("add", path, folder, "--model", "nomic").exit_code == 0
    before = server.requests
    (tmp_path / "words.txt").write_text("\n".join(f"thing {number}" for number in range(25)) + "\n\n  \n")
    words = ("queries", path, tmp_path / "words.txt", "--template", "a photo of a {}", "--json")
    assert json.loads(run(*words).stdout) == {"queries": 25, "embedded": 25, "cached_queries": 25}
    assert (server.requests - before, server.texts) == (3, 25)
    assert set(server.counts.texts) == {f"a photo of a thing {number}" for number in range(25)}
    assert json.loads(run(*words).stdout) == {"queries": 25, "embedded": 0, "cached_queries": 25}
    assert server.requests - before == 3
    server.__exit__(None, None, None)
    assert run("search", path, "a photo of a thing 7").exit_code == 0


def test_queries_come_from_stdin_and_with_several_templates(store: EmbedStore) -> None:
    """Each line is embedded under each template, and equal sentences once; an empty file is wrong usage."""
    words = ("queries", store.path, "-", "--template", "a {}", "--template", "a photo of a {}", "--json")
    done = json.loads(run(*words, stdin="dog\ncat\ndog\n").stdout)
    assert (done["queries"], done["embedded"]) == (4, 4)
    assert run("queries", store.path, "-", stdin="\n\n").exit_code == 2
    bad = run("queries", store.path, "-", "--template", "no slot", stdin="dog")
    assert bad.exit_code == 1
    assert "exactly once" in bad.stderr


# --- two backends of one model --------------------------------------------------------------------------------


def test_compare_backends_on_the_command_line(
    server: NomicServer, api_store: EmbedStore, weights: Path, pictures: Path
) -> None:
    """For a store the other backend is found by itself; for a folder both embed; the text names both spaces."""
    about = json.loads(run("compare-backends", api_store.path, "--sample", 8, "--json").stdout)
    assert (about["pictures"], about["first"]["backend"], about["second"]["backend"]) == (
        8,
        "nomic-api",
        "fastembed",
    )
    assert 0 < about["cosine_gap"]["p50"] <= about["cosine_gap"]["p100"] < 2
    sent = server.images
    text = run("compare-backends", pictures, "--sample", 12, "--query", "a red ball").stdout
    assert server.images == sent + 12
    assert "nomic-api" in text
    assert "fastembed" in text
    assert "12 pictures, 1 query" in text
    assert "top" in text


def test_without_a_key_the_command_line_asks_the_local_model(
    api_store: EmbedStore, weights: Path, tmp_path: Path
) -> None:
    """With --allow-mixed-backend a store of the service is searched without a key, and a warning says so."""
    (tmp_path / "home" / ".nomic" / "credentials").unlink()
    words = [sys.executable, "-m", "embedstore"]
    search = ["search", str(api_store.path), "a red car", "-n", "1"]
    refused = subprocess.run([*words, *search], capture_output=True, text=True, env=dict(os.environ))
    assert refused.returncode == 1
    assert "no Nomic API key" in refused.stderr
    allowed = subprocess.run(
        [*words, "--allow-mixed-backend", *search], capture_output=True, text=True, env=dict(os.environ)
    )
    assert allowed.returncode == 0, allowed.stderr
    assert "queries are embedded by nomic-embed-v1.5 (fastembed" in allowed.stderr


# --- what people see of a messy folder --------------------------------------------------------------------------


def test_a_messy_folder_adds_up(tmp_path: Path) -> None:
    """Splits become a column; what is skipped is counted by kind, with a way forward; the numbers are a sum."""
    folder = tmp_path / "p"
    for number, name in enumerate(("train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "test/dog/d.png", "e.png")):
        save_picture(folder / name, number)
    for name in (".hidden.png", ".more.jpg", "noending", "IMG_1.heic", "notes.txt"):
        shutil.copy(folder / "e.png", folder / name)
    (folder / "README").write_text("words")
    (folder / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    path = tmp_path / "s.store"
    result = run("add", path, folder, "--model", "objects", "--label-from-folder")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "6 found: 5 embedded, 1 failed\n"
        "skipped: 1 .heic (pip install pillow-heif), 2 hidden, 1 .txt, 1 other file, "
        "1 without an ending (name them, and they are taken)\n"
    )
    rows = json.loads(run("export", path, "--columns", "uri,split,label", "--json").stdout)
    assert sorted((os.path.relpath(row["uri"], folder), row["split"], row["label"]) for row in rows) == [
        ("e.png", None, "p"),
        ("test/dog/d.png", "test", "dog"),
        ("train/cat/a.png", "train", "cat"),
        ("train/dog/b.png", "train", "dog"),
        ("val/cat/c.png", "validation", "cat"),
    ]
    report = json.loads(run("add", path, folder / "noending", "--json").stdout)
    assert (report["copied"], report["skipped"]) == (1, {})


def test_exit_status_1_when_every_picture_failed(tmp_path: Path, pictures: Path) -> None:
    """A typo in a folder of broken files is no success; where one picture is good it is."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8 broken")
    result = run("add", tmp_path / "s.store", folder, "--model", "objects")
    assert (result.exit_code, result.stdout.startswith("1 found: 1 failed\n")) == (1, True)
    assert run("add", tmp_path / "s.store", folder, pictures).exit_code == 0
    assert run("add", tmp_path / "s.store", folder, "--dry-run").exit_code == 0


def test_paths_on_stdin(tmp_path: Path, pictures: Path) -> None:
    """`find ... | embedstore add s -`, lines or NULs, with odd names; nothing on stdin is wrong usage."""
    path = tmp_path / "s.store"
    odd = save_picture(pictures / "two\nlines [1] é.png", 99)
    files = sorted(str(file) for file in pictures.rglob("*.png"))
    lines = "\n".join(file for file in files if file != str(odd)) + "\n"
    result = run("add", path, "-", "--model", "objects", stdin=lines)
    assert result.stdout.startswith("12 found: 12 embedded\n")
    result = run("add", path, "-", "-0", stdin="\0".join(files) + "\0")
    assert result.stdout.startswith("13 found: 1 embedded, 12 unchanged\n")
    result = run("add", path, "-", stdin=f"{files[0]}\n{pictures}/gone.png\n")
    assert result.stdout.startswith("2 found: 1 unchanged, 1 failed\n")
    assert f"failed: {pictures}/gone.png: it is not there\n" in result.stdout
    for words, stdin in ((("-",), "\n"), ((pictures, "-0"), ""), ((pictures, "-"), "x\n")):
        refused = run("add", path, *words, stdin=stdin)
        assert refused.exit_code == 2, refused.output


def test_names_that_are_no_utf8_on_a_second_try(tmp_path: Path, pictures: Path) -> None:
    """The list of failures writes them so that a second try finds them, and says again what is wrong."""
    name = os.fsencode(pictures) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    path = tmp_path / "s.store"
    retry = ("--retry-failed", path / "failures.csv")
    for words in ((pictures,), retry, (pictures, *retry)):
        result = run("add", path, *words, "--model", "objects")
        assert "caf\\xe9.png: the name is not valid UTF-8, so it cannot be stored: rename it" in result.stdout
        assert "1 failed" in result.stdout


def test_deleted_files_are_said_and_pruned(tmp_path: Path, pictures: Path) -> None:
    """A second add says how many are gone, --prune removes their rows, and so does `remove --missing`."""
    path = tmp_path / "s.store"
    run("add", path, pictures, "--model", "objects")
    (pictures / "cat" / "00.png").unlink()
    said = run("add", path, pictures).stdout
    assert "1 file of an earlier add is not there any more; --prune removes what is gone" in said
    pruned = run("add", path, pictures, "--prune").stdout
    assert "1 removed, as its file is not there any more\n11 images in the store" in pruned
    (pictures / "cat" / "03.png").unlink()
    assert run("remove", path, "--missing").stdout.startswith("1 removed, 10 left; `embedstore restore ")
    assert run("remove", path, "--missing").stdout == "0 removed, 10 left\n"
    shutil.rmtree(pictures)
    refused = run("remove", path, "--missing")
    assert (refused.exit_code, "none of the 10 files" in refused.stderr) == (1, True)


def test_pictures_of_a_data_set_in_memory_are_on_the_sheet(tmp_path: Path) -> None:
    """What was added from Python without any file is drawn by the shell, by its id."""
    path, sheet = tmp_path / "s.store", tmp_path / "sheet.png"
    red = Image.new("RGB", (60, 60), (200, 0, 0))
    EmbedStore.create(path, model="objects").add([{"image": red, "id": "red", "label": "colour"}])
    result = run("search", path, "a colour", "--sheet", sheet, "--json")
    assert [(row["id"], row["uri"]) for row in json.loads(result.stdout)] == [("red", "memory:red#0")]
    with Image.open(sheet) as drawn:
        near = [colour for _, colour in drawn.convert("RGB").getcolors(1 << 20) or [] if colour[0] > 150]
        assert any(green < 40 and blue < 40 for _, green, blue in near)


def test_a_failed_first_add_leaves_no_store(tmp_path: Path) -> None:
    """Whatever it fails by before its first picture: a place that is not there, an empty folder, an interrupt."""
    (tmp_path / "empty").mkdir()
    path = tmp_path / "s.store"
    for source in (tmp_path / "no", tmp_path / "empty"):
        assert run("add", path, source, "--model", "objects").exit_code == 1
        assert not path.exists()
    save_picture(tmp_path / "p" / "a.png", 1)
    code = (
        "import sys; from embedstore.embedders.objects import ObjectsEmbedder; from embedstore.cli import main\n"
        "def stop(self, *_): raise KeyboardInterrupt\n"
        "ObjectsEmbedder.prepare = stop\n"
        "main(['add', sys.argv[1], sys.argv[2], '--model', 'objects'])"
    )
    stopped = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "p")], capture_output=True)
    assert stopped.returncode not in (0, None)
    assert not path.exists()
