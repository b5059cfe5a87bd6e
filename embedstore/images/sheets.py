"""Pictures and captions -> a thumbnail, an HTML figure or one contact sheet for people to look at.

What belongs on a sheet, and where the pictures are, is left to the caller; opening them to `decoding`.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from embedstore.errors import ImageError
from embedstore.images.decoding import PictureSource, shrunk

_PAPER, _INK, _FAINT_INK = "#ffffff", "#1c1f24", "#6b7280"
_NO_PICTURE, _NO_PICTURE_INK = "#e5e7eb", "#9ca3af"
_MARK = {True: "#15803d", False: "#dc2626"}
_MARGIN, _GAP, _LINE = 24, 14, 1.35


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
    marks: Sequence[bool | None] | None = None,
) -> Image.Image:
    """Draw pictures in a grid below a title, row by row, each with its caption below; mode RGB.

    A picture of ``None``, or one that cannot be read, is drawn as a grey box. The first line of a caption is printed
    dark, further lines grey; a line too long for its cell is shortened in the middle. `cell` is the side of the square
    that a picture is fitted into, in pixels. `marks` has one for each item: a green (right) or red (wrong) line under
    the picture, or none.

    >>> from pathlib import Path
    >>> contact_sheet([(Path("dog.jpg"), "0.0712\\ndog.jpg"), (None, "gone")], columns=2).size
    (462, 293)
    """
    columns = max(1, min(columns, len(items)))
    small, large = _font(cell * 0.07, 11), _font(cell * 0.11, 16)
    lines = max((len(caption.splitlines()) for _, caption in items), default=0)
    row = cell + _GAP // 2 + round(lines * small.size * _LINE)
    top = _MARGIN + (round(large.size * 2) if title else 0)
    rows = -(-len(items) // columns)
    width = 2 * _MARGIN + columns * cell + (columns - 1) * _GAP
    sheet = Image.new("RGB", (width, top + rows * row + max(0, rows - 1) * _GAP + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _shortened(title, large, width - 2 * _MARGIN), _INK, large)
    for number, (source, caption) in enumerate(items):
        left = _MARGIN + number % columns * (cell + _GAP)
        upper = top + number // columns * (row + _GAP)
        _draw_picture(sheet, source, left, upper, cell, small)
        if marks is not None and (mark := marks[number]) is not None:
            draw.rectangle((left, upper + cell - 5, left + cell - 1, upper + cell - 1), _MARK[mark])
        for line_number, line in enumerate(caption.splitlines()):
            place = (left, upper + cell + _GAP // 2 + line_number * small.size * _LINE)
            draw.text(place, _shortened(line, small, cell), _FAINT_INK if line_number else _INK, small)
    return sheet


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


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut the middle out of a line until it fits; the ends of a file name tell the most."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    if len(text) <= width and font.getlength(text) <= width:
        return text
    kept, shown = min(len(text), width), "…"
    while kept > 1:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(shown) <= width:
            break
    return shown
