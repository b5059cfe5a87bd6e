"""The stand-in for Nomic's service, under the official client as it is installed: it must behave as the real one is
known to, in what it answers and in what it makes the client do wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import requests
from PIL import Image

from embedstore.testing import KINDS, PASSING, Fault, NomicServer, features

SECONDS = 30
"""Timeout of a test's own requests."""


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


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the client logs."""
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)))
    yield lines
    logger.remove(sink)


def jpeg(colour: tuple[int, int, int] = (220, 30, 30), size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format="JPEG")
    return file.getvalue()


def noise(seed: int, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def post(server: NomicServer, route: str, **arguments: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {server.key}"}
    return requests.post(server.url + route, headers=headers, timeout=SECONDS, **arguments)


# --- embedding ------------------------------------------------------------------------------------------------


def test_the_client_embeds_images(server: NomicServer) -> None:
    """25 pictures through `embed.image` are the 13 requests that the client is known to make, each counted."""
    from nomic import embed

    images = [noise(i) for i in range(25)]
    answer = embed.image(images)
    assert np.array(answer["embeddings"]).shape == (25, 768)
    assert (server.requests, server.images) == (13, 25)
    assert set(server.image_counts.values()) == {1}
    assert answer["usage"]["total_tokens"] == 25
    file = io.BytesIO()
    images[7].save(file, format="JPEG")
    np.testing.assert_array_equal(np.float32(answer["embeddings"][7]), server.image_vector(file.getvalue()))


def test_the_client_embeds_texts(server: NomicServer) -> None:
    """35 texts through `embed.text` are 12 requests, and dimensions can be left out as the model allows."""
    from nomic import embed

    texts = [f"text {i}" for i in range(35)]
    answer = embed.text(texts, task_type="search_query")
    assert (server.requests, server.texts) == (12, 35)
    np.testing.assert_array_equal(np.float32(answer["embeddings"][34]), server.text_vector("text 34"))
    short = np.array(embed.text(["text 1"], dimensionality=256)["embeddings"][0])
    full = server.text_vector("text 1")[:256]
    np.testing.assert_allclose(short, full / np.linalg.norm(full), atol=1e-6)


def test_urls_are_pictures_that_the_test_names(server: NomicServer) -> None:
    """A URL stands for the picture that the test has given for it; another is refused, and nothing is fetched."""
    from nomic import embed

    server.pictures["https://example.com/red.jpg"] = jpeg()
    answer = embed.image(["https://example.com/red.jpg"])
    np.testing.assert_array_equal(np.float32(answer["embeddings"][0]), server.image_vector(jpeg()))
    with pytest.raises(Exception, match="Could not fetch image"):
        embed.image(["https://example.com/other.jpg"])


def test_vectors_are_unit_deterministic_and_distinct() -> None:
    """Equal pixels have equal vectors, others do not, all have length one, and another process finds the same."""
    pixels = [np.asarray(noise(i)) for i in range(50)]
    vectors = np.array([features.image_vector(p) for p in pixels] + [features.text_vector(str(i)) for i in range(50)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert len({vector.tobytes() for vector in vectors}) == 100
    np.testing.assert_array_equal(features.image_vector(pixels[3].copy()), vectors[3])
    script = "from embedstore.testing import features; print(features.text_vector('a red car').tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == features.text_vector("a red car").tobytes().hex()


def test_equal_pixels_count_as_one_picture(server: NomicServer) -> None:
    """A picture is counted by what is decoded, so a PNG and a losslessly equal WebP are one."""
    files = []
    for kind in ("PNG", "WEBP"):
        file = io.BytesIO()
        noise(1).save(file, format=kind, lossless=True)
        files.append(file.getvalue())
    done = post(
        server,
        "/v1/embedding/image",
        files=[("images", f) for f in files],
        data={"model": "nomic-embed-vision-v1.5"},
    )
    assert done.status_code == 200
    assert list(server.image_counts.values()) == [2]


@pytest.mark.parametrize("colour", sorted(features.COLOURS))
def test_a_colour_s_name_is_nearest_to_its_pictures(colour: str) -> None:
    """Of all colours' pictures the one of that colour scores highest for a text that names it."""
    pictures = {
        name: features.image_vector(np.full((8, 8, 3), rgb, np.uint8)) for name, rgb in features.COLOURS.items()
    }
    text = features.text_vector(f"a photo of a {colour} bicycle")
    assert max(pictures, key=lambda name: float(pictures[name] @ text)) == colour


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"texts": "red", "model": "nomic-embed-text-v1.5"}, "texts"),
        ({"texts": ["red"], "model": "gpt-9"}, "model"),
        ({"texts": ["red"], "task_type": "guess"}, "task_type"),
        ({}, "texts"),
    ],
)
def test_bad_parameters_are_422_with_the_field(server: NomicServer, body: dict[str, Any], field: str) -> None:
    """A bad field is answered by 422 and a list that names it, as the real server's framework does."""
    done = post(server, "/v1/embedding/text", json=body)
    assert done.status_code == 422
    assert done.json()["detail"][0]["loc"] == ["body", field]


