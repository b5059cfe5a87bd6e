"""Pictures and captions -> a thumbnail, an HTML figure or one contact sheet for people to look at.

What belongs on a sheet, and where the pictures are, is left to the caller; opening them to `decoding`.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from embedstore.errors import ImageError
from embedstore.images.decoding import PictureSource, shrunk

_PAPER, _INK, _FAINT_INK = "#ffffff", "#1c1f24", "#6b7280"
_NO_PICTURE, _NO_PICTURE_INK = "#e5e7eb", "#9ca3af"
_MARK = {True: "#0072b2", False: "#d55e00"}  # told apart by the colour-blind too (Okabe and Ito)
_MEANING = {True: "right", False: "wrong"}
_MARGIN, _GAP, _LINE = 24, 14, 1.35
_LEAST_HEADED = 600  # a narrower sheet would break its title into a column of words
_MOST_LINES = 12
_BREAKS = " /_-"


def thumbnail(source: PictureSource, size: int = 256, *, quality: int = 85) -> bytes:
    """Return a JPEG of the picture, no side longer than `size` pixels; small pictures are not enlarged.

    Raises what `read` raises.
    """
    buffer = io.BytesIO()
    shrunk(source, size).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def figure(source: PictureSource | None, title: str, caption: str, side: int) -> str:
    """Return an HTML figure: the picture fitted into `side` pixels each way, or a grey square, with a caption below.

    The `title` is shown where the mouse rests on it. The picture is inside the HTML, with half as many pixels again for
    fine displays.
    """
    square = f"width:{side}px;height:{side}px"
    picture = f"<div style='{square};background:{_NO_PICTURE}'></div>"
    if source is not None:
        with contextlib.suppress(ImageError, OSError):
            data = base64.b64encode(thumbnail(source, side * 3 // 2)).decode()
            picture = f"<img src='data:image/jpeg;base64,{data}' alt='' style='{square};object-fit:contain'>"
    title, caption = html.escape(title), html.escape(caption)
    return f"<figure title='{title}' style='margin:0'>{picture}<figcaption>{caption}</figcaption></figure>"


def contact_sheet(
    items: Sequence[tuple[PictureSource | None, str]],
    columns: int = 6,
    *,
    cell: int = 200,
    title: str = "",
    notes: Sequence[str] = (),
    marks: Sequence[bool | None] | None = None,
    rules: Mapping[int, str] | None = None,
) -> Image.Image:
    """Draw pictures in a grid below a title, row by row, each with its caption below; mode RGB.

    Parameters
    ----------
    items : sequence of (picture, caption)
        A picture of ``None``, or one that cannot be read, is drawn as a grey box. The first line of a caption is
        printed dark, further lines grey; lines too long for the cell are continued on the next.
    columns : int
    cell : int
        Side of the square that a picture is fitted into, in pixels.
    title : str
    notes : sequence of str
        Lines below the title.
    marks : sequence of bool or None, optional
        One for each item: a blue check mark (right), a red cross (wrong) or none; a legend counts them.
    rules : dict of int to str, optional
        A line with this text is drawn before the item of that number, which begins a new row; or after the last.

    Examples
    --------
    >>> from pathlib import Path
    >>> contact_sheet([(Path("dog.jpg"), "0.0712\\ndog.jpg"), (None, "gone")], columns=2).size
    (462, 293)
    """
    sheet = _Sheet(max(1, min(columns, len(items))), cell, bool(title or notes))
    rows, heads = _grid(len(items), sheet.columns, rules or {})
    captions = [sheet.wrapped(caption, sheet.small, cell, _MOST_LINES) for _, caption in items]
    heights = [cell + _GAP // 2 + sheet.height(max((len(captions[n]) for n in row), default=0)) for row in rows]
    head = [(line, sheet.large) for line in sheet.wrapped(title, sheet.large, sheet.inner)]
    head += [(line, sheet.small) for note in notes for line in sheet.wrapped(note, sheet.small, sheet.inner)]
    legend = _legend(marks)
    ruled = {row: sheet.wrapped(text, sheet.small, sheet.inner) for row, text in heads.items()}
    top = _MARGIN + round(sum(font.size * _LINE for _, font in head)) + (round(sheet.small.size * 2) if legend else 0)
    top += round(sheet.small.size) if head else 0
    total = sum(heights) + max(0, len(rows) - 1) * _GAP + sum(sheet.rule_height(lines) for lines in ruled.values())
    sheet.begin(top + total + _MARGIN)
    sheet.draw_head(head, legend)
    upper = top
    for number in range(len(rows) + 1):
        if number in ruled:
            sheet.draw_rule(upper, ruled[number])
            upper += sheet.rule_height(ruled[number])
        for place, item in enumerate(rows[number] if number < len(rows) else ()):
            mark = None if marks is None else marks[item]
            sheet.draw_item(_MARGIN + place * (cell + _GAP), upper, items[item][0], captions[item], mark)
        upper += heights[number] + _GAP if number < len(rows) else 0
    return sheet.image


def _grid(n: int, columns: int, rules: Mapping[int, str]) -> tuple[list[range], dict[int, str]]:
    """Break `n` items into rows, a new one at each rule; return them, and the rules by the row below them."""
    edges = sorted({0, n, *(place for place in rules if 0 <= place <= n)})
    rows: list[range] = []
    above: dict[int, str] = {}
    for first, end in zip(edges, [*edges[1:], n], strict=True):
        if first in rules:
            above[len(rows)] = rules[first]
        rows += [range(start, min(start + columns, end)) for start in range(first, end, columns)]
    return rows, above


def _legend(marks: Sequence[bool | None] | None) -> list[tuple[bool, str]]:
    """Return each mark that is on a sheet, with its meaning and number."""
    counts = {mark: sum(one is mark for one in marks or ()) for mark in (True, False)}
    return [(mark, f"{_MEANING[mark]}: {count:,}") for mark, count in counts.items() if any(counts.values())]


class _Sheet:
    """A sheet while it is drawn: its measures, its fonts, and what is put on it."""

    def __init__(self, columns: int, cell: int, headed: bool) -> None:
        self.columns, self.cell = columns, cell
        self.small, self.large = _font(cell * 0.07, 11), _font(cell * 0.11, 16)
        natural = columns * cell + (columns - 1) * _GAP
        self.inner = max(natural, _LEAST_HEADED) if headed else natural

    def begin(self, height: int) -> None:
        """Take a sheet of paper, `height` pixels high."""
        self.image = Image.new("RGB", (self.inner + 2 * _MARGIN, height), _PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def height(self, lines: int) -> int:
        """Return how high lines of small text are."""
        return round(lines * self.small.size * _LINE)

    def rule_height(self, lines: Sequence[str]) -> int:
        """Return how high a rule with its text is."""
        return self.height(len(lines)) + _GAP

    def wrapped(self, text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 20) -> list[str]:
        """Break a text into lines that fit; what needs more than `most` of them loses its middle."""
        longest = most * width // 2  # no letter but a few is narrower than two points
        if len(text) > longest:
            text = f"{text[: longest // 2]} … {text[-longest // 2 :]}"
        lines = [part for line in text.splitlines() for part in _broken(line, font, width)]
        return lines if len(lines) <= most else [*lines[: most // 2], "…", *lines[len(lines) - (most - 1) // 2 :]]

    def draw_head(self, head: Sequence[tuple[str, ImageFont.FreeTypeFont]], legend: Sequence[tuple[bool, str]]) -> None:
        """Write title, notes and legend."""
        upper, left = float(_MARGIN), float(_MARGIN)
        for line, font in head:
            self.draw.text((_MARGIN, upper), line, _INK if font is self.large else _FAINT_INK, font)
            upper += font.size * _LINE
        radius = self.small.size * 0.7
        for mark, text in legend:
            _draw_mark(self.draw, left + radius, upper + self.small.size, radius, mark)
            self.draw.text((left + 2.7 * radius, upper + self.small.size), text, _INK, self.small, anchor="lm")
            left += 2.7 * radius + self.small.getlength(text) + 2 * _MARGIN

    def draw_rule(self, upper: int, lines: Sequence[str]) -> None:
        """Draw a line over the whole width with its text below."""
        self.draw.line((_MARGIN, upper + 1, _MARGIN + self.inner - 1, upper + 1), _INK, 2)
        for number, line in enumerate(lines):
            self.draw.text((_MARGIN, upper + 6 + number * self.small.size * _LINE), line, _INK, self.small)

    def draw_item(
        self, left: int, upper: int, source: PictureSource | None, caption: Sequence[str], mark: bool | None
    ) -> None:
        """Draw a picture with its mark and its caption."""
        _draw_picture(self.image, source, left, upper, self.cell, self.small)
        if mark is not None:
            self.draw.rectangle((left, upper + self.cell - 5, left + self.cell - 1, upper + self.cell - 1), _MARK[mark])
            radius = max(9.0, self.cell * 0.07)
            _draw_mark(self.draw, left + self.cell - radius - 4, upper + radius + 4, radius, mark)
        for number, line in enumerate(caption):
            place = (left, upper + self.cell + _GAP // 2 + number * self.small.size * _LINE)
            self.draw.text(place, line, _FAINT_INK if number else _INK, self.small)


def _draw_mark(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, right: bool) -> None:
    """Draw a white check mark in a disc, or a white cross."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), _MARK[right], outline=_PAPER)
    strokes = (
        [((-0.5, 0.05), (-0.12, 0.42), (0.52, -0.38))]
        if right
        else [((-0.4, -0.4), (0.4, 0.4)), ((-0.4, 0.4), (0.4, -0.4))]
    )
    for stroke in strokes:
        points = [(x + radius * dx, y + radius * dy) for dx, dy in stroke]
        draw.line(points, _PAPER, max(2, round(radius * 0.28)), joint="curve")


