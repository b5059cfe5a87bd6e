"""The stand-in's Atlas through the unmodified client: what is shown late, and what a map finds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.testing import NomicServer

IDS = [f"{row:032x}" for row in range(24)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    import nomic.cli
    import nomic.embed

    with NomicServer() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        # What the client looks up once, when it is imported or first used.
        monkeypatch.setattr(nomic.cli, "nomic_base_path", tmp_path / ".nomic")
        monkeypatch.setattr(nomic.embed, "atlas_class", None)
        yield server


def filled() -> Any:
    """Return a dataset of the client with 24 rows, the last with the vector of the first."""
    from nomic import AtlasDataset

    vectors = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
    vectors[-1] = vectors[0]
    dataset = AtlasDataset("photos", unique_id_field="id")
    rows = [{"id": name, "kind": ("cat", "cow", "dog")[number % 3]} for number, name in enumerate(IDS)]
    dataset.add_data(data=rows, embeddings=vectors)
    return dataset


def test_rows_are_shown_late(server: NomicServer) -> None:
    """Rows are in no look-up and no count for a moment; an upload of them meets a conflict all the same."""
    server.atlas.shown_after = 0.5
    dataset = filled()
    assert dataset.get_data(IDS) == []
    assert dataset._latest_dataset_state().total_datums == 0
    assert len(server.atlas.dataset("photos").ids) == 24
    time.sleep(0.6)
    assert [row["id"] for row in dataset.get_data(IDS)] == IDS
    assert dataset._latest_dataset_state().total_datums == 24


def test_a_map_is_listed_late_and_made_slowly(server: NomicServer) -> None:
    """A map is not listed for a moment after its order, then in the making until it can be read."""
    dataset = filled()
    server.atlas.listed_after, server.atlas.build_seconds = 0.5, 3600.0
    server.atlas.create_index(server.atlas.dataset("photos"), {"index_name": "m"})
    assert dataset.indices == []
    time.sleep(0.6)
    [index] = dataset.indices
    assert index.projections[0]._status["index_build_stage"] == "Embedding"
    server.atlas.dataset("photos").locked_until = 0.0
    assert index.projections[0]._status["index_build_stage"] == "Completed"


def test_topics_and_duplicates(server: NomicServer) -> None:
    """The client reads topics by their names, from the broadest on, and which rows have the same vector."""
    dataset = filled()
    projection = dataset.create_index(topic_model={"topic_label_field": "kind"})
    topics = projection.topics.df.set_index("id").loc[IDS]
    assert topics["topic_depth_2"].tolist()[:3] == ["cat", "cow", "dog"]
    assert topics["topic_depth_1"].tolist()[:3] == ["C", "C", "D"]
    duplicates = projection.duplicates.df.set_index("id").loc[IDS]
    classes = duplicates["duplicate_class"].tolist()
    assert (classes[0], classes[-1], set(classes[1:-1])) == ("retention candidate", "deletion candidate", {"singleton"})
    assert duplicates["cluster_id"].tolist()[0] == duplicates["cluster_id"].tolist()[-1]
    assert projection.duplicates.deletion_candidates() == [IDS[-1]]
