"""Numbers and names as a person reads them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from embedstore.wording import counted, one_line, quoted

NAMES = [
    "a\nb.jpg",
    "\nb",
    "a\n",
    "it's\tx",
    "a\x1b[31mb",
    "\x01\x0234",
    "a\n1",
    "a\\b\tc",
    'a"b\tc',
    "\x7f",
    "größe\n\x85",
    os.fsdecode(b"\xff\xfe\n"),
]


def test_one_is_not_several() -> None:
    """The word for one stands at 1 only; thousands have commas."""
    assert [counted(n, "part") for n in (0, 1, 2, 12_345)] == ["0 parts", "1 part", "2 parts", "12,345 parts"]
    assert [counted(n, "query", "queries") for n in (1, 3)] == ["1 query", "3 queries"]


@pytest.mark.skipif(shutil.which("ls") is None, reason="there is no ls")
def test_names_with_control_characters_are_quoted_as_ls_does(tmp_path: Path) -> None:
    """Line by line what GNU ls prints on a terminal, and what a shell reads back as the name."""
    for name in NAMES:
        (tmp_path / name).touch()
    told = subprocess.run(
        ["ls", "-1", "--quoting-style=shell-escape"],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    if told.returncode:
        pytest.skip("this ls is not GNU's")
    assert sorted(quoted(name) for name in NAMES) == sorted(os.fsdecode(told.stdout).splitlines())
    for name in NAMES:
        echoed = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True)
        assert echoed.stdout == os.fsencode(name)


def test_ordinary_names_stay_as_they_are() -> None:
    """Spaces, quotes, letters of any script, joined emoji: nothing there breaks a line."""
    for name in ("a b.jpg", "it's", "größe.png", "写真\u3000一.jpg", "9.41\u202fAM.png", "👩\u200d🔬.jpg", ""):
        assert quoted(name) == name
    assert quoted("gpj.\u202etxt") == "'gpj.'$'\\342\\200\\256''txt'"
    assert shlex.split(quoted("a b")) == ["a", "b"]


def test_a_message_is_one_line() -> None:
    """Control characters are written out, the rest stays."""
    assert one_line("no 'a\nb'\tat\x1b[2J all") == "no 'a\\nb'\\tat\\033[2J all"
