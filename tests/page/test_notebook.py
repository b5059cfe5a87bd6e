"""The panel in a notebook: the widget's own messages, and its module in Chromium, with no Jupyter between them."""

from __future__ import annotations

import base64
import logging
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import numpy as np
import pytest
from browser import set_threshold, until, value, watched
from comm.base_comm import BaseComm
from PIL import Image
from playwright.sync_api import Browser, expect

import embedstore
from embedstore import Query
from embedstore.errors import InputError, MissingDependencyError, QueryError
from embedstore.page import joining, notebook
from embedstore.store import EmbedStore

pytest_plugins = ["browser_fixtures"]


class Wire(BaseComm):  # type: ignore[misc]
    """What lies between kernel and browser: messages of the kernel wait here, those of the browser are handed in."""

    def __init__(self, **words: Any) -> None:
        self.sent: queue.SimpleQueue[tuple[str, Any, list[bytes]]] = queue.SimpleQueue()
        super().__init__(**words)

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        self.sent.put((msg_type, data, [bytes(one) for one in buffers or ()]))

    def tell(self, content: Any, buffers: Any = ()) -> None:
        """Hand a message of the module to the kernel."""
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": [memoryview(one) for one in buffers]})

    def heard(self) -> tuple[Any, list[bytes]]:
        """Wait for the kernel's next message to the module."""
        while True:
            kind, data, buffers = self.sent.get(timeout=60)
            if kind == "comm_msg" and data["method"] == "custom":
                return data["content"], buffers

    def ask(self, call: str, args: Any = None, buffers: Any = ()) -> tuple[Any, list[bytes]]:
        """Make a call, and wait for its answer."""
        self.tell({"id": 1, "call": call, "args": args}, buffers)
        return self.heard()


@pytest.fixture(autouse=True)
def _wired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", Wire)


