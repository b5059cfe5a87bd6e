"""The commands that ask: their answer is the library's, whatever the query is made of."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run, run_process
from conftest import PHOTOS, save_picture
from PIL import Image

from embedstore.cli.ask import shorter
from embedstore.searching.queries import Query
from embedstore.store import EmbedStore


def test_classify_count_and_search_agree_with_the_library(photo_store: EmbedStore) -> None:
    """The command's number is the method's number, also for pictures, ids, filters and versions."""
    path = photo_store.path
    every = photo_store.classify("bird", 0.4)
    result = run("classify", path, "bird", "--threshold", 0.4, "-f")
    assert result.stdout.splitlines() == every.uri
    assert f"{len(every)} of {len(photo_store)} images match" in result.stderr
    assert run("count", path, "bird", "--threshold", 0.4).stdout == f"{len(every)}\n"
    row = photo_store.to_table().to_pylist()[5]
    for option, value in (("--id", row["id"]), ("--image", row["uri"])):
        assert run("search", path, option, value, "-n", 1, "-f").stdout.strip() == row["uri"]
    where = "category == 'flower'"
    assert (
        run("search", path, "bird", "--where", where, "-f").stdout.splitlines()
        == photo_store.search("bird", where=where).uri
    )
    assert run("search", path, "bird", "--at", photo_store.version, "-f").exit_code == 0


def test_no_match_is_no_error(photo_store: EmbedStore) -> None:
    """Exit status 0 and nothing on stdout."""
    result = run("classify", photo_store.path, "bird", "--threshold", 2, "-f", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_export_writes_rows_and_vectors(store: EmbedStore, tmp_path: Path) -> None:
    """What comes out is what is in, vectors to the bit."""
    file = tmp_path / "out.parquet"
    assert run("export", store.path, "--columns", "id,label", "--embeddings", "-o", file).exit_code == 0
    out = pq.read_table(file)
    assert out.column_names == ["id", "label", "embedding"]
    assert out.to_pylist() == store.to_table(["id", "label", "embedding"]).to_pylist()


PROMPTS = (
    "--template",
    "{}",
    "--template",
    "a {}",
    "--also",
    "penguin",
    "--against",
    "flower",
    "--against",
    "car",
)
WORDS = {"template": ["{}", "a {}"], "opposing": ["flower", "car"]}


def test_prompts_reach_search_classify_and_count(photo_store: EmbedStore) -> None:
    """--template, --also and --against give the library's answer with template, a list of queries and opposing."""
    path, asked = photo_store.path, ["bird", "penguin"]
    rows = json.loads(run("search", path, "bird", *PROMPTS, "-n", 9, "--json").stdout)
    nearest = photo_store.search(asked, k=9, **WORDS)
    assert [row["id"] for row in rows] == nearest.id
    assert np.array_equal(np.array([row["score"] for row in rows], np.float32), nearest.score)
    every = photo_store.classify(asked, 0.05, **WORDS)
    assert 0 < len(every) < len(photo_store)
    assert run("classify", path, "bird", *PROMPTS, "--threshold", 0.05, "-f").stdout.splitlines() == every.uri
    value = json.loads(run("count", path, "bird", *PROMPTS, "--threshold", 0.05, "--json").stdout)
    assert value["count"] == photo_store.count(asked, 0.05, **WORDS) == len(every)
    assert value["query"] == "bird + penguin against flower, car"


