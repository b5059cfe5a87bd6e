"""What a shell offers after TAB, by the protocol that the printed scripts speak."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from command_line import run, run_process

from embedstore.cli import main
from embedstore.store import EmbedStore


def typed(*words: str) -> dict[str, str]:
    """Return what bash hands over for words, the last of which is to be completed."""
    line = " ".join(["embedstore", *words])
    return {"COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_EMBEDSTORE_COMPLETE": "bash_complete"}


def test_stores_classifiers_columns_and_files_are_offered(
    store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the line goes; where a store cannot be read, nothing fails. A process of its own says the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "dogs"):
        store.save_classifier(store.calibrate("cat", "label=cat", name=name))
    store.add_labels("label=cat", "cat")
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
        ("labels", "s.store", "c"): ["plain,cat"],
        ("labels", "broken.store", "c"): [],
        ("sweep", "broken.store", "cat", "--label", "la"): ["file,la"],
        ("completion", "f"): ["plain,fish"],
        ("add", "new.store", "ph"): ["file,ph"],
    }
    for words, expected in cases.items():
        with monkeypatch.context() as shell:
            for name, value in typed(*words).items():
                shell.setenv(name, value)
            found = BashComplete(main, {}, "embedstore", "_EMBEDSTORE_COMPLETE").complete()
        assert found.split() == expected, words
    for words in (("classify", "s.store", "--classifier", ""), ("search", "s.store", "--where", "w")):
        done = run_process(**typed(*words))
        assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", cases[words])


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
    (tmp_path / "embedstore").write_text(f'#!/bin/sh\nexec {sys.executable} -m embedstore "$@"\n')
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
