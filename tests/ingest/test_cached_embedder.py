"""Each picture is paid for once: `add` over the official client against the stand-in, in fair weather and foul."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_picture
from numpy.typing import NDArray
from PIL import Image

from embedstore import images
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.remote import Retries
from embedstore.embedders.transport import Timeouts
from embedstore.errors import CredentialsError, QueryError, ServiceError
from embedstore.searching.queries import Query
from embedstore.storage.ledger import Ledger
from embedstore.store import EmbedStore
from embedstore.testing import KINDS, Fault, NomicServer

QUICK = Retries(attempts=12, first_wait=0.001, longest_wait=0.005)


def make_store(path: Path, **options: Any) -> EmbedStore:
    """An empty store whose embedder sends to the stand-in."""
    return EmbedStore.create(path, embedder=NomicAPIEmbedder(**{"retries": QUICK, **options}))


def tiny_pictures(folder: Path, count: int) -> Path:
    """A folder of pictures of 8 x 8 pixels that all differ, also as JPEG."""
    for number in range(count):
        file = folder / f"{number % 10}" / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, compress_level=1)
    return folder


def sent(path: Path) -> bytes:
    """The JPEG that is sent for a file."""
    return NomicAPIEmbedder().prepare(images.read(path).image)


def assert_vectors_are_the_servers(store: EmbedStore, server: NomicServer) -> None:
    """Each row's vector is the server's for the picture at its uri."""
    rows = store.to_table(["id", "uri"]).to_pylist()
    found = store.vectors([row["id"] for row in rows])
    expected = np.array([server.image_vector(sent(Path(row["uri"]))) for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-7)


# --- must show 1: foul weather --------------------------------------------------------------------------------


def test_through_faults_of_every_kind_each_picture_is_embedded_once(server: NomicServer, tmp_path: Path) -> None:
    """2,000 pictures while 5 % of the requests fail in all 22 ways: every row has the server's vector for its own
    picture, each picture was delivered exactly once, and computed again only where an answer was lost on the way."""
    server.faults.random(0.05, seed=3, kinds=[Fault(kind, seconds=0.6 if kind == "hung" else 0.01) for kind in KINDS])
    folder = tiny_pictures(tmp_path / "p", 2000)
    store = make_store(tmp_path / "s.store", timeouts=Timeouts(2, 0.3, 0.5))
    report = store.add(folder, batch_size=8, workers=4)
    assert (report.embedded, len(report.failures), len(store)) == (2000, 0, 2000)
    counts = server.counts
    assert server.requests > 250 + 8  # the dice did throw
    assert set(counts.images.values()) == {1}
    assert len(counts.images) == 2000
    assert counts.spoilt.total() <= 8 * (server.requests - 250)
    assert_vectors_are_the_servers(store, server)
    before = server.requests
    assert store.add(folder).unchanged == 2000
    assert server.requests == before


# --- must show 3: thresholds are free -------------------------------------------------------------------------


def test_three_thresholds_cost_one_embedding_of_each_picture(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cookbook's loop over three thresholds embeds each picture three times; the store embeds it once, and
    classifies by the same rule with no further request and the server gone."""
    from nomic import cli, embed

    # What the client looks up once in a process, maybe for another test.
    monkeypatch.setattr(cli, "nomic_base_path", tmp_path / "home" / ".nomic")
    monkeypatch.setattr(embed, "atlas_class", None)
    folder = tiny_pictures(tmp_path / "p", 60)
    files = sorted(str(file) for file in folder.rglob("*.png"))
    query = np.array(embed.text(["a tiny red ball"], task_type="search_query")["embeddings"])
    thresholds, cookbook = (0.0, 0.01, 0.02), []
    for threshold in thresholds:
        found = np.array(embed.image(files)["embeddings"])
        cookbook.append({file for file, score in zip(files, found @ query[0], strict=True) if score > threshold})
    assert server.images == 3 * 60
    store = make_store(tmp_path / "s.store")
    store.add(folder)
    store.query_vectors(["a tiny red ball"])
    assert server.images == 4 * 60
    server.__exit__(None, None, None)
    opened = EmbedStore.open(store.path)
    for threshold, expected in zip(thresholds, cookbook, strict=True):
        assert set(opened.classify("a tiny red ball", threshold).uri) == expected


# --- refusals, budgets, keys ----------------------------------------------------------------------------------


def is_poison(pixels: NDArray[np.uint8]) -> bool:
    return pixels.shape == (9, 9, 3)


