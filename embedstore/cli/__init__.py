"""The command line: each command parses its words, calls one function of the library, and prints what it returns.

Each module holds the commands of one section of ``embedstore --help``; `options` and `output` are shared. Results go to
stdout, progress and errors to stderr. Exit status 0: done (also when nothing matched, and when nobody reads on), 1: an
error, 2: wrong usage, 3: a budget of requests was spent, 130: interrupted.
The library's modules are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

import click

from embedstore import __version__
from embedstore.cli import ask, completion, decide, demo, draw, fill, foresee, keep, label, serve, share
from embedstore.cli.output import drop, tell
from embedstore.cli.refusals import BUDGET_SPENT, line_for
from embedstore.errors import BudgetSpentError, told_to_shell
from embedstore.wording import one_line

_INTERRUPTED = 128 + 2  # as a shell has it of what a signal ended
_SECTIONS = {
    "Try": demo,
    "Fill": fill,
    "Ask": ask,
    "Look": serve,
    "Decide": decide,
    "Label": label,
    "Plan": foresee,
    "Draw": draw,
    "Keep": keep,
    "Share": share,
    "Shell": completion,
}


class _Group(click.Group):
    """Lists the commands by what they are for, and turns the library's errors into one line and exit status 1."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command's whole first sentence, in sections."""
        for section, module in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(str(command.name), _first_sentence(command)) for command in module.COMMANDS])

    def make_context(self, *words: Any, **options: Any) -> click.Context:
        with _refusals():
            return super().make_context(*words, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _refusals(), _placing(self, ctx):
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Say in one line what could not be done, and end with status 1."""
    try:
        with told_to_shell():
            yield
    except (KeyboardInterrupt, click.Abort) as error:
        interrupted = error if isinstance(error, KeyboardInterrupt) else error.__context__
        if not isinstance(interrupted, KeyboardInterrupt):
            raise  # a question was answered with no
        _say("interrupted", interrupted)
        raise click.exceptions.Exit(_INTERRUPTED) from None
    except BaseException as error:
        if getattr(error, "errno", None) == errno.EPIPE and _is_unread(sys.stdout):
            drop(sys.stdout)
            raise click.exceptions.Exit(0) from None
        line = line_for(error)
        if line is None:
            raise
        _say(f"error: {one_line(line)}", error)
        _drop_output()
        raise click.exceptions.Exit(BUDGET_SPENT if isinstance(error, BudgetSpentError) else 1) from None


def _say(line: str, error: BaseException) -> None:
    """Say why a command ended, and what is noted at the error."""
    for text in (line, *getattr(error, "__notes__", [])):
        tell(text)


def _is_unread(stream: Any) -> bool:
    """Tell whether a stream is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def _placing(group: click.Group, ctx: click.Context) -> Iterator[None]:
    """Say of an option for all commands that it stands before the command."""
    try:
        yield
    except click.NoSuchOption as error:
        if not any(error.option_name in one.opts for one in group.params):
            raise
        typed = " ".join(("embedstore", error.option_name, str(ctx.invoked_subcommand), "..."))
        raise click.UsageError(f"{error.option_name} stands before the command: `{typed}`", error.ctx) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="embedstore")
@click.option("--offline", is_flag=True, help="Never touch the network (also: EMBEDSTORE_OFFLINE=1).")
@click.option(
    "--allow-mixed-backend",
    is_flag=True,
    help="Where a store's own model is not ready, ask with another backend of it (nomic-local for nomic, say): scores "
    "move a little, and so may decisions near a threshold (also: EMBEDSTORE_ALLOW_MIXED_BACKEND=1).",
)
@click.option(
    "--allow-private-urls",
    is_flag=True,
    help="Fetch pictures from this machine and its own network too (also: EMBEDSTORE_ALLOW_PRIVATE_URLS=1).",
)
def main(offline: bool, allow_mixed_backend: bool, allow_private_urls: bool) -> None:
    """Embed images once; search, threshold and classify them locally for ever.

    \b
    Example:
      embedstore add photos.store ~/photos --model objects
      embedstore search photos.store "a bird on a branch" -n 5
    """
    from embedstore.settings import MIXED, OFFLINE, PRIVATE_URLS, apply_switches

    if offline:
        os.environ[OFFLINE] = "1"
    if allow_mixed_backend:
        os.environ[MIXED] = "1"
    if allow_private_urls:
        os.environ[PRIVATE_URLS] = "1"
    apply_switches()


def _drop_output() -> None:
    """Let go of what stdout did not take, which would be tried, and would fail, once more when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)


def _first_sentence(command: click.Command) -> str:
    paragraph = (command.help or "").split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".")


for _module in _SECTIONS.values():
    for _command in _module.COMMANDS:
        main.add_command(_command)
