"""The command line as a whole: errors as one line, and help that can be pasted."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import commands, run
from conftest import save_picture

from embedstore.cli import main
from embedstore.store import EmbedStore


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("search", "STORE", ""), 1, "the query is empty"),
        (("search", "STORE"), 2, "ask with one of"),
        (("search", "STORE", "a", "--id", "b"), 2, "ask with one of"),
        (("search", "STORE", "a", "-n", "0"), 2, "0 is not in the range"),
        (("search", "STORE", "a", "--threshold", "high"), 2, "'high' is no number"),
        (("search", "STORE", "a", "--threshold", "nan"), 2, "'nan' is no number"),
        (("search", "STORE", "a", "--where", "lable == 'x'"), 1, "lable"),
        (("search", "STORE", "a", "-o", "x.xls"), 2, "should end in one of"),
        (("search", "nowhere", "a"), 1, "nowhere is no store: it does not exist"),
        (("search", "STORE", "--image", "nowhere.jpg"), 1, "nowhere.jpg"),
        (("remove", "STORE"), 2, "ids, --where EXPR or --missing"),
        (("remove", "STORE", "nobody"), 1, "'nobody'"),
        (("info", "STORE", "--at", "99"), 1, "no version 99"),
        (("add", "STORE", "nowhere/at/all"), 1, "nowhere/at/all"),
        (("add", "new.store", ".", "--model", "obects"), 1, "objects"),
    ],
)
def test_a_wrong_command_ends_with_one_clear_line(
    store: EmbedStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    """1 for an error, 2 for wrong usage, the sentence on stderr, nothing on stdout, no traceback."""
    monkeypatch.chdir(tmp_path)
    result = run(*(store.path if word == "STORE" else word for word in words))
    assert result.exit_code == status
    assert says in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new.store").exists()


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_ends_with_an_example_that_parses(name: str) -> None:
    """Each command says what it does and shows a line to paste; the line's options exist."""
    command = commands()[name]
    assert command.help
    if isinstance(command, click.Group):
        return
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("embedstore ")]
    assert examples, f"the help of {name} has no example"
    for example in examples:
        words = shlex.split(example.split(" && ")[0].split(" | ")[0], comments=True)
        assert " ".join(words[1:]).startswith(name)
        try:
            command.make_context(name, words[1 + len(name.split()) :], resilient_parsing=False)
        except click.BadParameter as error:
            # The example's files are not here; all else about it is right.
            assert re.search("No such file|does not exist", error.message)  # noqa: PT017


