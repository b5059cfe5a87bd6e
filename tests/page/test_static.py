"""No file of the page has leftovers: what is exported is imported, what is styled is drawn, in colours that are set."""

from __future__ import annotations

import re
from pathlib import Path

from embedstore.page.joining import STATIC, VIEW, read_script
from embedstore.page.report import HOST

SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}
STYLES = {
    path.name: re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S) for path in STATIC.glob("*.css")
}
PAGES = [path.read_text(encoding="utf-8") for path in (*STATIC.glob("*.html"), *STATIC.parent.glob("*.py"))]
_NAME = r"[A-Za-z_][\w-]*"


def is_drawn(name: str) -> bool:
    """Tell whether a class's name stands in a script or a page, whole, or with a value at its end: ``es-tick-${``."""
    drawn = [*SCRIPTS.values(), *PAGES]
    stem = name.rpartition("-")[0]
    return any(
        re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
        or (stem and re.search(rf"(?<![\w-]){re.escape(stem)}-\$\{{", text))
        for text in drawn
    )


def test_every_export_is_imported() -> None:
    """By another file of the page, or by a test that tries it alone; what the hosts start is known."""
    scripts = {name: read_script(STATIC, name) for name in SCRIPTS}
    used = {
        (file, name) for script in scripts.values() for file, names in script.imports.items() for name in names.values()
    }
    used |= {(VIEW, "default"), (HOST, "start")}
    tests = {path: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    left = [
        f"{script.name}: {name}"
        for script in scripts.values()
        for name in script.exports
        if (script.name, name) not in used
        and not any(f'"{script.name}"' in text and re.search(rf"\.{name}\(", text) for text in tests.values())
    ]
    assert left == []


def test_every_import_is_used() -> None:
    """Within the file that imports it."""
    left = [
        f"{name}: {here}"
        for name in SCRIPTS
        for script in [read_script(STATIC, name)]
        for names in script.imports.values()
        for here in names
        if not re.search(rf"(?<![\w$]){re.escape(here)}(?![\w$])", script.body)
    ]
    assert left == []


def test_every_class_with_a_style_is_drawn() -> None:
    """In a template of a script, or in HTML that Python writes."""
    styled = {
        (sheet, name)
        for sheet, text in STYLES.items()
        for selector in re.findall(r"([^{}]+)\{", text)
        for name in re.findall(rf"\.({_NAME})", selector)
    }
    assert len(styled) > 100
    assert sorted(f"{sheet}: {name}" for sheet, name in styled if not is_drawn(name)) == []
    assert not is_drawn("es-no-such-class")


def test_every_variable_of_a_style_is_set_and_used() -> None:
    """A colour that nobody sets draws nothing, without a word."""
    text = "".join(STYLES.values())
    set_here, used = set(re.findall(rf"(--{_NAME})\s*:", text)), set(re.findall(rf"var\((--{_NAME})", text))
    assert used
    assert set_here == used
