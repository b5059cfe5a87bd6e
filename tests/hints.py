"""What embedstore tells people to type -> command lines and names of Python, each with what is wrong with it.

Hints are found where they are written: in every string of the source (an f-string with stand-ins for its fields), in
the help of every command, and in README. A command line counts where it stands in backticks, after a colon, or begins a
line. One within prose may leave its arguments out; everywhere else it must be whole.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from command_line import commands

import embedstore
from embedstore.cli import main

_QUOTED = re.compile(r"(`+)([^`]+)\1")
_COMMAND = re.compile(r"(?:^|[|&] )embedstore (.+)")
_AT_THE_START = re.compile(r"^[ \t]*(?:\$ )?embedstore (.+)$|: embedstore (.+)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_STAND_IN = re.compile(r"[A-Z][A-Z0-9_]*(\.\.\.)?|\.\.\.|ORG/NAME|\{\}|%[sdr]")
_NAME = re.compile(r"(?<![\w./-])(store|classifier|EmbedStore|Classifier|Concept|Query|Space)\.([a-z_]\w*)(\(.*?\))?")
_HASHED = "embedstore picture in memory"  # begins what is hashed, and is printed nowhere
_CLASSES = {"store": "EmbedStore", "classifier": "Classifier"}


@dataclass(frozen=True)
class Hint:
    """Words after `embedstore`, and where they were found; `whole` where every argument must be there."""

    text: str
    place: str
    whole: bool = True

    def __str__(self) -> str:
        return f"embedstore {self.text}"


def hints_in(text: str, place: str, whole: bool = True) -> Iterator[Hint]:
    """Yield the command lines of a text."""
    for quoted in _QUOTED.finditer(text):
        if found := _COMMAND.search(" ".join(quoted[2].split())):
            yield from _chain(found[1], place, whole)
    if text.startswith(_HASHED):
        return
    for found in _AT_THE_START.finditer(re.sub(r"`[^`]*`", "", text)):
        yield from _chain(found[1] or found[2], place)


def _chain(line: str, place: str, whole: bool = True) -> Iterator[Hint]:
    """Yield the commands of one line of a shell, without a comment."""
    for number, part in enumerate(re.split(r" && | \| ", re.sub(r"\s+#.*| {3,}\(.*", "", line))):
        if number == 0 or part.startswith("embedstore "):
            yield Hint(part.removeprefix("embedstore ").strip(), place, whole)


@functools.cache
def texts_of(path: Path) -> tuple[tuple[str, str, bool], ...]:
    """Return every string of a source file with its place and whether it is a message, not a docstring."""
    return tuple(_texts_of(path))


def _texts_of(path: Path) -> Iterator[tuple[str, str, bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
            if isinstance(node.value.value, str):
                yield node.value.value, f"{path.name}:{node.lineno}", False
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(_written, node.values)), f"{path.name}:{node.lineno}", True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value, f"{path.name}:{node.lineno}", True


def _written(part: ast.expr) -> str:
    """Return a part of an f-string; a field as one word in capitals that tells what it holds."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    return re.sub(r"\W+", "_", ast.unparse(part)).strip("_").upper() or "FIELD"


def hints_of_source(root: Path) -> Iterator[Hint]:
    """Yield the hints of every module below a folder."""
    for path in sorted(root.rglob("*.py")):
        for text, place, message in texts_of(path):
            yield from hints_in(text, place, whole=message)


def hints_of_help() -> Iterator[Hint]:
    """Yield the hints in what `--help` prints."""
    for name, command in {"": main, **commands()}.items():
        with click.Context(command, info_name=name) as ctx:
            for text in (command.help or "", command.epilog or "", *map(_help_of, command.get_params(ctx))):
                yield from hints_in(text, f"embedstore {name} --help", whole=False)


def _help_of(parameter: click.Parameter) -> str:
    return getattr(parameter, "help", None) or ""