def add_poison(folder: Path, *numbers: int) -> set[str]:
    """Put pictures of 9 x 9 pixels among the others."""
    return {str(save_picture(folder / f"{n % 10}" / f"{n:05}p.png", 1000 + n, (9, 9))) for n in numbers}


def test_poison_pictures_are_found_by_halving(server: NomicServer, tmp_path: Path) -> None:
    """Three pictures that the service refuses are failures with its reason; all others are delivered once."""
    folder = tiny_pictures(tmp_path / "p", 100)
    poison = add_poison(folder, 3, 4, 77)
    server.faults.refuse(is_poison)
    store = make_store(tmp_path / "s.store")
    report = store.add(folder, batch_size=16, workers=3)
    assert {failure.uri for failure in report.failures} == poison
    assert all("Invalid image" in failure.reason for failure in report.failures)
    assert (report.embedded, len(store), server.images) == (100, 100, 100)
    assert set(server.image_counts.values()) == {1}
    assert_vectors_are_the_servers(store, server)
    server.faults.clear()
    again = store.add(only=[failure.uri for failure in report.failures])
    assert (again.embedded, len(store)) == (3, 103)


def test_halves_that_were_paid_survive_a_failure(server: NomicServer, tmp_path: Path) -> None:
    """While a batch is being halved the service goes away: the halves that had come back are stored."""
    folder = tiny_pictures(tmp_path / "p", 16)
    add_poison(folder, 15)
    server.faults.refuse(is_poison)
    server.faults.script([None, None, None, *["500"] * 40])
    store = make_store(tmp_path / "s.store", retries=Retries(attempts=2, first_wait=0.001))
    with pytest.raises(ServiceError):
        store.add(folder, batch_size=17, workers=1)
    assert server.images == len(store) > 0
    server.faults.clear()
    server.faults.refuse(is_poison)
    store.add(folder)
    assert len(store) == server.images == 16


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_a_budget_stops_cleanly(server: NomicServer, tmp_path: Path, budget: int) -> None:
    """With `max_requests` no more are sent; what was embedded is stored, and the report says why it stopped."""
    folder = tiny_pictures(tmp_path / "p", 50)
    store = make_store(tmp_path / "s.store", max_requests=budget)
    report = store.add(folder, batch_size=4, workers=3)
    assert f"budget of {budget} request" in str(report.stopped)
    assert server.requests == budget
    assert report.embedded == len(store) == server.images == 4 * budget
    assert "stopped:" in str(report)
    rest = EmbedStore.open(store.path).add(folder, batch_size=4)
    assert (rest.stopped, rest.unchanged, rest.embedded) == (None, 4 * budget, 50 - 4 * budget)
    assert set(server.image_counts.values()) == {1}


def test_a_key_that_is_refused_stops_at_once(server: NomicServer, tmp_path: Path) -> None:
    """A wrong key ends the add before a picture is sent, and the key is in no error and no file."""
    folder = tiny_pictures(tmp_path / "p", 40)
    store = make_store(tmp_path / "s.store", key="nk-wrong-0815")
    with pytest.raises(CredentialsError) as caught:
        store.add(folder, batch_size=4)
    assert server.requests == 0
    assert "nk-wrong-0815" not in f"{caught.value!r} {getattr(caught.value, '__notes__', None)}"
    assert len(store) == 0


def test_a_service_that_goes_away_leaves_what_it_did(server: NomicServer, tmp_path: Path) -> None:
    """From the sixth request on the service only fails: the add ends, and the note counts what is stored."""
    folder = tiny_pictures(tmp_path / "p", 60)
    server.faults.script([None] * 5 + ["503"] * 200)
    store = make_store(tmp_path / "s.store", retries=Retries(attempts=3, first_wait=0.001, longest_wait=0.002))
    with pytest.raises(ServiceError, match="given up after 3 requests") as caught:
        store.add(folder, batch_size=4, workers=2)
    assert len(store) == server.images == 20
    assert caught.value.__notes__ == ["20 images were embedded and are stored; run the same command again to go on"]
    server.faults.clear()
    assert store.add(folder).embedded == 40
    assert set(server.image_counts.values()) == {1}


# --- must show 4: a hung server -------------------------------------------------------------------------------


def test_a_hung_server_ends_in_an_error(server: NomicServer, tmp_path: Path) -> None:
    """A server that takes a request and never answers is an error within the timeouts; what came before is kept."""
    folder = tiny_pictures(tmp_path / "p", 12)
    server.faults.script([None, *["hung"] * 50])
    store = make_store(
        tmp_path / "s.store",
        timeouts=Timeouts(0.5, 0.2, 0.5),
        retries=Retries(attempts=2, first_wait=0.001),
    )
    with pytest.raises(ServiceError, match="no answer within"):
        store.add(folder, batch_size=4, workers=1)
    assert len(store) == 4