def test_a_wrong_key_is_401(server: NomicServer) -> None:
    """Another key than the server's opens nothing."""
    done = requests.get(server.url + "/v1/user", headers={"Authorization": "Bearer nk-other"}, timeout=SECONDS)
    assert done.status_code == 401
    assert requests.get(server.url + "/v1/user", timeout=SECONDS).status_code == 401


def test_unknown_routes_are_404(server: NomicServer) -> None:
    """What the service does not have is not made up."""
    assert post(server, "/v1/embedding/sound").status_code == 404


# --- faults ---------------------------------------------------------------------------------------------------


def embed_one(server: NomicServer, timeout: float = SECONDS) -> requests.Response:
    headers = {"Authorization": f"Bearer {server.key}"}
    files = [("images", jpeg()), ("images", jpeg((0, 0, 255)))]
    data = {"model": "nomic-embed-vision-v1.5"}
    return requests.post(server.url + "/v1/embedding/image", headers=headers, data=data, files=files, timeout=timeout)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("429", 429), ("500", 500), ("503", 503), ("text-500", 500)]
    + [(kind, int(kind[5:])) for kind in KINDS if kind.startswith("html-")],
)
def test_refusing_faults_do_no_work(server: NomicServer, kind: Any, status: int) -> None:
    """A fault that refuses answers so once, embeds nothing, and the next request passes."""
    server.faults.script([kind])
    done = embed_one(server)
    assert done.status_code == status
    assert ("Retry-After" in done.headers) == (kind in ("429", "503"))
    assert done.text.startswith("<!DOCTYPE html>") == kind.startswith("html-")
    assert (server.images, server.counts.spoilt.total()) == (0, 0)
    assert embed_one(server).status_code == 200
    assert (server.requests, server.images, server.faults.left) == (2, 2, 0)


def test_spoilt_answers_are_counted_apart(server: NomicServer) -> None:
    """Work whose answer is lost is counted as spoilt, and the answer is wrong in the way that was ordered."""
    server.faults.script(["wrong-count", "wrong-model", "nan", "reset", "dropped", "slow", "drip", "slow-upload"])
    assert len(embed_one(server).json()["embeddings"]) == 1
    assert embed_one(server).json()["model"] == "another-model-v0"
    assert np.isnan(embed_one(server).json()["embeddings"][0][0])
    for _ in range(2):
        with pytest.raises(requests.RequestException):
            embed_one(server)
    assert (server.images, server.counts.spoilt.total()) == (0, 8)
    for _ in range(3):
        assert len(embed_one(server).json()["embeddings"]) == 2
    assert (server.images, server.counts.spoilt.total()) == (6, 8)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("402", 402, "payment"), ("403", 403, "access"), ("plan-403", 403, "plan")],
)
def test_final_faults_refuse_in_words(server: NomicServer, kind: Any, status: int, words: str) -> None:
    """A plan at its end and a key without access are told apart by what the answer says; nothing is done."""
    server.faults.script([kind])
    done = embed_one(server)
    assert (done.status_code, server.images) == (status, 0)
    assert words in done.json()["detail"]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_leads_to_the_same_path(server: NomicServer, status: int) -> None:
    """A client that follows is answered there, and one that does not sees where to."""
    server.faults.script([f"redirect-{status}"])  # type: ignore[list-item]
    done = embed_one(server)
    assert (done.status_code, [step.status_code for step in done.history]) == (200, [status])
    assert (server.images, server.counts.statuses[status]) == (2, 1)


