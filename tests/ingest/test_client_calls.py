"""`from embedstore import embed`: the answers of Nomic's client, and what is refused rather than answered otherwise."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from conftest import save_picture
from PIL import Image

from embedstore import embed
from embedstore.errors import ImageError, InputError
from embedstore.ingest.cached_embedder import MEMORY
from embedstore.testing import NomicServer


@pytest.fixture(autouse=True)
def _fresh_memory() -> None:
    MEMORY.clear()


def test_answers_are_those_of_the_client(server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors in order, of paths and of Pillow images; the same keys, of which `usage` is empty; nothing twice."""
    from nomic import cli

    client = importlib.import_module("nomic.embed")
    monkeypatch.setattr(cli, "nomic_base_path", tmp_path / "home" / ".nomic")
    monkeypatch.setattr(client, "atlas_class", None)
    files = [str(save_picture(tmp_path / f"{seed}.png", seed)) for seed in range(5)]
    pictures = [Image.open(file) for file in files]
    theirs = client.image(files, model="nomic-embed-vision-v1.5")
    ours = embed.image(files)
    np.testing.assert_allclose(ours["embeddings"], theirs["embeddings"], atol=1e-6)
    np.testing.assert_allclose(embed.image(pictures)["embeddings"], theirs["embeddings"], atol=1e-6)
    assert set(ours) == set(theirs)
    assert (ours["model"], ours["usage"]) == (theirs["model"], {})
    assert {type(number) for row in ours["embeddings"] for number in row} == {float}
    texts = ["a red car", "a blue sky"]
    asked = {"task_type": "search_query", "model": "nomic-embed-text-v1.5"}
    found = embed.text(texts, **asked)["embeddings"]
    np.testing.assert_allclose(found, client.text(texts, **asked)["embeddings"], atol=1e-6)
    paid = server.requests
    embed.image(files[::-1])
    embed.text(texts[::-1], **asked)
    assert server.requests == paid
    assert embed.image([])["embeddings"] == []


def test_the_clients_parameters_have_its_names_and_defaults() -> None:
    """What the two calls take, the client's take too, with the same defaults."""
    client = importlib.import_module("nomic.embed")
    for name in ("text", "image"):
        theirs = inspect.signature(getattr(client, name)).parameters
        for parameter in inspect.signature(getattr(embed, name)).parameters.values():
            assert theirs[parameter.name].default == parameter.default
            assert theirs[parameter.name].kind == parameter.kind


def test_what_there_is_not_is_refused_before_anything_is_paid(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other models and tasks, one text or path in place of a list, a model that is none of Nomic's, no picture."""
    file = str(save_picture(tmp_path / "a.png", 1))
    with pytest.raises(InputError, match=r"task_type is 'search_document'.*nomic.embed.text"):
        embed.text(["a red car"])
    with pytest.raises(InputError, match=r"one that there is here is 'nomic-embed-text-v1.5'"):
        embed.text(["a red car"], task_type="search_query", model="nomic-embed-text-v1")
    with pytest.raises(InputError, match=r"one that there is here is 'nomic-embed-vision-v1.5'"):
        embed.image([file], model="nomic-embed-vision-v1")
    with pytest.raises(InputError, match=r"pass \['a red car'\]"):
        embed.text("a red car", task_type="search_query")
    with pytest.raises(InputError, match="must be a list of pictures"):
        embed.image(file)
    with pytest.raises(ImageError, match="image 1"):
        embed.image([file, str(tmp_path / "absent.png")])
    monkeypatch.setenv("EMBEDSTORE_MODEL", "objects")
    with pytest.raises(InputError, match="EMBEDSTORE_MODEL is 'objects'"):
        embed.image([file])
    assert server.requests == 0


def test_the_same_models_may_run_here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With EMBEDSTORE_MODEL=nomic-local nothing leaves the machine."""
    monkeypatch.setenv("EMBEDSTORE_MODEL", "nomic-local")
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    file = str(save_picture(tmp_path / "a.png", 1))
    assert np.linalg.norm(embed.image([file])["embeddings"][0]) == pytest.approx(1, abs=1e-6)