# --- order: on the disk first ---------------------------------------------------------------------------------


def test_no_request_leaves_before_older_answers_are_on_the_disk(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When request n leaves, the answers of all but the last `workers` requests are in the ledger, synced."""
    workers, pictures_in_batch = 3, 2
    order: list[tuple[str, int]] = []
    guard = threading.Lock()
    pay, embed = Ledger.pay, NomicAPIEmbedder.embed_prepared

    def paid(self: Ledger, run: str, table: Any) -> int:
        number = pay(self, run, table)
        with guard:
            order.append(("stored", len(table)))
        return number

    def embedded(self: NomicAPIEmbedder, prepared: Any) -> Any:
        with guard:
            order.append(("sent", len(prepared)))
        return embed(self, prepared)

    monkeypatch.setattr(Ledger, "pay", paid)
    monkeypatch.setattr(NomicAPIEmbedder, "embed_prepared", embedded)
    server.faults.random(0.3, seed=1, kinds=["slow", "500"])
    make_store(tmp_path / "s.store").add(
        tiny_pictures(tmp_path / "p", 80), batch_size=pictures_in_batch, workers=workers
    )
    outstanding = 0
    for what, count in order:
        outstanding += count if what == "sent" else -count
        assert outstanding <= workers * pictures_in_batch
    assert outstanding == 0
    assert Counter(what for what, _ in order)["sent"] == 40


# --- texts ----------------------------------------------------------------------------------------------------


def test_texts_are_sent_ten_to_a_request_and_never_again(server: NomicServer, tmp_path: Path) -> None:
    """35 texts are four requests; asked again, in another order or process, they are none."""
    store = make_store(tmp_path / "s.store")
    texts = [f"a photo of a red car number {number}" for number in range(35)]
    found = store.query_vectors(texts)
    assert (server.requests, server.texts) == (4, 35)
    np.testing.assert_allclose(found, [server.text_vector(text) for text in texts], atol=1e-7)
    opened = EmbedStore.open(store.path)
    assert np.array_equal(opened.query_vectors(texts[::-1]), found[::-1])
    assert np.array_equal(opened.query_vectors([Query.text(texts[3])]), found[3:4])
    assert server.requests == 4


def test_texts_that_were_paid_survive_a_failure(server: NomicServer, tmp_path: Path) -> None:
    """The service goes away in the middle of 200 texts: those that were stored are not sent again."""
    store = make_store(tmp_path / "s.store", workers=2, retries=Retries(attempts=2, first_wait=0.001))
    texts = [f"text {number}" for number in range(200)]
    server.faults.script([None] * 12 + ["500"] * 99)
    with pytest.raises(ServiceError):
        store.query_vectors(texts)
    server.faults.clear()
    stored = EmbedStore.open(store.path).info()["cached_queries"]
    assert 80 <= stored <= 120
    store.query_vectors(texts)
    assert max(server.counts.texts.values()) <= 2
    assert server.texts <= 200 + 40


def test_a_refused_text_says_which(server: NomicServer, tmp_path: Path) -> None:
    """A text that the service refuses is a QueryError, not a failure of the service."""
    store = make_store(tmp_path / "s.store")
    server.faults.script(["html-413"])
    with pytest.raises(QueryError, match="refuses a text"):
        store.query_vectors(["a red car"])


def test_a_picture_as_query_is_embedded_once(server: NomicServer, tmp_path: Path) -> None:
    """A picture that is no row is embedded when first asked with, and found in the cache later; a row costs nothing."""
    folder = tiny_pictures(tmp_path / "p", 5)
    store = make_store(tmp_path / "s.store")
    store.add(folder)
    row = folder / "3" / "00003.png"
    assert np.allclose(store.query_vectors([row])[0], server.image_vector(sent(row)), atol=1e-7)
    assert server.images == 5
    outside = save_picture(tmp_path / "query.png", 5000)
    first = store.query_vectors([outside])
    assert server.images == 6
    assert np.array_equal(EmbedStore.open(store.path).query_vectors([outside]), first)
    assert server.images == 6
    buffer = io.BytesIO(outside.read_bytes())
    assert np.array_equal(store.query_vectors([buffer.getvalue()]), first)
    assert server.images == 6