def test_vectors_are_spoilt_as_ordered(server: NomicServer) -> None:
    """One too many, each too short, the first one twice; an answer of one vector has none to repeat."""
    right = embed_one(server).json()["embeddings"]
    server.faults.script(["extra-vector", "wrong-dim", "duplicate-vectors"])
    assert embed_one(server).json()["embeddings"] == [*right, right[0]]
    assert embed_one(server).json()["embeddings"] == [vector[:-1] for vector in right]
    assert embed_one(server).json()["embeddings"] == [right[0], right[0]]
    assert (server.images, server.counts.spoilt.total()) == (2, 6)
    server.faults.script(["duplicate-vectors"])
    headers = {"Authorization": f"Bearer {server.key}"}
    body = {"texts": ["one"], "model": "nomic-embed-text-v1.5"}
    done = requests.post(server.url + "/v1/embedding/text", headers=headers, json=body, timeout=SECONDS)
    assert done.json()["embeddings"] == [server.text_vector("one").tolist()]
    assert server.texts == 1


def test_retry_after_may_be_a_date(server: NomicServer) -> None:
    """As HTTP writes it, so many seconds ahead."""
    server.faults.script([Fault("503", retry_after=90, as_date=True)])
    moment = parsedate_to_datetime(embed_one(server).headers["Retry-After"])
    assert 85 < (moment - datetime.now(UTC)).total_seconds() <= 90


def test_an_enterprise_login_is_written_as_the_client_does(server: NomicServer, tmp_path: Path) -> None:
    """The client that reads it goes to the enterprise's address, unless ATLAS_API_PATH leads here."""
    environment = server.environment(tmp_path / "enterprise", domain="acme.example")
    login = json.loads((tmp_path / "enterprise" / ".nomic" / "credentials").read_text())
    assert (login["tenant"], login["api_domain"], login["frontend_domain"]) == (
        "enterprise",
        "api.acme.example",
        "acme.example",
    )
    script = "from nomic.dataset import AtlasClass; c = AtlasClass(); print(c.atlas_api_path, c.web_path)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [server.url, "https://acme.example"], done.stderr


def test_a_hung_request_never_answers(server: NomicServer) -> None:
    """A client that gives up gets nothing, its pictures count as spoilt, and the server can still be stopped."""
    server.faults.script(["hung"])
    with pytest.raises(requests.Timeout):
        embed_one(server, timeout=0.1)
    assert (server.images, server.counts.spoilt.total()) == (0, 2)


def test_a_client_that_has_gone_leaves_its_work_spoilt(server: NomicServer) -> None:
    """When the client is gone before a slow answer leaves, the pictures count as spoilt."""
    server.faults.script([Fault("slow", seconds=0.3)])
    with pytest.raises(requests.Timeout):
        embed_one(server, timeout=0.05)
    server.faults.script([Fault("slow", seconds=0.5)])
    embed_one(server)
    assert (server.images, server.counts.spoilt.total()) == (2, 2)


def test_faults_wait_for_their_route(server: NomicServer) -> None:
    """A scripted fault waits for a request whose path it is meant for; None lets one pass."""
    server.faults.script([None, "503"])
    headers = {"Authorization": f"Bearer {server.key}"}
    assert requests.get(server.url + "/v1/user", headers=headers, timeout=SECONDS).status_code == 200
    assert [embed_one(server).status_code for _ in range(3)] == [200, 503, 200]
    server.faults.script(["500"], path="/v1/user")
    assert requests.get(server.url + "/v1/user", headers=headers, timeout=SECONDS).status_code == 500


def test_random_faults_repeat_with_their_seed() -> None:
    """The same seed gives the same faults, at about the rate asked for, of every kind."""
    from embedstore.testing import Faults

    taken = []
    for _ in range(2):
        faults = Faults()
        faults.random(0.2, seed=3)
        taken.append([faults.take("/v1/embedding/image") for _ in range(2000)])
    assert taken[0] == taken[1]
    kinds = Counter(fault.kind for fault in taken[0] if fault is not None)
    assert set(kinds) == set(PASSING)
    assert 330 < kinds.total() < 470
    faults.clear()
    assert faults.take("/v1/embedding/image") is None


def test_unknown_faults_are_refused() -> None:
    """A fault that does not exist is an error that lists those that do."""
    with pytest.raises(ValueError, match="wrong-count"):
        Fault("explode")  # type: ignore[arg-type]


