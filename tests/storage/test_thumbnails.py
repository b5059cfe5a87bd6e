"""Small copies of pictures that no file holds: bounded, disposable, and never in the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from embedstore.storage import thumbnails
from embedstore.storage.thumbnails import Thumbnails

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


def made(size: int) -> bytes:
    return b"x" * size


def test_kept_once_and_found_again(tmp_path: Path) -> None:
    """What is kept is there for the next process, and is not made again."""
    kept = Thumbnails(tmp_path / "thumbnails")
    assert (kept.any(), kept.wants(ONE), kept.get(ONE)) == (False, True, None)
    kept.keep(ONE, made)
    for again in (kept, Thumbnails(tmp_path / "thumbnails")):
        assert (again.any(), again.wants(ONE), again.get(ONE)) == (True, False, b"x" * thumbnails.SIDE)
    kept.keep(ONE, lambda size: pytest.fail("made again"))
    assert [path.name for path in (tmp_path / "thumbnails" / "11").iterdir()] == [f"{ONE}.jpg"]


def test_they_take_no_more_than_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound none is kept, by the next process neither."""
    monkeypatch.setattr(thumbnails, "MOST_BYTES", thumbnails.SIDE + 1)
    kept = Thumbnails(tmp_path / "t")
    for content_hash in (ONE, TWO, THREE):
        kept.keep(content_hash, made)
    assert [kept.get(content_hash) is not None for content_hash in (ONE, TWO, THREE)] == [True, True, False]
    assert not Thumbnails(tmp_path / "t").wants(THREE)


def test_a_place_that_cannot_be_written_to_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The add goes on without them."""
    (tmp_path / "t").write_text("in the way")
    kept = Thumbnails(tmp_path / "t")
    with caplog.at_level(logging.WARNING, "embedstore"):
        kept.keep(ONE, made)
        kept.keep(TWO, made)
    assert len(caplog.records) == 1
    assert (kept.get(ONE), kept.wants(TWO)) == (None, False)


def test_what_nothing_needs_is_dropped(tmp_path: Path) -> None:
    """A plan deletes nothing; what another program put there goes too, and the folder with the last."""
    kept = Thumbnails(tmp_path / "t")
    for content_hash in (ONE, TWO):
        kept.keep(content_hash, made)
    (tmp_path / "t" / "22" / "left").touch()
    names = [f"thumbnails/22/{TWO}.jpg", "thumbnails/22/left"]
    assert list(kept.drop_all_but({ONE}, dry_run=True)) == names
    assert kept.get(TWO) is not None
    assert list(kept.drop_all_but({ONE}, dry_run=False)) == names
    assert (kept.get(ONE) is None, kept.get(TWO)) == (False, None)
    kept.drop_all_but(set(), dry_run=False)
    assert not kept.any()
    kept.keep(ONE, made)
    assert kept.get(ONE) is not None


@pytest.mark.parametrize("name", ["", "../../secret", "A" * 64, "1" * 63])
def test_only_hashes_name_one(tmp_path: Path, name: str) -> None:
    """A row that was tampered with leads to no other file."""
    (tmp_path / "secret.jpg").write_bytes(b"x")
    assert Thumbnails(tmp_path / "a" / "t").get(name) is None
