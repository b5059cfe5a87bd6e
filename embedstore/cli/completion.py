"""The command `completion`; and what a shell offers after TAB: stores, their classifiers and columns, files.

An option or argument names one of the functions here, which turns what has been typed so far into what could follow.
None of them fails: where a store cannot be read, nothing is offered.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from embedstore.errors import EmbedStoreError

_HELP = """Print the script that lets a shell complete commands after TAB.

It completes commands and options, and, as far as the line goes: stores, the classifiers and columns of the store, and
files.

\b
Once, for every new shell:
  bash (4.4 or later)  embedstore completion bash > ~/.local/share/bash-completion/completions/embedstore
                       or in ~/.bashrc: eval "$(embedstore completion bash)"
  zsh                  in ~/.zshrc, after compinit: eval "$(embedstore completion zsh)"
  fish                 embedstore completion fish > ~/.config/fish/completions/embedstore.fish
"""


@click.command(help=_HELP, epilog="\b\nExample:\n  embedstore completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script of a shell."""
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(ctx.find_root().command, {}, "embedstore", "_EMBEDSTORE_COMPLETE").source())


def stores(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the stores whose path begins so; folders where there is none."""
    folder, begun = os.path.split(incomplete)
    found: list[str] = []
    with contextlib.suppress(OSError), os.scandir(os.path.expanduser(folder) or ".") as entries:
        names = (entry.name for entry in entries if os.path.isfile(os.path.join(entry.path, "store.json")))
        found = sorted(os.path.join(folder, name) for name in names if name.startswith(begun))
    return [CompletionItem(path) for path in found] or [CompletionItem(incomplete, type="dir")]


def classifiers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the names of the classifiers that the store keeps, or that of ``--from``; then JSON files."""
    store = ctx.params.get("origin") or _store(ctx)
    files = [] if store is None or not os.path.isdir(store) else Path(store).glob("classifiers/*.json")
    return _beginning(incomplete, sorted(file.stem for file in files)) or files_here(ctx, param, incomplete)


def columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the names of the store's columns."""
    names: list[str] = []
    if store := _store(ctx):
        with contextlib.suppress(EmbedStoreError, OSError):
            from embedstore.store import EmbedStore

            names = EmbedStore.open(store).columns
    return _beginning(incomplete, names)


def concepts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the concepts that the store has labels of."""
    names: list[str] = []
    if store := _store(ctx):
        with contextlib.suppress(EmbedStoreError, OSError):
            from embedstore.deciding import label_log
            from embedstore.storage.folder import StoreFolder

            names = label_log.concepts(StoreFolder.open(store).ledger)
    return _beginning(incomplete, names)


def labels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the names of the store's columns, then files."""
    return columns(ctx, param, incomplete) or files_here(ctx, param, incomplete)


def query(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer files where a path has been begun; words are the user's own."""
    return files_here(ctx, param, incomplete) if "/" in incomplete or os.sep in incomplete else []


def files_here(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell offer files."""
    return [CompletionItem(incomplete, type="file")]


def _store(ctx: click.Context) -> Path | None:
    """Return the store that the line names."""
    # Where the value of an option is yet to come, click leaves all words in `args`.
    named = [ctx.params.get("store") or "", *ctx.args]
    return next((Path(word) for word in named if os.path.isfile(os.path.join(word, "store.json"))), None)


def _beginning(incomplete: str, names: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


COMMANDS = (completion,)
