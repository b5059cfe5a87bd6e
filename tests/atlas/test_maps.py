"""Maps that are made and waited for."""

from __future__ import annotations

import json
import shutil
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from atlas_stores import NAME, sync, vector_store

from embedstore.atlas import maps, plan_sync
from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.client import open_dataset
from embedstore.errors import AtlasError, InputError
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer
from embedstore.testing.atlas_state import Dataset


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_a_map(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map without topics is made once for the same rows, again after more were sent, and is waited for."""
    server.atlas.build_seconds = 0.3
    ordered: list[dict[str, str]] = []
    whole = server.atlas.create_index
    monkeypatch.setattr(
        server.atlas, "create_index", lambda dataset, body: ordered.append(body) or whole(dataset, body)
    )
    report = sync(small, where="number < 30", index=True)
    assert report.map.startswith("made: https://atlas.nomic.ai/data/stand-in/photos")
    dataset = server.atlas.dataset("photos")
    assert not dataset.locked
    assert "already" in sync(small, where="number < 30", index=True).map
    assert "made" in sync(small, index=True).map
    assert [len(index.ids) for index in dataset.indices] == [30, 60]
    assert len(ordered) == 2
    assert not any(json.loads(body["topic_model_hyperparameters"])["build_topic_model"] for body in ordered)


def test_a_map_of_too_few_rows(server: NomicServer, tmp_path: Path) -> None:
    """Atlas makes no map of fewer than 20 rows, and this is said; the rows are there."""
    with pytest.raises(AtlasError, match="at least 20 rows"):
        sync(vector_store(tmp_path / "s.store", 10), index=True)
    assert len(server.atlas.dataset("photos").ids) == 10


@pytest.mark.parametrize("kind", ["503", "hung", "reset", "html-502"])
def test_a_map_is_ordered_once(server: NomicServer, small: EmbedStore, kind: str) -> None:
    """When the order of a map fails it is looked whether the map is made, before it is ordered again."""
    server.faults.script([kind], path="/v1/project/index/create")  # type: ignore[list-item]
    assert "made" in sync(small, index=True, timeout=6.0).map
    assert len(server.atlas.dataset("photos").indices) == 1


def test_an_index_that_has_no_map_yet(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that Atlas lists before it has begun to make its map is waited for."""
    whole, looks = Dataset.described, count()

    def described(dataset: Dataset) -> dict[str, Any]:
        answer = whole(dataset)
        if answer["atlas_indices"] and next(looks) < 6:
            answer["atlas_indices"] = [{**index, "projections": []} for index in answer["atlas_indices"]]
        return answer

    monkeypatch.setattr(Dataset, "described", described)
    told: list[str] = []
    assert "made" in sync(small, index=True, progress=told.append).map
    assert sum("Atlas makes the map" in text and "not begun" in text for text in told) == 1


def test_a_file_of_a_map_that_is_not_there(
    server: NomicServer, small: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile whose file is missing ends with an error that names the tile, not with one of the file system."""
    sync(small, index=True)
    remote = open_dataset(AtlasTransport(None, 8.0), NAME, tiles=tmp_path)
    tiles = maps.read_tiles(remote, remote.maps[-1], ("label",))
    whole = maps.feather.read_table

    def read(path: Path, **options: Any) -> Any:
        path.unlink()
        return whole(path, **options)

    monkeypatch.setattr(maps, "feather", SimpleNamespace(read_table=read))
    with pytest.raises(AtlasError, match="reading the map's tile 0/0/0"):
        list(tiles)


def test_a_map_slower_than_the_timeout(server: NomicServer, small: EmbedStore) -> None:
    """A map that takes longer than a sync waits is waited for by the next one, and no other is ordered."""
    server.atlas.build_seconds = 3600.0
    with pytest.raises(AtlasError, match=r"Atlas goes on with it.*waits for it, and orders no other"):
        sync(small, index=True, timeout=3.0)
    server.atlas.dataset("photos").locked_until = time.monotonic() + 1.0
    assert "a map was ordered, and not seen finished yet" in str(plan_sync(small, NAME))
    report = sync(small, index=True, timeout=10.0)
    assert report.map.startswith("made")
    assert "already" in sync(small, index=True).map
    assert server.counts.routes["POST /v1/project/index/create"] == 1


def test_a_map_listed_late(server: NomicServer, small: EmbedStore) -> None:
    """A map that Atlas lists a moment after it took the order is found, and no other is ordered."""
    server.atlas.listed_after = 0.7
    assert "made" in sync(small, index=True, timeout=20.0).map
    assert server.counts.routes["POST /v1/project/index/create"] == 1


def test_an_order_whose_answer_was_lost(server: NomicServer, small: EmbedStore) -> None:
    """After a lost answer and a map that is listed late one map is ordered, also by the next sync."""
    server.atlas.listed_after = 0.7
    server.faults.script(["reset"], path="/v1/project/index/create")
    assert "made" in sync(small, index=True, timeout=20.0).map
    assert server.counts.routes["POST /v1/project/index/create"] == 1


def test_an_order_of_another_machine(server: NomicServer, small: EmbedStore, tmp_path: Path) -> None:
    """A map that is being made for somebody else's order is waited for, as it shows all rows that are there."""
    sync(small)
    copy = EmbedStore.open(shutil.copytree(small.path, tmp_path / "copy.store"))
    server.atlas.build_seconds = 3600.0
    with pytest.raises(AtlasError, match="goes on with it"):
        sync(small, index=True, timeout=3.0)
    server.atlas.dataset("photos").locked_until = time.monotonic() + 0.5
    assert "made" in sync(copy, index=True, timeout=20.0).map
    assert len(server.atlas.dataset("photos").indices) == 1


def test_a_map_that_failed(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that Atlas could not make is an error, and the next sync orders another."""
    monkeypatch.setattr(maps, "_stage", lambda *_: "Failed")
    with pytest.raises(AtlasError, match="could not make the map"):
        sync(small, index=True)
    monkeypatch.undo()
    for name, value in server.environment(small.path.parent / "home").items():
        monkeypatch.setenv(name, value)
    assert "made" in sync(small, index=True).map
    assert len(server.atlas.dataset("photos").indices) == 2


def test_topics_and_pictures(server: NomicServer, small: EmbedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic model is ordered as asked, by a column's name here; one that is no column's, or no option, is refused."""
    ordered: list[dict[str, str]] = []
    whole = server.atlas.create_index
    monkeypatch.setattr(
        server.atlas, "create_index", lambda dataset, body: ordered.append(body) or whole(dataset, body)
    )
    sync(small, index=True, topic_model="label")
    sync(small, "stand-in/b", index=True, topic_model={"build_topic_model": False})
    found = [json.loads(body["topic_model_hyperparameters"]) for body in ordered]
    assert [(options["build_topic_model"], options["community_description_target_field"]) for options in found] == [
        (True, "label"),
        (False, None),
    ]
    # One without topics does not do for who wants some; one with topics does for who asks for none.
    assert "made" in sync(small, "stand-in/b", index=True, topic_model="label").map
    assert "already" in sync(small, "stand-in/b", index=True).map
    assert "topics come with a map" in str(sync(small, topic_model="label"))
    with pytest.raises(InputError, match="Did you mean 'label'"):
        sync(small, index=True, topic_model="lable")
    with pytest.raises(InputError, match="Did you mean 'build_topic_model'"):
        sync(small, index=True, topic_model={"build_topics_model": False})