@pytest.fixture
def own(photo_store: EmbedStore, tmp_path: Path) -> EmbedStore:
    """A store of the sample photographs, to be written to."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    return EmbedStore.open(tmp_path / "photos.store")


@pytest.fixture
def panel(own: EmbedStore) -> Iterator[Any]:
    """A panel that begins with a query."""
    widget = embedstore.view(own, "bird", threshold=0.5, where="width > 10", labels="category=bird")
    yield widget
    widget.close()


def test_a_view_opens_with_the_module_and_what_to_show(panel: Any) -> None:
    """The first message has all that a browser needs: the joined module, its style, and where to begin."""
    kind, data, _ = panel.comm.sent.get(timeout=60)
    assert kind == "comm_open"
    state = data["state"]
    assert state["_esm"] == joining.module_text()
    assert state["_css"] == joining.style_text()
    assert state["_model_module"] == "anywidget"
    assert state["start"] == {
        "query": {"terms": [{"text": "bird", "weight": 1.0}], "against": [], "template": None},
        "threshold": 0.5,
        "where": "width > 10",
        "labels": {"column": "category", "value": "bird"},
    }


def test_calls_are_answered_with_buffers(panel: Any, own: EmbedStore) -> None:
    """Scores come as bytes, in order; what goes wrong comes with its type and words."""
    answer, _ = panel.comm.ask("info")
    assert answer["ok"]
    assert answer["result"]["n_rows"] == len(own)
    answer, buffers = panel.comm.ask("score", {"query": panel.start["query"], "where": ""})
    assert answer["result"]["n"] == len(own)
    scores = np.frombuffer(buffers[0], np.float32)
    assert scores.tolist() == sorted(own.scores("bird")[0].tolist(), reverse=True)
    answer, _ = panel.comm.ask("score", {"query": panel.start["query"], "where": "no_such_column > 1"})
    assert not answer["ok"]
    assert answer["error"]["type"] == "FilterError"
    assert "no_such_column" in answer["error"]["message"]
    answer, _ = panel.comm.ask("fly")
    assert answer["error"]["type"] == "InputError"
    answer, _ = panel.comm.ask("picture", {}, [b"no picture"])
    assert answer["error"]["type"] == "ImageError"


def test_what_nobody_foresaw_is_an_answer_too(
    panel: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in the kernel leaves no panel waiting, and is logged with all that is known."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(panel._session, "answer", broken)
    answer, _ = panel.comm.ask("info")
    assert answer["error"] == {"type": "ZeroDivisionError", "message": "this went wrong in the kernel: by zero"}
    assert "could not answer 'info'" in caplog.text


def test_labels_are_written_in_the_order_of_the_keys(panel: Any, own: EmbedStore) -> None:
    """Calls that write are answered one after the other, also when many come at once."""
    answer, _ = panel.comm.ask("score", {"query": panel.start["query"], "where": ""})
    scored = answer["result"]["scored"]
    answers = ["yes", "no", "?", "yes", "no"] * 4
    for number, said in enumerate(answers):
        panel.comm.tell({"id": number, "call": "label", "args": {"scored": scored, "row": number % 3, "answer": said}})
    assert [panel.comm.heard()[0]["id"] for _ in answers] == list(range(len(answers)))
    history = own.labels("bird")
    ids = own.to_table(["id"]).column("id").to_pylist()[:3]
    last = {ids[number % 3]: said for number, said in enumerate(answers)}
    assert dict(zip(history.rows, history.answers.tolist(), strict=True)) == last


def test_messages_of_others_are_left_alone(panel: Any) -> None:
    """What is no call gets no answer; the next call does."""
    panel.comm.tell("hello")
    panel.comm.tell({"call": "info"})
    assert panel.comm.ask("classifiers")[0]["result"] == {"classifiers": []}


def test_queries_of_every_kind(own: EmbedStore, tmp_path: Path) -> None:
    """Texts, ids, pictures in files and in memory, mixes and saved classifiers; a vector is refused."""
    first = own.to_table(["id", "uri"]).slice(0, 1).to_pylist()[0]
    array = np.asarray(Image.open(first["uri"]).convert("RGB"))
    classifier = own.calibrate("bird", "category=bird", name="bird", resamples=0)
    with pytest.raises(InputError, match="not saved the classifier 'bird' as it is; save it first"):
        embedstore.view(own, classifier)
    own.save_classifier(classifier)
    mixed = Query.parse("2:bird - flower")
    for asked, terms in (
        (Query.id(first["id"]), [{"id": first["id"], "weight": 1.0}]),
        (mixed, [{"text": "bird", "weight": 2.0}, {"text": "flower", "weight": -1.0}]),
    ):
        widget = embedstore.view(own, asked)
        assert widget.start["query"]["terms"] == terms
        widget.close()
    for asked in (Path(first["uri"]), Path(first["uri"]).read_bytes(), array, Image.fromarray(array)):
        widget = embedstore.view(own, asked)
        answer, buffers = widget.comm.ask("score", {"query": widget.start["query"], "where": ""})
        assert answer["ok"], answer
        rows = np.frombuffer(buffers[1], np.uint32)
        assert int(rows[0]) == 0
        widget.close()
    widget = embedstore.view(own, classifier)
    assert widget.start == {"query": {"classifier": "bird", "class": None}}
    widget.close()
    assert embedstore.view(own).start is None
    with pytest.raises(InputError, match=r"texts, pictures and ids, found a vector; use store\.sweep"):
        embedstore.view(own, np.ones(256))
    with pytest.raises(QueryError, match="cannot search for a"):
        embedstore.view(own, object())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"where": ["no", "text"]}, "where is a SQL condition here, a text; found a list"),
        ({"labels": "category"}, "labels of a view are COLUMN=VALUE, such as 'category=bird'; found 'category'"),
        ({"labels": "categry=bird"}, "there is no column 'categry'; .* Did you mean 'category'"),
        ({"threshold": "high"}, "a threshold must be a number"),
    ],
)
def test_what_a_view_cannot_show_is_refused(own: EmbedStore, words: dict[str, Any], error: str) -> None:
    """In the cell that asks for it, not in the panel."""
    with pytest.raises(InputError, match=error):
        embedstore.view(own, "bird", **words)


def test_very_many_rows_are_warned_of(
    own: EmbedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their scores are a message that Jupyter's server drops by default."""
    embedstore.view(own).close()
    assert caplog.text == ""
    monkeypatch.setattr(notebook, "MOST_ROWS", len(own) - 1)
    with caplog.at_level(logging.WARNING, "embedstore"):
        embedstore.view(own).close()
    assert "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e9" in caplog.text


