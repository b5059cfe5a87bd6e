"""The official client is used as it is, and left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlas_stores import NAME, sync, vector_store

from embedstore.atlas.answers import AtlasTransport
from embedstore.atlas.client import open_dataset
from embedstore.store import EmbedStore
from embedstore.testing import NomicServer


@pytest.fixture
def small(tmp_path: Path) -> EmbedStore:
    return vector_store(tmp_path / "small.store", 60)


def test_the_client_is_as_it_was(server: NomicServer, small: EmbedStore) -> None:
    """After a sync the official client's own functions and globals are what they were."""
    import requests
    from nomic import dataset, utils

    sync(small)
    official = open_dataset(AtlasTransport(server.key, 8.0), NAME).official
    assert dataset.requests is requests
    assert utils.requests is requests
    assert dataset.AtlasDataset._add_data.__globals__ is vars(dataset)
    assert type(official)._add_data.__code__ is dataset.AtlasDataset._add_data.__code__
    assert official.header["Authorization"] != f"Bearer {server.key}"