def test_the_readme_names_every_command_and_no_other() -> None:
    """A command that is not in the README, or a README that names one that is not there, fails."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    top = {name.split()[0] for name in commands()}
    named = set(re.findall(r"(?<!from )\bembedstore ([a-z][a-z-]+)", readme))
    assert named <= top
    assert top <= named


def test_help_lists_every_command_once() -> None:
    """No command is left out of the sections of `embedstore --help`."""
    text = run("--help").stdout
    for name in main.commands:
        assert len(re.findall(rf"^  {name}  ", text, re.MULTILINE)) == 1, name


@pytest.mark.parametrize("name", ["", *sorted(commands())])
def test_help_is_whole(name: str) -> None:
    """No sentence is cut short, no bound says None, and lines that are not for pasting fit 80 columns."""
    first, *lines = run(*name.split(), "--help").stdout.splitlines()
    assert first.startswith("Usage: ")
    assert [line for line in lines if re.search(r"[a-z]\.\.\.$|None", line)] == []
    assert [line for line in lines if len(line) > 80 and "embedstore " not in line] == []


def test_import_and_help_load_nothing_heavy() -> None:
    """`import embedstore` loads no third-party package; `--help` only click."""
    heavy = "{'numpy', 'pyarrow', 'PIL', 'sklearn', 'datasets', 'nomic', 'faiss', 'deltalake', 'onnxruntime'}"
    for code in ("import embedstore", "from embedstore.cli import main"):
        check = f"import sys; {code}; print(sorted(set(sys.modules) & {heavy}))"
        assert (
            subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"
        )


def test_the_public_names_are_there() -> None:
    """What `embedstore` lists can be taken from it."""
    import embedstore

    for name in embedstore.__all__:
        assert getattr(embedstore, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'EmbedStroe'"):
        _ = embedstore.EmbedStroe  # type: ignore[attr-defined]


def test_every_command_can_be_quiet() -> None:
    """-q is an option of each that says anything besides its result."""
    loud = [
        name
        for name, command in commands().items()
        if name not in ("sync", "completion") and not any("-q" in option.opts for option in command.params)
    ]
    assert loud == []


UNREAD = """
import json, os, sys
from embedstore.cli import main
found, kept = [], os.dup(1)
for closed, words in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    os.close(reader)
    other = os.open(os.devnull if len(sys.argv) < 3 else sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(writer if number == closed else other, number)
    status = None
    try:
        main(words)
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    found.append([closed, words, status, os.pread(other, 9999, 0).decode()])
os.write(kept, json.dumps(found).encode())
"""
"""Runs commands whose stdout (1) or stderr (2) is a pipe that nobody reads, the other a file."""


def test_a_pipe_that_nobody_reads_any_more_is_no_error(
    photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `| head` and `2>&1 | head` do, at the first byte: status 0, not a word, and the work is done."""
    monkeypatch.chdir(tmp_path)
    path = str(shutil.copytree(photo_store.path, tmp_path / "p.store"))
    save_picture(tmp_path / "one" / "a.png", 1)
    ask = [
        ["--help"],
        ["--version"],
        ["search", "--help"],
        ["search", path, "bird", "--sheet", "s.png"],
        ["search", path, "bird", "--csv"],
        ["search", path, "bird", "-f"],
        ["classify", path, "bird", "--threshold", "0.4", "--nl"],
        ["count", path, "bird", "--threshold", "0.4"],
        ["export", path, "--json"],
        ["sweep", path, "bird", "--label", "category=bird", "--noise"],
        ["calibrate", path, "bird", "--label", "category=bird", "--name", "bird"],
        ["classifiers", path],
        ["review", path, "bird", "-o", "r.csv"],
        ["versions", path],
        ["info", path],
        ["models"],
        ["queries", path, "words.txt"],
        ["add", path, "one"],
        ["verify", path],
    ]
    (tmp_path / "words.txt").write_text("bird\n")
    both = [(closed, words) for words in ask for closed in (1, 2)]
    command = [sys.executable, "-c", UNREAD, json.dumps(both), "other"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 2 * len(ask)
    for closed, words, status, other in found:
        assert status in (0, None), (closed, words, other)
        assert "error" not in other.lower(), (closed, words, other)
        assert "Traceback" not in other, (closed, words, other)
        assert closed == 1 or words[0] in ("review",) or other, words
    assert (tmp_path / "s.png").exists()
    assert (tmp_path / "r.csv").exists()
    assert EmbedStore.open(path).classifiers() == ["bird"]
    assert len(EmbedStore.open(path)) == len(photo_store) + 1


INTERRUPTED = """
import os, signal, sys, time
from embedstore.cli import main
from embedstore.store import EmbedStore
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background has it ignored
create = EmbedStore.create
def interrupted(*words, **options):
    made = create(*words, **options) if sys.argv[1] == "after" else None
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
EmbedStore.create = interrupted
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are not Windows's")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_ends_with_130_and_promises_nothing(tmp_path: Path, moment: str) -> None:
    """Before there is a store, and before there is a row in it, nobody is told that anything is stored."""
    save_picture(tmp_path / "p" / "a.png", 1)
    words = ["add", tmp_path / "s.store", tmp_path / "p", "--model", "objects"]
    command = [sys.executable, "-c", INTERRUPTED, moment, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are not Windows's")
def test_ctrl_c_at_a_question_ends_with_130(store: EmbedStore) -> None:
    """Not as a no, which is status 1."""
    (store.path / "index" / "images.json").write_text("noise")
    shutil.rmtree(store.path / "images" / "_delta_log")
    command = [sys.executable, "-m", "embedstore", "repair", str(store.path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as above
    ) as asking:
        assert asking.stderr is not None
        said = b""
        while not said.endswith(b"[y/N]: "):
            said += asking.stderr.read(1)
        while asking.poll() is None:  # one that comes just before the answer is read is seen after it only
            asking.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                asking.wait(10)
        assert asking.returncode == 130
    assert run("repair", store.path, stdin="n\n").exit_code == 1
