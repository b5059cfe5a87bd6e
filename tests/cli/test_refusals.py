"""Hostile files under every command: one line that names what is wrong and the way on, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from command_line import commands
from conftest import save_picture

from embedstore.cli import main
from embedstore.cli.refusals import line_for
from embedstore.errors import InputError
from embedstore.store import EmbedStore

STORE, PICTURES, LABELS, WORDS, FAILED, PICTURE = "STORE", "PICTURES", "LABELS.csv", "WORDS.txt", "FAILED.csv", "P.png"
OTHER, NEW, CLASSIFIER, VECTORS = "OTHER", "NEW", "CLASSIFIER.json", "VECTORS.parquet"
KEY, COPIES, MATCHES = "KEY.txt", "COPIES", "MATCHES"
READ = {PICTURES, LABELS, WORDS, FAILED, PICTURE, CLASSIFIER, VECTORS, KEY}
"""What is read; what begins with OUT is written."""

VALID: dict[str, list[list[str]]] = {
    "add": [
        [NEW, PICTURES, "--model", "objects", "--reuse", OTHER],
        [STORE, "--retry-failed", FAILED],
        [NEW, VECTORS, "--embedding-column", "v", "--space", "own"],
        [STORE, PICTURES, "--dry-run", "--api-key-file", KEY],
    ],
    "calibrate": [
        [STORE, "dog", "--label", LABELS, "--name", "again"],
        [STORE, "--image", PICTURE, "--label", "label=cat", "--no-save"],
    ],
    "calibrate-classes": [[STORE, "--column", "label", "--class", "cat=a cat", "--class", "dog", "--name", "two"]],
    "classifiers": [[STORE, "cat"]],
    "classify": [
        [STORE, "dog", "--threshold", "0.1", "-o", "OUT.csv", "--sheet", "OUT.png"],
        [STORE, "--classifier", CLASSIFIER],
        [STORE, "--classifier", "cat", "--from", OTHER],
        [STORE, "--image", PICTURE, "--threshold", "0.1", "-o", "OUT.parquet", "--pictures", COPIES],
        [STORE, "dog", "--threshold", "0.1", "--output-folder", MATCHES],
    ],
    "completion": [["bash"]],
    "compact": [[STORE]],
    "compare-backends": [[STORE, "--second", "objects", "--api-key-file", KEY], [PICTURES, "--first", "objects"]],
    "count": [[STORE, "--image", PICTURE, "--threshold", "0.1", "--sheet", "OUT.jpg"]],
    "demo": [["--photos", PICTURES, "--store", NEW]],
    "carry": [[OTHER, "cat", "--to", STORE, "-o", "OUT.csv"]],
    "estimate": [[STORE, "cat", "--label", LABELS], [STORE, "--image", PICTURE, "--label", LABELS]],
    "plan-labels": [
        [STORE, "cat", "--label", LABELS, "--min-recall", "0.5"],
        [STORE, "--image", PICTURE, "--label", LABELS, "--min-recall", "0.5"],
    ],
    "evaluate": [[STORE, "cat", "--label", LABELS, "--from", OTHER]],
    "export": [
        [STORE, "-o", f"OUT{ending}", "--pictures", COPIES]
        for ending in (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")
    ],
    "index": [[STORE]],
    "info": [[STORE]],
    "labels": [
        [STORE, "cat", "--import", LABELS],
        [STORE, "-o", "OUT.csv"],
        [STORE, "--undo"],
        [STORE, "--export", "OUT.parquet"],
    ],
    "models": [[]],
    "models pull": [["objects"]],
    "plot": [
        [STORE, "cat", "--from", OTHER, "--label", LABELS, "-o", f"OUT{ending}"] for ending in (".png", ".svg", ".pdf")
    ],
    "queries": [[STORE, WORDS, "--api-key-file", KEY]],
    "rank": [[STORE, "dog", "--label", LABELS, "-o", "OUT.json"]],
    "remove": [[STORE, "--where", "label = 'cat'"]],
    "repair": [[STORE, "--yes"]],
    "report": [[STORE, "cat", "--from", OTHER, "--label", LABELS, "-o", "OUT.html"]],
    "restore": [[STORE, "1"]],
    "review": [[STORE, "cat", "--from", OTHER, "--label", LABELS, "-o", "OUT.csv", "--sheet", "OUT.png"]],
    "search": [[STORE, "--image", PICTURE, "-o", "OUT.csv", "--sheet", "OUT.png", "--pictures", COPIES]],
    "sweep": [[STORE, "dog", "--label", LABELS, "-o", "OUT.csv"], [STORE, "--image", PICTURE]],
    "sync atlas": [[STORE, "org/name", "--dry-run", "--api-key-file", KEY]],
    "vacuum": [[STORE]],
    "verify": [[STORE, "--deep"]],
    "versions": [[STORE, "-o", "OUT.csv"]],
}


def spoil(*names: str, content: bytes | None = None) -> Callable[[Path], None]:
    """Write over files of a store, or put a folder in their place."""

    def change(store: Path) -> None:
        for name in names:
            for file in [store / name, *store.glob(name)]:
                if file.is_dir():
                    shutil.rmtree(file)
                file.unlink(missing_ok=True)
                if content is None:
                    (file / "in").mkdir(parents=True, exist_ok=True)
                else:
                    file.write_bytes(content)

    return change


NOISE = bytes(range(256)) * 40
DEEP = b"[" * 200_000
STORES: dict[str, Callable[[Path], None]] = {
    "manifest empty": spoil("store.json", content=b""),
    "manifest a list": spoil("store.json", content=b"[1]"),
    "manifest a number": spoil("store.json", content=b"7"),
    "manifest deep": spoil("store.json", content=DEEP),
    "manifest noise": spoil("store.json", content=NOISE),
    "manifest a folder": spoil("store.json"),
    "images gone": lambda store: shutil.rmtree(store / "images"),
    "images a file": spoil("images", content=b"x"),
    "log gone": lambda store: shutil.rmtree(store / "images" / "_delta_log"),
    "log a file": spoil("images/_delta_log", content=b"x"),
    "commit empty": spoil("images/_delta_log/*.json", "index/images.json", content=b""),
    "commit a list": spoil("images/_delta_log/*.json", "index/images.json", content=b"[1]"),
    "commit noise": spoil("images/_delta_log/*.json", "index/images.json", content=NOISE),
    "commit a folder": spoil("images/_delta_log/*1.json", "index/images.json"),
    "parts empty": spoil("images/*.parquet", content=b""),
    "parts noise": spoil("images/*.parquet", content=NOISE),
    "parts folders": spoil("images/*.parquet"),
    "parts noise, no note": spoil("images/*.parquet", "index/images.json", content=NOISE),
    "parts gone": lambda store: [file.unlink() for file in (store / "images").glob("*.parquet")] and None,
    "note noise": spoil("index/images.json", content=NOISE),
    "note a list": spoil("index/images.json", content=b"[]"),
    "note deep": spoil("index/images.json", content=DEEP),
    "note a folder": spoil("index/images.json"),
    "index a file": spoil("index", content=b"x"),
    "index noise": spoil("index/part-*", content=NOISE),
    "index notes lists": spoil("index/part-*.json", content=b"[]"),
    "classifier noise": spoil("classifiers/cat.json", content=NOISE),
    "classifier a list": spoil("classifiers/cat.json", content=b"[]"),
    "classifier deep": spoil("classifiers/cat.json", content=DEEP),
    "classifier a folder": spoil("classifiers/cat.json"),
    "classifiers a file": spoil("classifiers", content=b"x"),
    "ledger noise": spoil("ledger.sqlite", content=NOISE),
    "ledger empty": spoil("ledger.sqlite", content=b""),
    "ledger a folder": spoil("ledger.sqlite"),
    "lock a folder": spoil(".lock"),
    "running a file": spoil(".running", content=b"x"),
    "failures a folder": spoil("failures.csv"),
    "journal a file": spoil("journal", content=b"x"),
}
"""What a store may have become."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands need, and nothing wrong with it."""
    here = tmp_path_factory.mktemp("world")
    for number in range(12):
        save_picture(here / PICTURES / ("cat" if number % 3 == 0 else "dog") / f"{number:02}.png", number)
    shutil.copy(here / PICTURES / "cat" / "00.png", here / PICTURE)
    store = EmbedStore.create(here / STORE, model="objects")
    store.add(here / PICTURES, label_from_folder=True, progress=False)
    store.search("dog")
    store.index()
    cat = store.calibrate("cat", "label=cat", name="cat")
    store.save_classifier(cat)
    cat.save(here / CLASSIFIER)
    shutil.copytree(here / STORE, here / OTHER)
    ids = store.to_table(["id", "label"])
    rows = [f"{row['id']},{'yes' if row['label'] == 'cat' else 'no'}" for row in ids.to_pylist()]
    (here / LABELS).write_text("\n".join(["id,label", *rows]))
    (here / WORDS).write_text("a dog\na cat\n")
    (here / FAILED).write_text(f"uri,reason\n{here / PICTURE},broken\n")
    (here / KEY).write_text("nk-0123456789abcdef\n")
    pq.write_table(pa.table({"v": [[1.0, 0.0], [0.0, 1.0]], "n": [1, 2]}), here / VECTORS)
    return here


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world, in which the command is run."""
    copied = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(copied)
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    return copied


def invoked(name: str, words: list[str]) -> Result:
    return CliRunner().invoke(main, [*name.split(), *words])


def wrong(result: Result, what: str, *, fails: bool = True) -> list[str]:
    """Return what is wrong with how a command ended, but for status 1 or 2 and one line; `fails`: that it should."""
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error:")]
    right = (
        (result.exception is None or isinstance(result.exception, SystemExit))
        and "Traceback" not in result.output
        and result.exit_code in ((1, 2) if fails else (0, 1, 2))
        and (result.exit_code != 1 or not result.stderr or len(errors) == 1)
        and all(len(line) > len("error: ") + 10 for line in errors)
    )
    return [] if right else [f"{what}: {result.exit_code}, {result.exception!r}, {result.output[-600:]}"]


def every_command() -> list[tuple[str, list[str]]]:
    return [(name, words) for name, many in VALID.items() for words in many]


def some_commands(turn: int) -> list[tuple[str, list[str]]]:
    """Every third command, another third each turn; HOSTILE=all in the environment: every one, which takes minutes."""
    return every_command() if os.environ.get("HOSTILE") == "all" else every_command()[turn % 3 :: 3]


RUN_ON = {"serve"}
"""Commands that do not end by themselves: their own tests say what they refuse."""


def test_every_command_is_tried_with_every_path_that_it_takes() -> None:
    """A new command, or a new option that names a file, has to be put into `VALID`."""
    ending = {name: command for name, command in commands().items() if name not in RUN_ON}
    known = {name: command for name, command in ending.items() if name in VALID or not is_group(command)}
    assert set(VALID) == set(known)
    for name, command in known.items():
        said = {word for words in VALID[name] for word in words}
        for option in command.params:
            takes_path = isinstance(option.type, (click.Path, click.File))
            if isinstance(option, click.Option) and takes_path:
                assert said & set(option.opts), (name, option.opts)


def is_group(command: click.Command) -> bool:
    return isinstance(command, click.Group)


@pytest.mark.parametrize(("name", "words"), every_command())
def test_what_is_said_here_works(here: Path, name: str, words: list[str]) -> None:
    """The commands below fail for what was done to their files, not for their words."""
    result = invoked(name, words)
    needs_network = name == "sync atlas" or "--second" in words or "--first" in words
    assert wrong(result, name, fails=False) == []
    assert result.exit_code == 0 or needs_network, result.output


@pytest.mark.parametrize("spoilt", STORES)
def test_a_spoilt_store_is_one_line(here: Path, spoilt: str) -> None:
    """Whatever is wrong with any file of a store, under every command."""
    found = []
    for name, words in some_commands(list(STORES).index(spoilt)):
        for place in {STORE, OTHER, NEW} & set(words):
            fresh = here / "fresh"
            shutil.copytree(here / OTHER, fresh)
            STORES[spoilt](fresh)
            result = invoked(name, [str(fresh) if word == place else word for word in words])
            found += wrong(result, f"{spoilt}: {name} {words}", fails=False)
            shutil.rmtree(fresh)
            shutil.rmtree(here / NEW, ignore_errors=True)
    assert found == []


def places(here: Path) -> dict[str, Path]:
    """Paths where no store can be, or be made."""
    (here / "file").write_text("x")
    (here / "full").mkdir()
    (here / "full" / "x").write_text("x")
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    return {
        "a file": here / "file",
        "below a file": here / "file" / "s.store",
        "a full folder": here / "full",
        "too long": here / ("n" * 300),
        "a circle": here / "a",
        "a device": Path(os.devnull),
        "an escape": here / "a%20b",
    }


def test_a_place_of_no_store_is_one_line(here: Path) -> None:
    """A file, below a file, a folder of something else, a name that is too long, a circle of links, a device."""
    found = []
    for turn, (what, path) in enumerate(places(here).items()):
        for name, words in some_commands(turn):
            for place in {STORE, OTHER, NEW} & set(words):
                result = invoked(name, [str(path) if word == place else word for word in words])
                found += wrong(result, f"{what}: {name} {words}", fails="--dry-run" not in words)
                shutil.rmtree(here / NEW, ignore_errors=True)
    assert found == []


READABLE: dict[str, bytes | None] = {
    "gone": b"gone",
    "a folder": None,
    "empty": b"",
    "noise": NOISE,
    "a NUL": b"id,label\n\0,\0\n",
    "a list": b"[1, 2]",
    "a number": b"7",
    "deep": DEEP,
    "half a table": b"PAR1" + NOISE,
    "one line": b"x",
    "many commas": b"," * 5000,
    "a quote": b'id,label\n"',
    "utf-16": "id,label\n1,yes\n".encode("utf-16"),
    "addresses": b"http://127.0.0.1:9/x.png\nfile:///etc/passwd\n",
    "columns only": b"id,uri,label,reason,image\n",
    "a picture's head": b"\x89PNG\r\n\x1a\n" + bytes(20),
}


@pytest.mark.parametrize("kind", READABLE)
def test_a_bad_file_to_read_is_one_line(here: Path, kind: str) -> None:
    """Missing, a folder, empty, no text, JSON of something else, half of a table, under every name that it may have."""
    content, found = READABLE[kind], []
    for name, words in some_commands(list(READABLE).index(kind)):
        for word in READ & set(words):
            endings = {Path(word).suffix}
            if word == LABELS:
                endings |= {".jsonl", ".parquet", ".tsv"}
            if word in (PICTURES, VECTORS):
                endings |= {".csv", ".jsonl", ".arrow", ".txt", ".tar", ".tar.gz", ".zip", ".npy", ".png", ".parquet"}
            for ending in endings:
                bad = here / f"bad{ending}"
                if content is None:
                    bad.mkdir()
                elif content != b"gone":
                    bad.write_bytes(content)
                result = invoked(name, [str(bad) if one == word else one for one in words])
                found += wrong(result, f"{kind}{ending} for {word}: {name} {words}", fails=False)
                shutil.rmtree(bad, ignore_errors=True) if content is None else bad.unlink(missing_ok=True)
                shutil.rmtree(here / NEW, ignore_errors=True)
    assert found == []


EACH = """
import json, sys
from click.testing import CliRunner
from embedstore.cli import main
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, words)
    print(json.dumps([words, result.exit_code, result.output + repr(result.exception)]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_or_device_is_never_waited_for(here: Path) -> None:
    """Wherever its name comes from: an argument, an option, a list, a folder, a table; each is named as what it is."""
    os.mkfifo(here / "pipe")
    asked: list[list[str]] = []
    for kind, target in (("a pipe", here / "pipe"), ("a device", Path("/dev/zero"))):
        for name, words in every_command():
            for word in sorted(READ & set(words)):
                bad = here / f"{kind[2:]}{Path(word).suffix}"
                if not bad.exists():
                    bad.symlink_to(target)
                asked.append([*name.split(), *(str(bad) if one == word else one for one in words)])
    folder = here / "beside"
    save_picture(folder / "a.png", 1)
    for name in ("metadata.csv", "pipe.png"):
        os.mkfifo(folder / name)
    (here / "list.txt").write_text("pipe.csv\nbeside/pipe.png\n")
    (here / "rows.csv").write_text("image\nbeside/pipe.png\n")
    (here / "vectors.npy").symlink_to(here / "pipe")
    (here / "failed.csv").write_text(f"uri,reason\n{folder / 'pipe.png'},broken\n")
    inside = [
        ["add", "a.store", "beside", "--model", "objects"],
        ["add", "a.store", "list.txt"],
        ["add", "a.store", "rows.csv"],
        ["add", "v.store", "vectors.npy", "--embedding-column", "v", "--space", "own"],
        ["add", "a.store", "--retry-failed", "failed.csv"],
        ["classify", "STORE", "--classifier", "pipe.json"],
    ]
    command = [sys.executable, "-c", EACH, json.dumps(asked + inside)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(asked + inside), (asked + inside)[len(answers)]
    for words, status, said in answers:
        named = (
            "it is a (pipe|device), not a regular file|is no folder of photographs|1 cannot be read|one backend only"
        )
        assert re.search(named, said), (words, said)
        assert "Traceback" not in said, (words, said)
        assert status in (1, 2) or words[0] == "add", (words, status, said)


def test_a_stream_that_is_meant_is_read(here: Path) -> None:
    """`-`, /dev/stdin and what a shell makes of `<(...)`: a person who types that wants it to be waited for."""
    for name in ("-", "/dev/stdin"):
        command = [sys.executable, "-m", "embedstore", "queries", STORE, name, "--json"]
        done = subprocess.run(command, input=f"a bird {name}\n", capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["embedded"] == 1
    if shutil.which("bash"):
        line = f"{sys.executable} -m embedstore queries {STORE} <(echo a boat) --json"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["queries"] == 1


def test_tables_with_nothing_in_them_are_one_line(here: Path) -> None:
    """No row, no column, no row group, columns of other types, of labels, vectors and pictures."""
    tables = [
        pa.table({"v": pa.array([], pa.list_(pa.float32())), "id": pa.array([], pa.string())}),
        pa.table({"id": pa.array([1.5]), "label": pa.array([b"\0"]), "v": pa.array(["x"])}),
        pa.table({"id": pa.array([None]), "label": pa.array([None]), "v": pa.array([None], pa.list_(pa.float32()))}),
        pa.table({"id": pa.array([["a"]]), "label": pa.array([{"a": 1}]), "v": pa.array([[None, 1.0]])}),
        pa.table({"v": pa.array([[]], pa.list_(pa.float32()))}),
        pa.table({}),
    ]
    found = []
    for number, table in enumerate(tables):
        pq.write_table(table, here / "bad.parquet")
        for name, words in some_commands(number):
            for word in {LABELS, VECTORS, PICTURES} & set(words):
                result = invoked(name, ["bad.parquet" if one == word else one for one in words])
                found += wrong(result, f"table {number} for {word}: {name} {words}", fails=False)
                shutil.rmtree(here / NEW, ignore_errors=True)
    assert found == []


def outputs(here: Path, ending: str) -> Iterator[tuple[str, Path]]:
    (here / "file").write_text("x")
    yield "no folder", here / "none" / f"out{ending}"
    yield "below a file", here / "file" / f"out{ending}"
    (here / f"folder{ending}").mkdir(exist_ok=True)
    yield "a folder", here / f"folder{ending}"
    yield "too long", here / f"{'n' * 300}{ending}"
    if os.path.exists("/dev/full"):
        (here / f"full{ending}").unlink(missing_ok=True)
        (here / f"full{ending}").symlink_to("/dev/full")
        yield "a full disk", here / f"full{ending}"


def test_an_output_that_cannot_be_written_is_one_line_that_names_it(here: Path) -> None:
    """Into no folder, below a file, over a folder, under too long a name, on a full disk."""
    tried, found = 0, []
    for name, words in every_command():
        for word in [word for word in words if word.startswith("OUT")]:
            for what, path in outputs(here, Path(word).suffix):
                if (name, what) == ("carry", "a full disk"):
                    continue  # it writes only where scores differ, which those of so few pictures cannot
                result = invoked(name, [str(path) if one == word else one for one in words])
                found += wrong(result, f"{what}: {name} {words}")
                if path.name[:200] not in result.stderr:
                    found.append(f"{what}: {name} {words} does not name the file: {result.stderr}")
                tried += 1
    assert found == []
    assert tried > 80


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "words", [["info", STORE], ["search", STORE, "dog", "--csv"], ["export", STORE, "--json"], ["models"], ["--help"]]
)
def test_a_full_disk_under_stdout_is_one_line(here: Path, words: list[str]) -> None:
    """What is printed goes to a file on a full disk: status 1 and one line, at the end of the process too."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "embedstore", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the disk is full" in done.stderr


LIMITED = """
import resource, sys
which, limit = getattr(resource, sys.argv[1]), int(sys.argv[2])
from embedstore.cli import main
import embedstore.store, embedstore.embedders.registry, onnxruntime, deltalake, filelock, sqlite3, PIL.Image
resource.setrlimit(which, (limit, limit))
main(sys.argv[3:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
@pytest.mark.parametrize(("which", "limits"), [("RLIMIT_NOFILE", (4, 9)), ("RLIMIT_FSIZE", (0, 100))])
@pytest.mark.parametrize("words", [*VALID["add"][:1], *VALID["compact"], *VALID["remove"], *VALID["search"]])
def test_limits_of_the_system_are_one_line(here: Path, words: list[str], which: str, limits: tuple[int, ...]) -> None:
    """Too many files open, and files too large, which is a full disk of another name: in processes of their own."""
    name = next(
        name for name, many in VALID.items() if words in many and name in ("add", "compact", "remove", "search")
    )
    for limit in limits:
        command = [sys.executable, "-c", LIMITED, which, str(limit), *name.split(), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == done.returncode, done.stderr
        shutil.rmtree(here / NEW, ignore_errors=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EISDIR])
def test_a_refusal_of_the_system_names_the_file_and_the_way_on(number: int) -> None:
    """From Python, and in the words of the libraries below."""
    said = line_for(OSError(number, os.strerror(number), "/x/a.parquet"))
    assert said is not None
    assert said.startswith("/x/a.parquet: ")
    assert "; " in said
    way = said.split("; ", 1)[1]
    arrow = OSError(f"[Errno {number}] Failed to open local file '/x/a.parquet'. Detail: [errno {number}] no")
    assert way in str(line_for(arrow))
    from deltalake.exceptions import DeltaError

    delta = DeltaError(f"Generic LocalFileSystem error: Unable to open /x/a.parquet: no (os error {number})")
    assert way in str(line_for(delta))
    assert "/x/a.parquet" in str(line_for(delta))


def test_a_fault_of_the_program_is_no_refusal() -> None:
    """It is not said as if it were the user's; what the library says is left as it is."""
    assert line_for(KeyError("x")) is None
    assert line_for(AssertionError()) is None
    assert line_for(InputError("as it is")) == "as it is"