def test_a_view_says_what_is_missing(own: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """anywidget is an extra."""
    notebook._widget_type.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "embedstore\[notebook\]"'):
        embedstore.view(own)
    notebook._widget_type.cache_clear()


def test_the_name_costs_nothing_until_it_is_used() -> None:
    """`import embedstore` loads no part of the page, and looking at `embedstore.view` no widgets."""
    code = (
        "import sys, embedstore; assert not [m for m in sys.modules if m.startswith('embedstore.page')]; "
        "embedstore.view; assert 'anywidget' not in sys.modules and 'ipywidgets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


BROWSER_SIDE = """
    async ([module, style, start]) => {
        const sheet = document.createElement("style");
        sheet.textContent = style;
        document.head.append(sheet);
        const listeners = new Set();
        const text = (one) => {
            const bytes = new Uint8Array(one.buffer ?? one, one.byteOffset ?? 0, one.byteLength);
            return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        };
        const model = {
            get: (name) => ({start})[name],
            on: (event, listener) => event === "msg:custom" && listeners.add(listener),
            off: (event, listener) => listeners.delete(listener),
            send: (content, callbacks, buffers = []) => void window.toKernel(content, buffers.map(text)),
        };
        window.fromKernel = (content, buffers) => {
            const views = buffers.map((one) =>
                new DataView(Uint8Array.from(atob(one), (letter) => letter.charCodeAt(0)).buffer));
            for (const listener of listeners) listener(content, views);
        };
        const url = URL.createObjectURL(new Blob([module], {type: "text/javascript"}));
        const {default: widget} = await import(url);
        const element = document.createElement("div");
        document.body.append(element);
        window.close_panel = await widget.render({model, el: element});
    }
"""
"""What anywidget does in a browser: it imports the module, renders it, and carries messages there and back."""


def test_the_panel_runs_in_a_browser(own: EmbedStore, panel: Any, chromium: Browser) -> None:
    """The slider moves the library's figures, a key labels in the store, and closing takes the panel away."""
    swept = own.sweep("bird", "category=bird", where="width > 10")
    assert swept.curve is not None
    _, data, _ = panel.comm.sent.get(timeout=60)
    with watched(chromium) as (page, watch):
        page.expose_function(
            "toKernel", lambda content, buffers: panel.comm.tell(content, [base64.b64decode(one) for one in buffers])
        )
        page.goto("about:blank")
        page.evaluate(BROWSER_SIDE, [data["state"][name] for name in ("_esm", "_css", "start")])

        def carried(until_true: Any, said: str) -> None:
            """Carry messages of the kernel into the browser until something holds."""

            def step() -> bool:
                while not panel.comm.sent.empty():
                    _, sent, buffers = panel.comm.sent.get()
                    page.evaluate(
                        "([content, buffers]) => window.fromKernel(content, buffers)",
                        [sent["content"], [base64.b64encode(one).decode() for one in buffers]],
                    )
                page.evaluate("1")  # lets the page's own messages through
                return bool(until_true())

            until(step, said)

        place = page.get_by_test_id
        carried(lambda: place("precision").count() and place("precision").get_attribute("data-value"), "the figures")
        assert value(place("threshold-number")) == 0.5
        for threshold in (0.5, 0.31, 0.62):
            set_threshold(page, threshold)
            expect(place("matches-count")).to_have_attribute("data-value", str(swept.distribution.matches(threshold)))
            for name in ("precision", "recall", "f1"):
                expected = getattr(swept.curve.at(threshold), name)
                assert value(place(name)) == pytest.approx(expected, abs=1e-12)
        carried(lambda: place("tile").first.locator("img").evaluate("one => one.naturalWidth > 0"), "a picture")
        place("tile").first.click()
        page.keyboard.press("y")
        carried(lambda: len(own.labels("bird").lines) == 1, "the label in the store")
        assert own.labels("bird").answers.tolist() == ["yes"]
        page.evaluate("window.close_panel()")
        expect(page.locator(".embedstore")).to_have_count(0)
        assert watch.away() == []