def test_a_picture_may_be_asked_with_prompts(photo_store: EmbedStore) -> None:
    """--image and --id are averaged with --also, and opposed, as a list of queries is."""
    row = photo_store.to_table().to_pylist()[5]
    expected = photo_store.search([Path(row["uri"]), "bird"], k=5, opposing=["car"])
    words = ("--also", "bird", "--against", "car", "-n", 5, "-f")
    assert run("search", photo_store.path, "--image", row["uri"], *words).stdout.splitlines() == expected.uri
    expected = photo_store.search([Query.id(row["id"]), "bird"], k=5, opposing=["car"])
    assert run("search", photo_store.path, "--id", row["id"], *words).stdout.splitlines() == expected.uri


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (
            ("classify", "--classifier", "x", "--template", "a {}"),
            2,
            "a classifier has its own query and prompts",
        ),
        (("classify", "--classifier", "x", "--also", "dog"), 2, "a classifier has its own query and prompts"),
        (
            ("classify", "--classifier", "x", "--against", "dog"),
            2,
            "a classifier has its own query and prompts",
        ),
        (("search", "--also", "dog"), 2, "ask with one of"),
        (("search", "dog", "--text", "cat"), 2, "ask with one of: a query, --text TEXT, --image FILE, --id ID"),
        (("sweep", "--text", "cat", "--id", "7"), 2, "ask with one of"),
        (
            ("search", "photo of no.jpg"),
            1,
            "there is no picture 'photo of no.jpg'; check the path; --text takes it for words",
        ),
        (("search", "dog", "+", "-", "cat"), 1, "nothing stands after the +"),
        (("count", "dog", "-", "--threshold", "0"), 1, "nothing stands after the -"),
        (("search", "bird", "--template", "a photo"), 1, "exactly once"),
        (("search", "bird", "--template", "{} or {}"), 1, "exactly once"),
        (("search", "bird", "--against", "car", "--approximate"), 1, "opponents"),
        (("search", "bird", "--sheet", "birds.pdf"), 2, "'birds.pdf' should end in one of .png .jpg .jpeg"),
        (("count", "bird", "--threshold", "0.4", "--sheet", "birds"), 2, "should end in one of"),
    ],
)
def test_prompts_and_sheets_that_make_no_sense_are_refused(
    photo_store: EmbedStore, words: tuple[str, ...], status: int, says: str
) -> None:
    """1 for an error, 2 for wrong usage, and nothing on stdout."""
    result = run(words[0], photo_store.path, *words[1:])
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr


CUCKOO = PHOTOS / "bird" / "cuckoo.jpg"


def test_a_path_typed_as_a_query_is_a_picture(photo_store: EmbedStore) -> None:
    """A process answers with the picture itself, and says so on stderr; --text looks for the words."""
    done = run_process("search", photo_store.path, CUCKOO, "-n", 1, "--json")
    (row,) = json.loads(done.stdout)
    assert (row["uri"], round(row["score"], 3)) == (str(CUCKOO), 1)
    assert f"'{CUCKOO}' is a picture here: looking for others like it; --text" in done.stderr
    words = run_process("search", photo_store.path, "--text", CUCKOO, "-n", 1, "--json")
    (row,) = json.loads(words.stdout)
    assert row["score"] == photo_store.search(Query.text(str(CUCKOO)), k=1).score[0]
    assert row["score"] < 0.9
    assert "is a picture here" not in words.stderr


def test_every_command_that_takes_a_query_takes_a_picture(photo_store: EmbedStore, tmp_path: Path) -> None:
    """classify, count, sweep, calibrate and rank look for pictures like it; the library's scores decide."""
    path, score = photo_store.path, photo_store.scores(CUCKOO)[0]
    above = int((score > 0.5).sum())
    assert len(run("classify", path, CUCKOO, "--threshold", 0.5, "-f").stdout.splitlines()) == above > 1
    assert run("count", path, CUCKOO, "--threshold", 0.5).stdout == f"{above}\n"
    swept = json.loads(run("sweep", path, CUCKOO, "--thresholds", 0.5, "--noise", "--json").stdout)
    assert swept[0]["matches"] == above
    words = ("--label", "category=bird", "--json")
    made = json.loads(run("calibrate", path, CUCKOO, *words, "--no-save").stdout)
    assert made["targets"][0]["queries"] == [str(CUCKOO)]
    assert json.loads(run("rank", path, CUCKOO, "bird", *words).stdout)[0]["average_precision"] > 0.5
    again = json.loads(run("calibrate", path, "--image", CUCKOO, *words, "--no-save").stdout)
    assert again["targets"] == made["targets"]


MIX = ("2:golden", "retriever", "+", CUCKOO, "-", ".5:a bird")


def test_signs_mix_queries_in_search_classify_and_count(photo_store: EmbedStore) -> None:
    """Words with + and - between them are the mix that `Query.parse` reads in one text."""
    path, mix = photo_store.path, Query.parse(f"2:golden retriever + {CUCKOO} - .5:a bird")
    rows = json.loads(run("search", path, *MIX, "-n", 4, "--json").stdout)
    assert [row["id"] for row in rows] == photo_store.search(mix, k=4).id
    every = photo_store.classify(mix, 0.3)
    assert run("classify", path, *MIX, "--threshold", 0.3, "-f").stdout.splitlines() == every.uri
    done = run_process("count", path, *MIX, "--threshold", 0.3, "--json")
    assert json.loads(done.stdout) == {"query": mix.label, "threshold": 0.3, "count": len(every)}
    assert "is a picture here" in done.stderr
    unquoted = run("search", path, "golden", "retriever", "-n", 1, "--json").stdout
    assert unquoted == run("search", path, "golden retriever", "-n", 1, "--json").stdout