def hints_of_page(page: Path) -> Iterator[Hint]:
    """Yield the hints of a Markdown page: its code blocks' are whole, those in prose need not be."""
    for number, piece in enumerate(page.read_text(encoding="utf-8").split("```")):
        if number % 2 == 0:
            yield from (hint for hint in hints_in(piece, page.name, whole=False) if not hint.whole)
            continue
        lines = piece.splitlines()[1:]
        prompt = "$ " if any(line.startswith("$ ") for line in lines) else ""  # then the others are what is printed
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith(f"{prompt}embedstore "):
                yield from hints_in(line, f"{page.name}, refused" if after.startswith("error: ") else page.name)


def blocks_of_page(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page that are in one language."""
    pieces = page.read_text(encoding="utf-8").split("```")[1::2]
    return [piece.removeprefix(language) for piece in pieces if piece.startswith(f"{language}\n")]


def words_of(hint: Hint) -> list[str]:
    """Return the words that a shell makes of a hint."""
    return shlex.split(hint.text)


def is_stand_in(word: str) -> bool:
    """Tell whether a word only says what is to stand there."""
    return _STAND_IN.fullmatch(word) is not None


def what_is_wrong(hint: Hint) -> str | None:
    """Return what the command line would refuse in a hint, or None; nothing is done and no file looked at."""
    words = words_of(hint)
    rest_is_open = not hint.whole or words[-1] == "..."
    words = words[:-1] if words[-1] == "..." else words
    command: click.Command = main
    name = "embedstore"
    while True:
        ctx = click.Context(command, info_name=name)
        parser = command.make_parser(ctx)
        parser.allow_interspersed_args = not isinstance(command, click.Group)
        try:
            values, rest, _ = parser.parse_args(list(words))
        except click.UsageError as error:
            return None if rest_is_open and "requires an argument" in error.format_message() else error.format_message()
        if wrong := _wrong_values(ctx, command, values, rest_is_open or bool(rest)):
            return wrong
        if not rest:
            return None
        if not isinstance(command, click.Group):
            return f"unexpected words: {' '.join(rest)}"
        name, *words = rest
        following = command.commands.get(name)
        if following is None:
            return f"there is no command {name!r}"
        command = following


def _wrong_values(ctx: click.Context, command: click.Command, values: dict[str, object], is_open: bool) -> str | None:
    """Return which value is missing or of a wrong kind; those of stand-ins and paths are any."""
    for parameter in command.get_params(ctx):
        name = str(parameter.name)
        value = values.get(name)
        if value is None or value == () or type(value).__name__ == "Sentinel":
            if parameter.required and not is_open:
                return f"missing {name}"
            continue
        if isinstance(parameter.type, click.Path | click.File):
            continue
        given = value if isinstance(value, list | tuple) else [value]
        for one in given:
            if isinstance(one, str) and not is_stand_in(one):
                try:
                    parameter.type.convert(one, parameter, ctx)
                except click.UsageError as error:
                    return error.format_message()
    return None


def unknown_options(text: str) -> list[str]:
    """Return the options that a text names and no command has."""
    known = {option for command in (main, *commands().values()) for one in command.params for option in one.opts}
    known |= {option for command in commands().values() for one in command.params for option in one.secondary_opts}
    return [option for option in _OPTION.findall(text) if option not in known | {"--help", "--version"}]


def unknown_names(text: str) -> list[str]:
    """Return the names of Python that a text tells people to use and that are not there, nor what they are given."""
    wrong = []
    for owner, name, call in _NAME.findall(text.replace("store.json", "")):
        thing = getattr(getattr(embedstore, _CLASSES.get(owner, owner)), name, None)
        fields = getattr(embedstore, _CLASSES.get(owner, owner)).__dict__.get("__dataclass_fields__", {})
        if thing is None and name not in fields:
            wrong.append(f"{owner}.{name}")
        elif call and callable(thing):
            wrong += [f"{owner}.{name}({word}=)" for word in _keywords(call) if not _takes(thing, word)]
    return wrong


def _keywords(call: str) -> list[str]:
    return re.findall(r"(\w+)=", re.sub(r"'[^']*'", "", call))


def _takes(function: object, word: str) -> bool:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return any(one.name == word or one.kind is one.VAR_KEYWORD for one in parameters)
