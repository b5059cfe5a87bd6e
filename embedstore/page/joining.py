"""The page's JavaScript files -> one module's text; its style sheets -> one.

What the files may import and export is little, so that joining is replacing lines: each file becomes a function that
returns what it exports, in an order in which every file comes after those that it imports. The hosts decide where the
text goes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).with_name("static")
"""Where the files lie."""
VIEW = "view.js"
"""The file whose default export is the module's."""
FIRST_STYLE = "style.css"
STYLES_OF_HOSTS = ("report.css",)
"""Style sheets that are no part of the module's."""

_NAME = r"[A-Za-z_$][\w$]*"
_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"(\./[\w./-]+\.js)";?', re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=\{)", re.MULTILINE)
_EXPORT = re.compile(rf"^export (?=(?:async function\*?|function\*?|class|const)\s+({_NAME}))", re.MULTILINE)
_LIST = re.compile(r"export\s*\{([^}]*)\};?\s*\Z")
_LEFT = re.compile(r"^(?:import|export)\b|\bimport(?:\s*\(|\.meta\b)", re.MULTILINE)
_PAIR = re.compile(rf"({_NAME})(?:\s+as\s+({_NAME}))?")


class JoiningError(ValueError):
    """A file of the page is not written so that it can be joined."""


@dataclass(frozen=True)
class Script:
    """One file, taken apart."""

    name: str
    """Its path below the folder, such as ``vendor/lit-html.js``."""
    body: str
    """Without imports and without the word export; as many lines as the file."""
    imports: dict[str, dict[str, str]]
    """By file: the names here, and those over there."""
    exports: dict[str, str]
    """The names that others import, and those here."""

    @property
    def scope(self) -> str:
        """The name under which the joined text keeps what the file exports."""
        return "$" + re.sub(r"\W", "_", self.name.removesuffix(".js"))

    def wrapped(self, scopes: dict[str, str]) -> str:
        """Return the file as a function that is called at once; `scopes` are the names of those before it."""
        taken = [
            f"const {{{', '.join(f'{there}: {here}' for here, there in names.items())}}} = {scopes[file]};\n"
            for file, names in self.imports.items()
            if names
        ]
        given = ", ".join(f"{name}: {here}" for name, here in self.exports.items())
        inner = f"{''.join(taken)}{self.body}\nreturn {{{given}}};\n"
        return f"// {self.name}\nconst {self.scope} = (() => {{\n{inner}}})();\n"


def read_script(folder: Path, name: str) -> Script:
    """Take a file apart; JoiningError where it imports or exports in a way that is not known here."""
    text = (folder / name).read_text(encoding="utf-8")
    imports: dict[str, dict[str, str]] = {}
    for names, file in _IMPORT.findall(text):
        there = (folder / name).parent.joinpath(file).resolve().relative_to(folder.resolve()).as_posix()
        imports.setdefault(there, {}).update({here: other for other, here in _pairs(names, name)})
    body = _IMPORT.sub(lambda found: "\n" * found[0].count("\n"), text)
    exports = {found: found for found in _EXPORT.findall(body)}
    body = _EXPORT.sub("", body)
    if listed := _LIST.search(body):
        exports |= {outside: here for here, outside in _pairs(listed[1], name)}
        body = body[: listed.start()]
    if _DEFAULT.search(body):
        exports["default"] = "$default"
        body = _DEFAULT.sub("const $default = ", body, count=1)
    if left := _LEFT.search(body):
        number = body[: left.start()].count("\n")
        raise JoiningError(
            f"{name}, line {number + 1}: {body.splitlines()[number].strip()[:80]!r} cannot be joined; "
            'write import {a, b as c} from "./file.js"; and export before a function, class or const'
        )
    return Script(name, body.rstrip("\n"), imports, exports)


def _pairs(names: str, file: str) -> list[tuple[str, str]]:
    """Read ``a, b as c``: what stands before each "as", and after it."""
    pairs = []
    for part in filter(None, map(str.strip, names.split(","))):
        if (found := _PAIR.fullmatch(part)) is None:
            raise JoiningError(f"{file}: {part!r} is no name to import or export")
        pairs.append((found[1], found[2] or found[1]))
    return pairs


def in_order(folder: Path, entry: str) -> list[Script]:
    """Return a file and all that it imports, each after those that it imports itself.

    Raises JoiningError for a circle, and for a name that the other file does not export.
    """
    ordered: dict[str, Script] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise JoiningError(f"files import each other in a circle: {' -> '.join((*way, name))}")
        if name in ordered:
            return
        if not (folder / name).is_file():
            raise JoiningError(f"{way[-1] if way else 'the page'} imports {name}, which is not there")
        script = read_script(folder, name)
        for file, names in script.imports.items():
            visit(file, (*way, name))
            if missing := set(names.values()) - set(ordered[file].exports):
                raise JoiningError(f"{name} imports {', '.join(sorted(missing))}, which {file} does not export")
        ordered[name] = script

    visit(entry, ())
    return list(ordered.values())


def join(folder: Path, entry: str = VIEW, host: str | None = None) -> str:
    """Return the text of one module that does what a file and all that it imports do, and exports its default.

    A `host` is another file, which exports a function ``start``: the text goes on with it, and ends by calling it with
    the module's default export.

    Raises
    ------
    JoiningError
        An import or export of a kind that is not known here, of a name or a file that is not there, or a circle.
    """
    scripts = in_order(folder, entry)
    if "default" not in scripts[-1].exports:
        raise JoiningError(f"{entry} has no export default {{...}}")
    module = f"{scripts[-1].scope}.default"
    known = {script.name for script in scripts}
    hosts = [] if host is None else in_order(folder, host)
    if hosts and "start" not in hosts[-1].exports:
        raise JoiningError(f"{host} exports no function start")
    hosts = [script for script in hosts if script.name not in known]
    scopes = {script.name: script.scope for script in (*scripts, *hosts)}
    if len(set(scopes.values())) < len(scopes):
        raise JoiningError(f"two of {', '.join(scopes)} would have one name; rename one")
    text = "".join(script.wrapped(scopes) for script in scripts) + f"export default {module};\n"
    if hosts:
        text += "".join(script.wrapped(scopes) for script in hosts) + f"{hosts[-1].scope}.start({module});\n"
    return text


def module_text(host: str | None = None) -> str:
    """Return `join` of the page's own files; they are read again when one has changed."""
    return _joined(host, _state_of("*.js"))


def style_text() -> str:
    """Return the page's style sheets as one, ``style.css`` first, then by name; without those of a host alone."""
    return _styles(_state_of("*.css"))


def file_text(name: str) -> str:
    """Return the text of one of the page's files."""
    return (STATIC / name).read_text(encoding="utf-8")


def _state_of(pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of the files that a text is made of."""
    found = ((path, path.stat()) for path in sorted(STATIC.rglob(pattern)))
    return tuple((str(path), status.st_size, status.st_mtime_ns) for path, status in found)


@functools.lru_cache(maxsize=2)
def _joined(host: str | None, state: object) -> str:
    return join(STATIC, host=host)


@functools.lru_cache(maxsize=1)
def _styles(state: object) -> str:
    names = sorted((path.name for path in STATIC.glob("*.css")), key=lambda name: (name != FIRST_STYLE, name))
    return "".join(f"/* {name} */\n{file_text(name)}" for name in names if name not in STYLES_OF_HOSTS)