def _font(size: float, least: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, so that a sheet looks the same on every machine."""
    font = ImageFont.load_default(size=max(least, round(size)))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImageError("this Pillow was built without FreeType, so text cannot be drawn: pip install pillow")
    return font


def _draw_picture(
    sheet: Image.Image, source: PictureSource | None, left: int, upper: int, cell: int, font: ImageFont.FreeTypeFont
) -> None:
    """Fit a picture into the middle of its square, or draw a grey box that says that there is none."""
    if source is not None:
        with contextlib.suppress(ImageError, OSError):
            picture = shrunk(source, cell)
            sheet.paste(picture, (left + (cell - picture.width) // 2, upper + (cell - picture.height) // 2))
            return
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, upper, left + cell - 1, upper + cell - 1), _NO_PICTURE)
    draw.text((left + cell / 2, upper + cell / 2), "no picture", _NO_PICTURE_INK, font, anchor="mm")


def _broken(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break one line into several that fit, after spaces and the signs of paths where there are any."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    lines: list[str] = []
    while len(text) > 1 and (len(text) > width or font.getlength(text) > width):
        fitting = next(
            end for end in range(min(len(text), width), 0, -1) if end == 1 or font.getlength(text[:end]) <= width
        )
        after = max(text.rfind(sign, 0, fitting) for sign in _BREAKS) + 1
        end = after if after > fitting // 3 else fitting
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, text]
