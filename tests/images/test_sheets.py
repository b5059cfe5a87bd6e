"""Thumbnails, and pictures in rows for people to look at."""

from __future__ import annotations

import base64
import doctest
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_pictures import encode, quadrants

from embedstore import images
from embedstore.images import sheets


@pytest.mark.parametrize(("size", "expected"), [(100, (100, 75)), (1000, (800, 600))])
def test_thumbnail(size: int, expected: tuple[int, int]) -> None:
    """A thumbnail is a JPEG of the same proportions, no larger than asked and never enlarged."""
    image = quadrants().resize((800, 600))
    for source in (encode(image, "JPEG"), image):
        small = Image.open(io.BytesIO(images.thumbnail(source, size)))
        assert (small.format, small.size) == ("JPEG", expected)
        assert np.abs(np.subtract(small.getpixel((5, 5)), (255, 0, 0))).max() <= 5


def test_figure_holds_its_picture(tmp_path: Path) -> None:
    """A figure holds the picture as a JPEG for twice its side at most, or a grey square; no text of it is HTML."""
    shown = images.figure(quadrants().resize((800, 600)), "it's <a>", "1 < 2", 100)
    data = re.search(r"src='data:image/jpeg;base64,([^']+)'", shown)
    assert data is not None
    small = Image.open(io.BytesIO(base64.b64decode(data[1])))
    assert 100 <= small.width <= 200
    assert "title='it&#x27;s &lt;a&gt;'" in shown
    assert "1 &lt; 2" in shown
    for source in (None, tmp_path / "missing.jpg"):
        grey = images.figure(source, "gone", "0.0712", 100)
        assert "<img" not in grey
        assert "width:100px" in grey
        assert "0.0712" in grey


def test_contact_sheet_places_pictures_in_rows(tmp_path: Path) -> None:
    """Each picture lies in its own cell, row by row; marks are drawn; the rest is paper."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    items = [(Image.new("RGB", (100, 100), colour), "0.9\nname") for colour in colours]
    sheet = images.contact_sheet(items, columns=2, cell=100, marks=[True, None, False])
    pixels = np.asarray(sheet).astype(int)
    centres = {}
    for colour in colours:
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        assert len(rows) >= 90 * 100
        centres[colour] = (columns.mean(), rows.mean())
    red, green, blue = (centres[colour] for colour in colours)
    assert red[0] < green[0]
    assert abs(green[1] - red[1]) < 3
    assert blue[1] > red[1] + 100
    assert abs(blue[0] - red[0]) < 3
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= {tuple(pixel) for pixel in pixels.reshape(-1, 3)}


def test_example_of_contact_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of contact_sheet gives the size that it says."""
    (tmp_path / "dog.jpg").write_bytes(encode(quadrants(), "JPEG"))
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(sheets) == doctest.TestResults(failed=0, attempted=2)


def test_contact_sheet_without_pictures(tmp_path: Path) -> None:
    """A missing, unreadable or damaged picture is a grey box; strange and long captions are drawn or cut."""
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no")
    items = [(None, "gone"), (damaged, "\x07" * 3), (tmp_path / "missing.jpg", "name" * 200)]
    sheet = images.contact_sheet(items, columns=3, cell=100)
    grey = (np.asarray(sheet) == (0xE5, 0xE7, 0xEB)).all(axis=2).sum()
    assert grey > 2.5 * 100 * 90
    assert images.contact_sheet([], title="nothing found").size[0] > 0


def test_contact_sheet_writes_caption_and_title() -> None:
    """Ink appears where caption and title stand, and only when they are given."""

    def ink(sheet: Image.Image) -> int:
        return int((np.asarray(sheet.convert("L")) < 100).sum())

    white = Image.new("RGB", (10, 10), "white")
    assert ink(images.contact_sheet([(white, "")])) == 0
    assert ink(images.contact_sheet([(white, "0.0712")])) > 20
    assert ink(images.contact_sheet([(white, "")], title="cats")) > 20


def test_captions_are_whole() -> None:
    """A caption that is too long for its cell goes on below, and only the row that it stands in grows."""
    white = Image.new("RGB", (10, 10), "white")
    short, long = "0.0712", "0.0712\n" + "a caption of many words " * 4
    low, high = (images.contact_sheet([(white, text)] * 2, columns=2, cell=100).height for text in (short, long))
    both = images.contact_sheet([(white, short)] * 2 + [(white, long)] * 2, columns=2, cell=100).height
    assert high > low + 60
    assert both - high == low - 2 * 24 + 14
    font = sheets._font(11, 11)
    text = "a-long_name/of.many " * 5
    lines = sheets._broken(text, font, 60)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(font.getlength(line) <= 60 for line in lines)
    assert sheets._broken("W", font, 1) == ["W"]


@pytest.mark.parametrize(
    ("n", "rules", "rows", "above"),
    [
        (5, {2: "x"}, [(0, 2), (2, 5)], {1: "x"}),
        (5, {4: "x"}, [(0, 3), (3, 4), (4, 5)], {2: "x"}),
        (3, {0: "x"}, [(0, 3)], {0: "x"}),
        (3, {3: "x"}, [(0, 3)], {1: "x"}),
        (0, {0: "x"}, [], {0: "x"}),
        (3, {}, [(0, 3)], {}),
    ],
)
def test_a_rule_begins_a_row(n: int, rules: dict[int, str], rows: list[tuple[int, int]], above: dict[int, str]) -> None:
    """Pictures of both sides of a rule never share a row; it may stand first or last, too."""
    found, heads = sheets._grid(n, 3, rules)
    assert [(row.start, row.stop) for row in found] == rows
    assert heads == above
    assert images.contact_sheet([(None, "a")] * n, 3, cell=80, title="t", rules=rules).height > 100
