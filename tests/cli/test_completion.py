"""What a shell offers after TAB, by the protocol that the printed scripts speak."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import run, run_process

from embedstore.store import EmbedStore


def offered(*words: str, folder: Path) -> list[str]:
    """Return what bash would be given for the last of the words, in a folder, from a process of its own."""
    line = " ".join(["embedstore", *(f"'{word}'" if word else "''" for word in words)])
    done = run_process(
        folder=folder,
        _EMBEDSTORE_COMPLETE="bash_complete",
        COMP_WORDS=line.removesuffix("''"),
        COMP_CWORD=str(len(words)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_stores_classifiers_columns_and_files_are_offered(store: EmbedStore, tmp_path: Path) -> None:
    """As far as the line goes; where a store cannot be read, nothing fails."""
    for name in ("cats", "dogs"):
        store.save_classifier(store.calibrate("cat", "label=cat", name=name))
    (tmp_path / "broken.store").mkdir()
    (tmp_path / "broken.store" / "store.json").write_text("{")
    (tmp_path / "data").mkdir()
    cases = {
        ("classif",): ["plain,classifiers", "plain,classify"],
        ("search", ""): ["plain,broken.store", "plain,s.store"],
        ("search", f"{tmp_path}/s"): [f"plain,{tmp_path}/s.store"],
        ("search", "da"): ["dir,da"],
        ("search", "no/such/"): ["dir,no/such/"],
        ("search", "s.store", "bi"): [],
        ("search", "s.store", "dog", "+", "./pi"): ["file,./pi"],
        ("search", "s.store", "--where", "w"): ["plain,width"],
        ("classify", "s.store", "--classifier", ""): ["plain,cats", "plain,dogs"],
        ("evaluate", "s.store", "d"): ["plain,dogs"],
        ("sweep", "s.store", "cat", "--label", "la"): ["plain,label"],
        ("sweep", "broken.store", "cat", "--label", "la"): ["file,la"],
        ("completion", "f"): ["plain,fish"],
    }
    for words, expected in cases.items():
        assert offered(*words, folder=tmp_path) == expected, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_takes(shell: str) -> None:
    """It names the protocol's variable, and, where the shell is here, it is read without a fault."""
    done = run("completion", shell)
    assert done.exit_code == 0
    assert f"_EMBEDSTORE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_bash_itself_completes(store: EmbedStore, tmp_path: Path) -> None:
    """The script, in a real bash, fills in a store's name."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    (tmp_path / "embedstore").write_text('#!/bin/sh\nexec python -m embedstore "$@"\n')
    (tmp_path / "embedstore").chmod(0o755)
    code = """
        PATH="$PWD:$PATH"
        eval "$(embedstore completion bash)"
        COMP_WORDS=(embedstore search s.)
        COMP_CWORD=2
        _embedstore_completion embedstore
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "s.store\n"