def test_the_rate_limit_is_a_rolling_window(tmp_path: Path) -> None:
    """Beyond the limit requests are 429 with the seconds to wait."""
    with NomicServer(rate_limit=(2, 60)) as server:
        assert [embed_one(server).status_code for _ in range(3)] == [200, 200, 429]
        assert 0 < float(embed_one(server).headers["Retry-After"]) <= 60


# --- Atlas: what works ----------------------------------------------------------------------------------------


def rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"{i:032x}", "label": f"label {i % 3}", "width": i, "score": i / 7} for i in range(start, start + n)]


def unit(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def dataset(name: str = "Cats_and dogs", **options: Any) -> Any:
    from nomic import AtlasDataset

    return AtlasDataset(name, unique_id_field="id", **options)


def reopened(name: str = "cats-and-dogs") -> Any:
    return dataset(name)


def test_a_dataset_is_made_and_found_again(server: NomicServer) -> None:
    """The client's constructor makes a dataset under its slug, finds it the second time, and `delete` removes it."""
    made = dataset(is_public=False, description="two kinds")
    assert made.identifier == "stand-in/cats-and-dogs"
    assert server.atlas.dataset("cats-and-dogs").is_public is False
    found = reopened()
    assert (found.id, found.description, found.total_datums, found.modality) == (
        made.id,
        "two kinds",
        0,
        None,
    )
    assert found.created_timestamp.tzinfo is not None
    assert server.counts.routes["POST /v1/project/create"] == 1
    made.delete()
    assert server.atlas.datasets() == []


def test_another_organisation_is_not_open(server: NomicServer) -> None:
    """A dataset of somebody else is refused with a reason, as the client expects of a 403."""
    with pytest.raises(ValueError, match="do not have access"):
        dataset("somebody/else")


def test_rows_and_vectors_arrive(server: NomicServer) -> None:
    """12,000 rows arrive in three shards, each id once, vectors rounded to float16, and can be read back by id."""
    vectors = unit(12_000)
    dataset().add_data(data=rows(12_000), embeddings=vectors)
    stored = server.atlas.dataset("cats-and-dogs")
    assert server.counts.routes["POST /v1/project/data/add/arrow"] == 3
    assert Counter(stored.ids) == Counter({row["id"]: 1 for row in rows(12_000)})
    place = {i: row for row, i in enumerate(stored.ids)}
    order = [place[row["id"]] for row in rows(12_000)]
    np.testing.assert_array_equal(stored.vectors[order], vectors.astype(np.float16).astype(np.float32))
    opened = reopened()
    assert (opened.total_datums, opened.modality) == (12_000, "embedding")
    assert opened.get_data([rows(1, 5)[0]["id"], rows(1, 3)[0]["id"]]) == [
        {"id": f"{i:032x}", "label": f"label {i % 3}", "width": i, "score": pytest.approx(i / 7)} for i in (5, 3)
    ]


def test_a_map_is_read_back_in_tile_order(server: NomicServer) -> None:
    """The vectors of a map are all there, aligned with its ids, in an order that is not that of the upload."""
    vectors, given = unit(1800), rows(1800)
    opened = dataset()
    opened.add_data(data=given, embeddings=vectors)
    projection = opened.create_index(name="a map", topic_model=False)
    assert projection.name == "a map"
    assert projection._status["index_build_stage"] == "Completed"
    latent = opened.maps[0].embeddings.latent
    frame = opened.maps[0].embeddings.df
    assert latent.dtype == np.float16
    assert len(projection._manifest) > 1, "several tiles"
    ids = [row["id"] for row in given]
    assert frame["id"].tolist() != ids
    place = {i: row for row, i in enumerate(ids)}
    np.testing.assert_array_equal(latent, vectors.astype(np.float16)[[place[i] for i in frame["id"]]])
    data = opened.maps[0].data.df
    assert data["id"].tolist() == frame["id"].tolist()
    assert data["width"].tolist() == [place[i] for i in frame["id"]]
    assert opened.maps[0].tags.get_tags() == []


def test_nearest_neighbours_are_the_nearest(server: NomicServer) -> None:
    """Search by vector and by id equals squared Euclidean distance over the float16 vectors, nearest first."""
    vectors, given = unit(60), rows(60)
    opened = dataset()
    opened.add_data(data=given, embeddings=vectors)
    embeddings = opened.create_index(topic_model=False).embeddings
    halves = vectors.astype(np.float16).astype(np.float64)
    queries = unit(4, seed=9)
    brute = ((queries[:, None, :] - halves[None]) ** 2).sum(axis=2)
    neighbours, distances = embeddings.vector_search(queries=queries, k=7)
    order = np.argsort(brute, axis=1)[:, :7]
    assert neighbours == [[given[i]["id"] for i in line] for line in order]
    np.testing.assert_allclose(distances, np.sort(brute, axis=1)[:, :7], atol=1e-5)
    neighbours, _ = embeddings.vector_search(ids=[given[11]["id"]], k=3)
    assert neighbours[0][0] == given[11]["id"]


def test_pictures_become_a_map(server: NomicServer) -> None:
    """Pictures uploaded as blobs are embedded by the service when the map is made, each with its own vector."""
    images = [noise(i) for i in range(45)]
    opened = dataset()
    opened.add_data(data=rows(45), blobs=images)
    opened = reopened()
    assert (opened.modality, opened.total_datums) == ("image", 45)
    projection = opened.create_index(topic_model=False)
    assert server.counts.routes["POST /v1/project/data/add/blobs"] == 2
    frame, latent = projection.embeddings.df, projection.embeddings.latent
    row = frame["id"].tolist().index(rows(1, 30)[0]["id"])
    file = io.BytesIO()
    images[30].save(file, format="JPEG")
    np.testing.assert_array_equal(latent[row], server.image_vector(file.getvalue()).astype(np.float16))


def test_texts_become_a_map(server: NomicServer) -> None:
    """Rows without vectors or pictures are texts, embedded by the field that is indexed."""
    opened = dataset()
    opened.add_data(data=[{"id": str(i), "text": f"red {i}"} for i in range(30)])
    opened = reopened()
    projection = opened.create_index(indexed_field="text", topic_model=False)
    row = projection.embeddings.df["id"].tolist().index("7")
    expected = server.text_vector("red 7").astype(np.float16)
    np.testing.assert_array_equal(projection.embeddings.latent[row], expected)


def test_ids_are_assigned_without_an_id_field(server: NomicServer) -> None:
    """A dataset that names no id column takes the same rows twice, under ids of the server's."""
    from nomic import AtlasDataset

    opened = AtlasDataset("no-ids")
    for _ in range(2):
        opened.add_data(data=[{"a": i} for i in range(20)], embeddings=unit(20))
    assert len(set(server.atlas.dataset("no-ids").ids)) == 40
    assert opened.create_index(topic_model=False).embeddings.latent.shape == (40, 16)


def test_rows_can_be_deleted_by_the_server_s_own_route(server: NomicServer) -> None:
    """The route that the client has given up deletes rows by id."""
    opened = dataset()
    opened.add_data(data=rows(5), embeddings=unit(5))
    done = post(server, "/v1/project/data/delete", json={"project_id": opened.id, "datum_ids": [rows(1, 2)[0]["id"]]})
    assert done.status_code == 200
    stored = server.atlas.dataset("cats-and-dogs")
    assert stored.ids == [row["id"] for row in rows(5) if row["width"] != 2]
    assert len(stored.vectors) == 4


def test_a_dataset_is_locked_while_a_map_is_made(server: NomicServer) -> None:
    """While the map is in the making the dataset is locked; then the map is there."""
    opened = dataset()
    opened.add_data(data=rows(20), embeddings=unit(20))
    server.atlas.build_seconds = 3600
    projection = opened.create_index(topic_model=False)
    assert opened.is_locked
    assert projection._status["index_build_stage"] == "Embedding"
    with pytest.raises(Exception, match="Dataset is locked"):
        _ = projection.embeddings
    server.atlas.dataset("cats-and-dogs").locked_until = 0
    assert not opened.is_locked
    assert projection.embeddings.latent.shape == (20, 16)


def test_a_map_needs_twenty_rows(server: NomicServer) -> None:
    """Fewer rows than the real service wants are refused in its words."""
    opened = dataset()
    opened.add_data(data=rows(19), embeddings=unit(19))
    with pytest.raises(Exception, match=r"Your project has only 19 datums\. Please add at least 20 datums!"):
        opened.create_index(topic_model=False)


# --- Atlas: what the client loses without a word --------------------------------------------------------------


def succeeded(said: list[str]) -> bool:
    return any("Upload succeeded" in line for line in said)


def test_one_known_id_loses_its_shard_and_succeeds(server: NomicServer, said: list[str]) -> None:
    """A shard with one id that is there already is refused whole, and the client says that the upload succeeded."""
    opened = dataset()
    opened.add_data(data=rows(30), embeddings=unit(30))
    said.clear()
    opened.add_data(data=rows(100, start=29), embeddings=unit(100))
    assert succeeded(said)
    assert any("Insert failed due to ID conflict" in line for line in said)
    assert len(server.atlas.dataset("cats-and-dogs").ids) == 30
    assert server.atlas.received["cats-and-dogs"] == 130


@pytest.mark.parametrize("kind", ["429", "500", "503"])
def test_a_refusal_in_json_loses_rows_and_succeeds(server: NomicServer, said: list[str], kind: Any) -> None:
    """An upload answered by an error in JSON is lost, and the client says that it succeeded."""
    opened = dataset()
    server.faults.script([kind], path="/v1/project/data/add/arrow")
    opened.add_data(data=rows(30), embeddings=unit(30))
    assert succeeded(said)
    assert server.atlas.dataset("cats-and-dogs").ids == []


def test_a_lock_found_by_the_server_loses_rows_and_succeeds(server: NomicServer, said: list[str]) -> None:
    """A lock that came after the client last looked loses the rows, and the client says that it succeeded."""
    opened = dataset()
    server.atlas.dataset("cats-and-dogs").locked_until = float("inf")
    opened.add_data(data=rows(30), embeddings=unit(30))
    assert succeeded(said)
    assert server.atlas.dataset("cats-and-dogs").ids == []


def test_the_organisation_s_limit_loses_rows_and_succeeds(server: NomicServer, said: list[str]) -> None:
    """Rows beyond the organisation's limit are lost, and the client says that the upload succeeded."""
    server.atlas.row_limit = 6000
    dataset().add_data(data=rows(8000), embeddings=unit(8000))
    assert succeeded(said)
    assert 0 < len(server.atlas.dataset("cats-and-dogs").ids) < 8000


def test_older_string_answers_are_told_apart(server: NomicServer, said: list[str]) -> None:
    """With answers that are bare strings the client finds a lock, and gives up silently at the limit."""
    server.atlas.string_bodies = True
    opened = dataset()
    server.atlas.row_limit = 10
    opened.add_data(data=rows(30), embeddings=unit(30))
    assert not succeeded(said)
    server.atlas.dataset("cats-and-dogs").locked_until = float("inf")
    with pytest.raises(Exception, match="currently indexing"):
        opened.add_data(data=rows(30), embeddings=unit(30))
    assert server.atlas.dataset("cats-and-dogs").ids == []


@pytest.mark.parametrize("kind", ["html-413", "html-502"])
def test_a_page_in_place_of_an_answer_is_partial_success(server: NomicServer, said: list[str], kind: Any) -> None:
    """A proxy's page loses the shard, and the client says that the upload succeeded partially."""
    opened = dataset()
    server.faults.script([kind], path="/v1/project/data/add/arrow")
    opened.add_data(data=rows(30), embeddings=unit(30))
    assert any("Upload partially succeeded" in line for line in said)
    assert server.atlas.dataset("cats-and-dogs").ids == []


def test_a_504_page_is_sent_again(server: NomicServer, said: list[str]) -> None:
    """The one answer after which the client tries again is a page with 504."""
    opened = dataset()
    server.faults.script(["html-504"], path="/v1/project/data/add/arrow")
    opened.add_data(data=rows(30), embeddings=unit(30))
    assert server.counts.routes["POST /v1/project/data/add/arrow"] == 2
    assert len(server.atlas.dataset("cats-and-dogs").ids) == 30


def test_an_answer_that_is_cut_off_leaves_the_rows_there(server: NomicServer) -> None:
    """When the connection breaks in the answer the rows are stored though the client raises; when it breaks
    before, they are not."""
    opened = dataset()
    server.faults.script(["reset", "dropped"], path="/v1/project/data/add/arrow")
    for start in (0, 30):
        with pytest.raises(requests.RequestException):
            opened.add_data(data=rows(30, start), embeddings=unit(30))
    assert len(server.atlas.dataset("cats-and-dogs").ids) == 30


def test_a_lost_batch_of_pictures_leaves_rows_without_them(server: NomicServer, said: list[str]) -> None:
    """When a batch of blobs fails its rows are stored all the same, with the hash "null", and that succeeds."""
    opened = dataset()
    server.faults.script(["500"], path="/v1/project/data/add/blobs")
    opened.add_data(data=rows(45), blobs=[noise(i) for i in range(45)])
    assert succeeded(said)
    hashes = server.atlas.dataset("cats-and-dogs").rows["_blob_hash"].to_pylist()
    assert len(hashes) == 45
    assert hashes.count("null") in (5, 40)


def test_a_failed_lookup_makes_a_second_dataset(server: NomicServer) -> None:
    """An error when a dataset is looked up is read as "there is none", and the client goes on to make one."""
    dataset()
    server.faults.script(["500"], path="/v1/project/stand-in/")
    with pytest.raises(Exception, match="already exists"):
        reopened()


def test_the_cache_of_a_map_is_never_renewed(server: NomicServer, tmp_path: Path) -> None:
    """A map is a snapshot; what was read of it once is taken from the disk ever after."""
    opened = dataset()
    opened.add_data(data=rows(20), embeddings=unit(20))
    opened.create_index(topic_model=False)
    assert opened.maps[0].embeddings.latent.shape == (20, 16)
    opened.add_data(data=rows(20, start=20), embeddings=unit(20))
    assert opened.maps[0].embeddings.latent.shape == (20, 16)
    assert tile_requests(server) == 2, "the manifest and one tile, once"
    assert reopened().total_datums == 40


def tile_requests(server: NomicServer) -> int:
    return sum(n for route, n in server.counts.routes.items() if "quadtree" in route)


# --- Atlas: what is refused -----------------------------------------------------------------------------------


def upload(server: NomicServer, project: str, table: pa.Table, **metadata: str) -> requests.Response:
    file = io.BytesIO()
    pa.feather.write_feather(table.replace_schema_metadata({"project_id": project, **metadata}), file)
    return post(server, "/v1/project/data/add/arrow", data=file.getvalue())


def test_a_shard_is_stored_whole_or_not_at_all(server: NomicServer) -> None:
    """An id twice in one shard, a null id, a long id and another schema each refuse the whole shard."""
    project = dataset().id
    good = pa.table({"id": ["a", "b"], "n": pa.array([1, 2], pa.int32())})
    assert upload(server, project, good).json()["result"] == "ok"
    for ids, status in ((["c", "c"], 400), (["c", None], 422), (["c", "d" * 37], 422), (["c", "a"], 400)):
        bad = pa.table({"id": pa.array(ids, pa.string()), "n": pa.array([3, 4], pa.int32())})
        assert upload(server, project, bad).status_code == status
    assert upload(server, project, pa.table({"id": ["c"], "m": ["x"]})).status_code == 422
    assert upload(server, "0" * 36, good).status_code == 404
    assert server.atlas.dataset("cats-and-dogs").ids == ["a", "b"]


def test_conflicts_can_be_passed_over_by_metadata(server: NomicServer) -> None:
    """With the metadata that other clients set, rows that are there already are passed over and the others stored."""
    project = dataset().id
    upload(server, project, pa.table({"id": ["a", "b"]}))
    done = upload(server, project, pa.table({"id": ["b", "c", "c"]}), on_id_conflict_ignore="true")
    assert done.status_code == 200
    assert server.atlas.dataset("cats-and-dogs").ids == ["a", "b", "c"]


def test_what_is_no_feather_file_is_refused(server: NomicServer) -> None:
    """A body that is no Feather file is a 422, and nothing is stored."""
    assert post(server, "/v1/project/data/add/arrow", data=b"ARROW1 not really").status_code == 422


def test_several_processes_can_use_one_server(server: NomicServer) -> None:
    """Requests of other processes, found by the environment alone, are counted here."""
    script = "from nomic import embed; print(len(embed.text(['a', 'b'])['embeddings']))"
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in running] == [b"2", b"2"]
    assert server.counts.texts == {"a": 2, "b": 2}
