"""The lines that a page shows do what the page did: they are run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embedstore.cli import main
from embedstore.page.session import Session
from embedstore.store import EmbedStore

TRUTH = {"column": "category", "value": "bird"}


@pytest.fixture
def session(photo_store: EmbedStore, tmp_path: Path) -> Session:
    return Session(EmbedStore.open(shutil.copytree(photo_store.path, tmp_path / "my store")))


def lines_of(session: Session, query: Any, where: str = "", **args: Any) -> tuple[int, dict[str, str]]:
    number = session.answer("score", {"query": query, "where": where})[0]["scored"]
    return number, session.answer("commands", {"scored": number, "threshold": 0.25, **args})[0]


def run_python(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(text, "page", "exec"), found)
    return found


def run_shell(text: str) -> list[str]:
    """Run each line that is no remark; return what they print."""
    printed = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        words = shlex.split(line)
        assert words[0] == "embedstore"
        result = CliRunner().invoke(main, words[1:])
        assert result.exit_code == 0, result.output
        printed.append(result.output)
    return printed


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"terms": [{"text": "bird"}]}, ""),
        ({"terms": [{"text": 'it\'s a "bird" $HOME; rm'}]}, "category <> 'it''s'"),
        ({"terms": [{"text": "bird", "weight": 2}, {"text": "snow", "weight": -0.5}]}, ""),
        ({"terms": [{"text": "snow", "weight": -1}]}, "width > 100"),
        ({"terms": [{"text": "bird"}], "against": ["fish", "-n"], "template": "a photo of a {}"}, ""),
        ({"terms": [{"text": "--help"}]}, ""),
        ({"terms": [{"text": "con"}]}, ""),
    ],
)
def test_the_lines_do_what_the_page_did(session: Session, query: Any, where: str) -> None:
    """The same matches, and the same classifier, by Python and by a shell."""
    number, lines = lines_of(session, query, where, labels=TRUTH, objective="f2", name="by hand")
    matches = session.answer("classify", {"query": query, "threshold": 0.25, "where": where})[0]
    made = session.answer("calibrate", {"scored": number, "labels": TRUTH, "objective": "f2"})[0]
    found = run_python(lines["python"])
    assert len(found["matches"]) == matches["n"]
    assert found["classifier"].threshold == made["threshold"]
    by_python = session.store.classifier("by hand")
    session.answer("save", {"scored": number, "threshold": 0.0, "name": "by hand", "replace": True})
    shown = run_shell(lines["shell"])
    assert str(matches["n"]) in shown[0] or matches["n"] == 0
    by_shell = session.store.classifier("by hand")
    usual = {"created_at": ""}
    assert by_shell.to_dict() | usual == by_python.to_dict() | usual


def test_labels_of_the_store_and_costs(session: Session) -> None:
    """What is not named in the lines is said."""
    number = session.answer("score", {"query": {"terms": [{"text": "bird"}]}})[0]["scored"]
    truth = session.store.to_table(["category"]).column("category").to_pylist()
    for row in session.answer("next", {"scored": number, "threshold": 0.45, "random": 40})[0]["rows"]:
        answer = "yes" if truth[row["row"]] == "bird" else "no"
        session.answer("label", {"scored": number, "row": row["row"], "answer": answer})
    cost = {"fp": 1, "fn": 5}
    lines = session.answer("commands", {"scored": number, "threshold": 0.3, "cost": cost, "name": "b"})[0]
    made = session.answer("calibrate", {"scored": number, "cost": cost})[0]
    assert "# the labels of 'bird' that the store keeps" in lines["shell"]
    assert run_python(lines["python"])["classifier"].threshold == made["threshold"]
    run_shell(lines["shell"].replace("--name b", "--name c"))
    assert session.store.classifier("c").threshold == made["threshold"]


def test_limits_are_in_the_lines(session: Session) -> None:
    """With and without a guarantee."""
    wishes = {"labels": TRUTH, "min_precision": 0.7, "objective": "recall", "guarantee": False}
    number, lines = lines_of(session, {"terms": [{"text": "bird"}]}, **wishes)
    made = session.answer("calibrate", {"scored": number, **wishes})[0]
    assert run_python(lines["python"])["classifier"].threshold == made["threshold"]
    run_shell(lines["shell"])
    assert session.store.classifier("bird").threshold == made["threshold"]


def test_a_saved_classifier_by_name(session: Session) -> None:
    """At its own threshold, and at another."""
    number = session.answer("score", {"query": {"terms": [{"text": "bird"}]}})[0]["scored"]
    session.answer("save", {"scored": number, "threshold": 0.4, "name": "my birds"})
    number = session.answer("score", {"query": {"classifier": "my birds"}})[0]["scored"]
    for threshold in (0.4, 0.3):
        lines = session.answer("commands", {"scored": number, "threshold": threshold})[0]
        there = len(session.store.classify("bird", threshold))
        assert len(run_python(lines["python"])["matches"]) == there
        assert str(there) in run_shell(lines["shell"])[0]


def test_a_picture_is_named_in_a_remark(session: Session) -> None:
    """Where its file is the page does not know."""
    file = Path(session.store.to_table(["uri"]).column("uri")[0].as_py())
    sent = session.answer("picture", {}, [file.read_bytes()])[0]["picture"]
    _, lines = lines_of(session, {"terms": [{"picture": sent}]}, labels=TRUTH)
    for text in lines.values():
        assert f"# PICTURE is the file of the picture {sent[:8]}" in text
    ready = lines["python"].replace("'PICTURE'", repr(str(file)))
    assert run_python(ready)["matches"].uri[0] == str(file)


def test_no_text_leaves_its_quotes_in_a_terminal(session: Session, tmp_path: Path) -> None:
    """What a terminal obeys when it is pasted, such as Ctrl-C, is spelt out; a word of a wish is one word."""
    evil = "x\x03 touch owned\r\n\x1b[201~'; touch owned #\\"
    _, lines = lines_of(session, {"terms": [{"text": evil}]}, name=evil, objective="f1; touch owned", labels=TRUTH)
    for text in lines.values():
        assert all(sign.isprintable() or sign == "\n" for sign in text)
    shown = lines["shell"].replace("embedstore", "printf '%s\\0'", 1).splitlines()[0]
    found = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, check=True).stdout
    assert evil.encode() in found.split(b"\0")
    assert "--objective 'f1; touch owned'" in lines["shell"]
    assert not list(tmp_path.glob("owned"))
