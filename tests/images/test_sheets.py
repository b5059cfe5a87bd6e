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
        assert len(rows) >= 95 * 100
        centres[colour] = (columns.mean(), rows.mean())
    red, green, blue = (centres[colour] for colour in colours)
    assert red[0] < green[0]
    assert abs(green[1] - red[1]) < 3
    assert blue[1] > red[1] + 100
    assert abs(blue[0] - red[0]) < 3
    assert {(0x15, 0x80, 0x3D), (0xDC, 0x26, 0x26)} <= {tuple(pixel) for pixel in pixels.reshape(-1, 3)}


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
