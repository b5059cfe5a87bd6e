"""Prints the house: its modules floor by floor with what each is for, and how they hang together.

python scripts/rooms.py            every module with its lines and the first sentence of its docstring
python scripts/rooms.py --short    the counts only
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1] / "embedstore"
FLOORS = (
    ("8", ("cli", "page", "__main__")),
    ("7", ("atlas", "estimator")),
    ("6", ("store",)),
    ("5", ("deciding", "upkeep", "cluster")),
    ("4", ("ingest",)),
    ("3", ("searching",)),
    ("2", ("storage", "measures", "sources", "embedders")),
    ("1", ("images", "vectors", "space", "settings", "files", "result_files", "cells", "markup", "wording", "errors")),
    ("beside", ("testing", "__init__")),
)


def modules() -> dict[str, Path]:
    """Return the files of the house by dotted name, without the ``embedstore.`` before it."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or "__init__"] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the house that a module imports, inside functions too."""
    targets: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "embedstore":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "embedstore"]
        for dotted in names:
            parts = dotted.split(".")[1:]
            while parts and ".".join(parts) not in known:
                parts.pop()
            targets.add(".".join(parts) or "__init__")
    return targets - {name}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles among modules, each once: the strongly connected sets of more than one (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return circles


def purpose(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def main() -> None:
    """Print the house."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="the counts only")
    asked = parser.parse_args()
    known = modules()
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in known.items()}
    graph = {name: imports(name, path, known) for name, path in known.items()}
    for floor, packages in FLOORS if not asked.short else ():
        print(floor if floor == "beside" else f"floor {floor}")
        for package in packages:
            for name in (n for n in known if n.split(".")[0] == package):
                print(f"  {name:<28}{lines[name]:>5}  {purpose(known[name])}")
    across = sum(a.split(".")[0] != b.split(".")[0] for a in graph for b in graph[a])
    inits = sum(path.name == "__init__.py" for path in known.values())
    longest = max(lines, key=lambda name: lines[name])
    print(
        f"{len(known)} modules ({inits} of them packages' __init__), {sum(lines.values()):,} lines, "
        f"the longest {longest} with {lines[longest]}; {across} imports between packages, {len(cycles(graph))} circles"
    )


if __name__ == "__main__":
    main()