def test_a_picture_is_read_from_stdin(photo_store: EmbedStore) -> None:
    """--image - takes a picture's bytes; nothing, and what is no picture, are errors."""
    words = [sys.executable, "-m", "embedstore", "search", str(photo_store.path), "--image", "-", "-n", "1", "-f"]
    with CUCKOO.open("rb") as file:
        done = subprocess.run(words, stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == f"{CUCKOO}\n"
    for content, status, says in (("", 2, "no picture on stdin"), ("text", 1, "no picture format")):
        result = run("search", photo_store.path, "--image", "-", stdin=content)
        assert (result.exit_code, result.stdout) == (status, "")
        assert says in result.stderr


def test_nonsense_is_called_so(photo_store: EmbedStore) -> None:
    """A text of which the model knows no word is answered, with a warning; a sweep's own nonsense is not told."""
    done = run_process("search", photo_store.path, "quux zebrax", "-n", 1)
    assert len(done.stdout.splitlines()) == 1
    assert "no known word in 'quux zebrax': the model 'objects' has only pieces" in done.stderr
    noise = run_process("sweep", photo_store.path, "bird", "--noise")
    assert "no known word" not in noise.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="xdg-open is the opener of Linux")
def test_open_starts_the_viewer_of_the_desktop(photo_store: EmbedStore, tmp_path: Path) -> None:
    """It gets the sheet; where it fails, or there is no desktop, that is said, and the sheet stays."""
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\nexit $STATUS\n')
    opener.chmod(0o755)
    desktop = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DISPLAY": ":0", "TMPDIR": str(tmp_path), "STATUS": "0"}
    done = run_process("search", photo_store.path, "bird", "--open", **desktop)
    (sheet,) = tmp_path.glob("embedstore-*.png")
    assert f"drawn in {sheet}\n" in done.stderr
    assert "no viewer" not in done.stderr
    assert (tmp_path / "opened").read_text() == f"{sheet}\n"
    with Image.open(sheet) as image:
        assert image.width > 1000
    sheet.unlink()
    words = ("classify", photo_store.path, "bird", "--threshold", "0.5", "--open")
    failed = run_process(*words, "-q", **{**desktop, "STATUS": "3"})
    assert failed.returncode == 0
    (sheet,) = tmp_path.glob("embedstore-*.png")
    assert f"(the desktop's opener ended with status 3); the file stays: {sheet}\n" in failed.stderr
    named = run_process(*words, "--sheet", tmp_path / "s.jpg", **{**desktop, "DISPLAY": "", "WAYLAND_DISPLAY": ""})
    assert f"(there is no desktop here); the file stays: {tmp_path}/s.jpg" in named.stderr
    with Image.open(tmp_path / "s.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("suffix", [".png", ".JPG"])
def test_a_sheet_shows_the_answer(photo_store: EmbedStore, tmp_path: Path, suffix: str) -> None:
    """search, classify and count draw the pictures of their rows, eight in a line, and say where."""
    file = tmp_path / f"sheet{suffix}"
    heights = []
    for words in (
        ("search", photo_store.path, "bird", "-n", 9),
        ("classify", photo_store.path, "bird", "--threshold", 0.4),
        ("count", photo_store.path, "bird", "--threshold", 0.4),
    ):
        result = run(*words, "--sheet", file)
        assert result.exit_code == 0
        assert f"drawn in {file}" in result.stderr
        assert str(file) not in result.stdout
        with Image.open(file) as image:
            assert image.width > 1600
            heights.append(image.height)
        file.unlink()
    lines = -(-len(photo_store.classify("bird", 0.4)) // 8)
    line = (heights[1] - heights[0]) / (lines - 2)
    assert heights[1] == heights[2]
    assert 200 < line < 300


def test_a_sheet_has_a_limit(photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pictures than a viewer opens are cut off, and that is said; rows are printed all the same."""
    monkeypatch.setattr("embedstore.cli.output.MOST_DRAWN", 8)
    result = run("classify", photo_store.path, "bird", "--threshold", 0.4, "--sheet", tmp_path / "s.png", "-f")
    every = photo_store.classify("bird", 0.4).uri
    assert result.stdout.splitlines() == every
    assert f"the first 8 of {len(every)} pictures drawn in" in result.stderr
    with Image.open(tmp_path / "s.png") as image:
        assert image.height < 400


def test_nothing_to_draw_is_no_error(photo_store: EmbedStore, tmp_path: Path) -> None:
    """No match makes no sheet, and that is said."""
    words = ("classify", photo_store.path, "bird", "--threshold", 2, "--sheet", tmp_path / "s.png")
    result = run(*words)
    assert result.exit_code == 0
    assert "nothing to draw" in result.stderr
    assert not (tmp_path / "s.png").exists()


def test_a_path_is_shown_from_where_it_is_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the current folder, or from the folder that the store lies in; an address or a far place stays as it is."""
    store = tmp_path / "data" / "p.store"
    monkeypatch.chdir(tmp_path)
    assert shorter(str(tmp_path / "a" / "b.png"), store) == "a/b.png"
    assert shorter(str(tmp_path / "data" / "b.png"), store) == "b.png"
    assert shorter(str(tmp_path / "data" / "x.zip!in/b.png"), Path("data/p.store")) == "x.zip!in/b.png"
    assert shorter(str(tmp_path.parent / "b.png"), store) == "../b.png"
    assert shorter("/b.png", store) == "/b.png"
    for uri in ("https://host/b.png", "hf://org/name#3", "memory:12"):
        assert shorter(uri, store) == uri


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_short_paths_and_a_program_whole_ones(store: EmbedStore) -> None:
    """On a terminal names are relative to the store's folder; with --json or -f, and in a pipe, they are whole."""
    ask = ("search", store.path.name, "cat", "-n", "3")
    for extra, whole in ((), False), (("--json",), True), (("-f",), True), (("--csv",), True):
        text = in_terminal(store.path.parent, *ask, *extra)
        assert "pictures/" in text
        assert (str(store.path.parent) in text) == whole, extra
    assert str(store.path.parent) in run("search", store.path, "cat", "-n", 3).stdout


def in_terminal(folder: Path, *words: str) -> str:
    """Run a command with a terminal as its stdout; return what it shows."""
    import pty

    reader, writer = pty.openpty()
    done = subprocess.run([sys.executable, "-m", "embedstore", *words], cwd=folder, stdout=writer, check=True)
    assert done.returncode == 0
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is closed ends with an error
        while block := os.read(reader, 65536):
            shown += block
    os.close(reader)
    return shown.decode()


def test_pictures_are_copied_with_their_bytes(tmp_path: Path) -> None:
    """Files, members of archives and rows of tables, by the shell and in Python; nothing is overwritten."""
    first, second, third = (save_picture(tmp_path / f"{number}.png", number).read_bytes() for number in range(3))
    (tmp_path / "in").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "in" / "a.png")
    with zipfile.ZipFile(tmp_path / "in" / "z.zip", "w") as archive:
        archive.writestr("deep/a.png", second)
    pq.write_table(pa.table({"image": [third]}), tmp_path / "in" / "t.parquet")
    store = EmbedStore.create(tmp_path / "s.store", model="objects")
    store.add([tmp_path / "in" / name for name in ("a.png", "z.zip", "t.parquet")])
    out = tmp_path / "out"
    for _ in range(2):  # the second time all are there
        done = run("search", store.path, "cat", "--pictures", out)
        assert "3 pictures copied to" in done.stderr
        assert sorted(file.name for file in out.iterdir()) == ["a-2.png", "a.png", "t-0.png"]
    assert {(out / name).read_bytes() for name in ("a.png", "a-2.png")} == {first, second}
    assert (out / "t-0.png").read_bytes() == third
    (row,) = (uri for uri in store.to_table().column("uri").to_pylist() if "#" in uri)
    assert json.loads(run("search", store.path, row, "-n", 1, "--json").stdout)[0]["uri"] == row
    (tmp_path / "in" / "a.png").unlink()
    copies = store.search("cat").save_pictures(tmp_path / "again")
    assert sorted(path.name for path in copies if path) == ["a.png", "t-0.png"]
    exported = run("export", store.path, "--where", "uri like '%a.png'", "--pictures", tmp_path / "e", "-f")
    assert len(exported.stdout.splitlines()) == 2
    assert "1 picture copied to" in exported.stderr
    assert "; 1 not to be had" in exported.stderr
    (tmp_path / "file").touch()
    for place, says in ((tmp_path / "file", "there already"), (tmp_path / "file" / "in", "is a file and no folder")):
        refused = run("search", store.path, "cat", "--pictures", place)
        assert refused.exit_code == 1
        assert f"{place}: " in refused.stderr
        assert says in refused.stderr
