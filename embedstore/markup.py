"""Facts, rows and warnings -> HTML for notebooks and reports. Every text is escaped here, whoever it comes from.

Colours are left to the page, which may be dark. Pictures are `images.figure`'s, curves those of `deciding.plots`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "padding:.15rem .9rem .15rem 0;border:0"
_CHOSEN = "background:rgba(47,108,168,.18)"
_WARNING = "border-left:3px solid #d9722b;padding:.2rem .8rem;margin:.4rem 0"


def heading(name: str, about: str = "") -> str:
    """Return a line with a name in bold and what is said about it."""
    return f"<p><b>{escape(name)}</b> {escape(about)}</p>"


def warning(text: str) -> str:
    """Return a paragraph with a mark at its side."""
    return f"<p style='{_WARNING}'>{escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values, one pair on a line."""
    name, value = f"{_CELL};text-align:left;opacity:.65", f"{_CELL};text-align:left"
    rows = (
        f"<tr><td style='{name}'>{escape(key)}</td><td style='{value}'>{escape(said)}</td></tr>" for key, said in pairs
    )
    return f"<table style='border-collapse:collapse'>{''.join(rows)}</table>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], chosen: int | None = None, *, texts: int = 1) -> str:
    """Return rows below a head: the first `texts` columns to the left, the others, which are numbers, to the right.

    The row of the number `chosen` is set off.
    """
    sides = [*["left"] * texts, *["right"] * (len(head) - texts)]
    heads = "".join(
        f"<th style='{_CELL};text-align:{side}'>{escape(name)}</th>" for name, side in zip(head, sides, strict=True)
    )
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(
            f"<td style='{_CELL};text-align:{side}'>{escape(text)}</td>" for text, side in zip(row, sides, strict=True)
        )
        lines.append(f"<tr style='{_CHOSEN if number == chosen else ''}'>{cells}</tr>")
    return f"<table style='border-collapse:collapse'><tr>{heads}</tr>{''.join(lines)}</table>"


def side_by_side(pieces: Iterable[str]) -> str:
    """Return HTML pieces, such as figures, in lines that are broken where the page ends."""
    return f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{''.join(pieces)}</div>"
