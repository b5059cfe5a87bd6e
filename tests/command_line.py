"""`embedstore` as a person runs it: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import click
from click.testing import CliRunner, Result

from embedstore.cli import main


def run(*words: object, stdin: str | None = None) -> Result:
    """Run a command in this process; an error that the command line does not handle is raised."""
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin, catch_exceptions=False)


def run_process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "embedstore", *(str(word) for word in words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def commands(group: click.Group = main, prefix: str = "") -> dict[str, click.Command]:
    """Return every command, those of groups and the groups themselves too, by its whole name."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[f"{prefix}{name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found
