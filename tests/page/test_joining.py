"""The page's files joined into one module: it runs in Chromium and does what the separate files do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from embedstore.page import joining
from embedstore.page.joining import JoiningError, join

pytest_plugins = ["browser_fixtures"]

FILES = {
    "view.js": """import {counted, Store as Shelf} from "./shelf.js";
import {
    twice,
    PI as pi,
} from "./numbers.js";
import {a} from "./vendor/small.js";

const name = "view";
export const LIMIT = 3;
export default {
    render({model}) {
        return [name, twice(LIMIT), pi, counted(), new Shelf(2).size, a(1), model.get("start")];
    },
};
""",
    "shelf.js": """import {twice as doubled} from "./numbers.js";
let count = 0;
const name = "shelf";
export function counted() { count += 1; return `${name} ${doubled(count)}`; }
export class Store { constructor(size) { this.size = size; } }
""",
    "numbers.js": """const name = "numbers";
export const twice = (n) => name && 2 * n;
export const PI = 3;
export async function later() { return PI; }
""",
    "vendor/small.js": "const t=n=>n+1,e=2;export{t as a,e as b};\n",
    "report_host.js": """import {later} from "./numbers.js";
export function start(view) {
    later().then((n) => { globalThis.answer = [n, view.render({model: {get: () => "host"}})]; });
}
""",
}
WHOLE = ["view", 6, 3, "shelf 2", 2, 2, "here"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small front end that uses every kind of import and export."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Any]:
    """A page whose addresses at http://files/ are answered by what a test puts into `tab.files`."""
    page = chromium.new_page()
    page.files = {"index.html": "<!doctype html>"}

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix("http://files/")
        kind = "text/javascript" if name.endswith(".js") else "text/html"
        route.fulfill(body=page.files.get(name, ""), content_type=kind)

    page.route("**", answer)
    page.goto("http://files/index.html")
    yield page
    page.close()


RUN = """async (file) => (await import(file)).default.render({model: {get: () => "here"}})"""


def test_joined_and_separate_files_do_the_same(tab: Any, files: Path) -> None:
    """Names that several files use stay apart; the order is that of the imports."""
    tab.files |= FILES
    tab.files["joined.js"] = join(files)
    assert tab.evaluate(RUN, "/view.js") == WHOLE
    assert tab.evaluate(RUN, "/joined.js") == WHOLE
    order = [script.name for script in joining.in_order(files, "view.js")]
    assert order == ["numbers.js", "shelf.js", "vendor/small.js", "view.js"]
    assert join(files).endswith("export default $view.default;\n")


def test_a_host_starts_the_module(tab: Any, files: Path) -> None:
    """The text goes on with the host, which is called with the module, in a script within a page."""
    text = join(files, host="report_host.js")
    assert text.startswith(join(files))
    tab.set_content(f"<!doctype html><script type=module>{text}</script>")
    tab.wait_for_function("globalThis.answer")
    assert tab.evaluate("globalThis.answer") == [3, [*WHOLE[:-1], "host"]]


def test_lines_stay_where_they_are(files: Path) -> None:
    """An error's line in the joined text is that of the file, counted from where the file begins."""
    script = joining.read_script(files, "view.js")
    assert script.body.splitlines().index('const name = "view";') == FILES["view.js"].splitlines().index(
        'const name = "view";'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('import view from "./numbers.js";\nexport default {};', "view.js, line 1: 'import view from"),
        ('\nimport * as all from "./numbers.js";\nexport default {};', "view.js, line 2: 'import \\* as"),
        ('import "./numbers.js";\nexport default {};', "cannot be joined; write import {a, b as c}"),
        ('const a = await import("./numbers.js");\nexport default {};', "view.js, line 1"),
        ("export let n = 0;\nexport default {};", "line 1: 'export let n"),
        ('export * from "./numbers.js";\nexport default {};', "line 1"),
        ('import {none} from "./numbers.js";\nexport default {};', "imports none, which numbers.js does not export"),
        ('import {none} from "./away.js";\nexport default {};', "imports away.js, which is not there"),
        ('import {a.b} from "./numbers.js";\nexport default {};', "'a.b' is no name"),
        ('import {LIMIT} from "./view.js";\nexport const LIMIT = 1;\nexport default {};', "circle: view.js -> view.js"),
        ("export const n = 0;", "view.js has no export default"),
    ],
)
def test_what_cannot_be_joined_is_refused(files: Path, text: str, words: str) -> None:
    """Each import and export that the joining does not know is an error that names file and line."""
    (files / "view.js").write_text(text)
    with pytest.raises(JoiningError, match=words):
        join(files)


def test_a_circle_of_files_is_refused(files: Path) -> None:
    """Also one that leads through several."""
    (files / "numbers.js").write_text('import {counted} from "./shelf.js";\n' + FILES["numbers.js"])
    with pytest.raises(JoiningError, match=r"circle: view.js -> shelf.js -> numbers.js -> shelf.js"):
        join(files)
    with pytest.raises(JoiningError, match=r"shelf\.js exports no function start"):
        join(_without_circle(files), host="shelf.js")


def _without_circle(files: Path) -> Path:
    (files / "numbers.js").write_text(FILES["numbers.js"])
    return files


def test_carried_libraries_are_joined(tab: Any, tmp_path: Path) -> None:
    """lit-html and signals-core work within the joined text: an effect renders what a signal says."""
    (tmp_path / "vendor").mkdir()
    for name in ("lit-html.js", "signals-core.js"):
        (tmp_path / "vendor" / name).write_text(joining.file_text(f"vendor/{name}"))
    (tmp_path / "view.js").write_text(
        'import {html, render as draw} from "./vendor/lit-html.js";\n'
        'import {signal, effect} from "./vendor/signals-core.js";\n'
        "export default {render({model}) {\n"
        "    const n = signal(1);\n"
        "    effect(() => draw(html`<b>${n.value}</b>`, document.body));\n"
        "    const before = document.body.textContent;\n"
        "    n.value = 2;\n"
        "    return [before, document.body.textContent];\n"
        "}};\n"
    )
    tab.files["joined.js"] = join(tmp_path)
    assert json.loads(json.dumps(tab.evaluate(RUN, "/joined.js"))) == ["1", "2"]


def test_styles_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """style.css leads; a host's own is left out; a changed file is read again."""
    monkeypatch.setattr(joining, "STATIC", tmp_path)
    for name in ("a.css", "style.css", "report.css"):
        (tmp_path / name).write_text(f".{name[0]} {{}}\n")
    assert joining.style_text() == "/* style.css */\n.s {}\n/* a.css */\n.a {}\n"
    (tmp_path / "a.css").write_text(".changed {}\n")
    assert joining.style_text().endswith(".changed {}\n")


def test_the_module_is_read_again_when_a_file_changes(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is made once otherwise."""
    monkeypatch.setattr(joining, "STATIC", files)
    first = joining.module_text()
    assert joining.module_text() is first
    (files / "shelf.js").write_text(FILES["shelf.js"].replace('"shelf"', '"another shelf"'))
    assert "another shelf" in joining.module_text()
