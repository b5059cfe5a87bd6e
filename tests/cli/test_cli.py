"""The command line as a whole: errors as one line, and help that can be pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import commands, run

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
        (("remove", "STORE"), 2, "ids, or --where"),
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
