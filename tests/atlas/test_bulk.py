"""Pictures that go up to Atlas, are embedded there, and come down as a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import save_picture

from embedstore.atlas import add_via_atlas, pull
from embedstore.cli import main
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.nomic_atlas import SPACE
from embedstore.errors import SpaceMismatchError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

NAME = "stand-in/pictures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        save_picture(tmp_path / "pictures" / ("cat" if number % 2 else "dog") / f"{number:02}.png", number, (600, 60))
    return tmp_path / "pictures"


def test_no_embedding_request(server: NomicServer, folder: Path, tmp_path: Path) -> None:
    """Each picture has the vector that Atlas made of its upload, its labels, and no request of the API was sent."""
    path = tmp_path / "bulk.store"
    report = add_via_atlas(path, folder, NAME, label_from_folder=True, map=True, timeout=8.0)
    assert server.requests == 0
    store = EmbedStore.open(path)
    assert (len(store), store.space) == (24, SPACE)
    dataset = server.atlas.dataset("pictures")
    index = dataset.indices[0]
    expected = dict(zip(index.ids, index.vectors.astype(np.float16).astype(np.float32), strict=True))
    rows = store.to_table(["id", "uri", "label", "width", "content_hash", "map_x"]).to_pylist()
    for row in rows:
        np.testing.assert_allclose(store.vectors([row["id"]])[0], expected[row["id"]], atol=1e-3)
        assert Path(row["uri"]).parent.name == row["label"]
        assert row["width"] == 600
        assert len(row["content_hash"]) == 64
        assert np.isfinite(row["map_x"])
    assert report.pulled is not None
    assert "no embedding request was sent" in str(report)
    assert len(store.search("red", k=3).table) == 3
    assert (server.texts, server.images) == (1, 0)
    before = server.counts.routes.total()
    assert add_via_atlas(path, folder, NAME, label_from_folder=True).sync is None
    assert server.counts.routes.total() == before


def test_more_and_changed_pictures(server: NomicServer, folder: Path, tmp_path: Path) -> None:
    """A second call sends new pictures and those that changed, has one more map made, and leaves the rest alone."""
    path = tmp_path / "bulk.store"
    add_via_atlas(path, folder, NAME, timeout=8.0)
    for number in (30, 31):
        save_picture(folder / "dog" / f"{number}.png", number)
    save_picture(folder / "dog" / "00.png", 99)
    (folder / "dog" / "torn.png").write_bytes((folder / "dog" / "02.png").read_bytes()[:60])
    before = server.atlas.received["pictures"]
    report = add_via_atlas(path, folder, NAME, timeout=8.0)
    assert report.sync is not None
    assert report.pulled is not None
    assert (report.sync.sent, report.sync.replaced) == (3, 1)
    assert "27 pictures found here, 3 of them new" in str(report)
    assert "1 could not be read; the first is" in str(report)
    assert server.atlas.received["pictures"] - before == 3
    assert (report.pulled.added.unchanged, len(EmbedStore.open(path))) == (23, 26)
    assert len(server.atlas.dataset("pictures").indices) == 2


def test_spaces_are_never_mixed(server: NomicServer, folder: Path, tmp_path: Path) -> None:
    """What Atlas embedded is in a space of its own: both are named where the API's would be mixed with it."""
    path = tmp_path / "bulk.store"
    add_via_atlas(path, folder, NAME, timeout=8.0)
    store = EmbedStore.open(path)
    for refused in (
        lambda: store.add(save_picture(tmp_path / "new.png", 77)),
        lambda: store.search(save_picture(tmp_path / "other.png", 78)),
        lambda: pull(tmp_path / "b.store", NAME, space=NomicAPIEmbedder.space),
    ):
        with pytest.raises(SpaceMismatchError) as caught:
            refused()
        assert "jpeg512-q90" in str(caught.value)
        assert "jpeg512-1" in str(caught.value)
    assert (server.images, len(EmbedStore.open(path))) == (0, 24)
    api = EmbedStore.create(tmp_path / "api.store", model="nomic")
    for refused in (lambda: add_via_atlas(api, folder, NAME), lambda: pull(api, NAME)):
        with pytest.raises(SpaceMismatchError, match="nomic-atlas"):
            refused()


def test_the_command(server: NomicServer, folder: Path, tmp_path: Path) -> None:
    """`add --via-atlas` is the same in one line, with a bare name; options that mean nothing there are refused."""
    runner, path = CliRunner(), str(tmp_path / "bulk.store")
    words = ["add", path, str(folder), "--via-atlas", "pictures"]
    done = runner.invoke(main, [*words, "--label-from-folder", "--map"])
    assert done.exit_code == 0, done.output
    assert "no embedding request was sent" in done.stdout
    assert (server.requests, len(EmbedStore.open(path))) == (0, 24)
    assert "labels" not in EmbedStore.open(path).columns
    for wrong in (["--dry-run"], ["--model", "nomic"], ["--normalise"]):
        assert runner.invoke(main, [*words, *wrong]).exit_code == 2
    assert runner.invoke(main, ["add", path, str(folder), "--map"]).exit_code == 2
