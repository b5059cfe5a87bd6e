"""The `nomic` embedder, over the official client as it is installed, against the stand-in."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_line import run_process
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.embedders import Embedder
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.rate_limit import RateLimiter
from embedstore.embedders.remote import Retries
from embedstore.embedders.transport import NoAnswerError, NoSuchHostError, Timeouts, Transport
from embedstore.errors import (
    BudgetSpentError,
    CredentialsError,
    ImageError,
    MissingDependencyError,
    ModelNotFoundError,
    OfflineError,
    QueryError,
    RejectedImagesError,
    ServiceError,
)
from embedstore.settings import find_key
from embedstore.testing import OF_VECTORS, Fault, NomicServer

QUICK = Retries(attempts=6, first_wait=0.001, longest_wait=0.005)
RED = (220, 30, 30)


@pytest.fixture
def embedder(server: NomicServer) -> NomicAPIEmbedder:
    return NomicAPIEmbedder(retries=QUICK)


def pictures(n: int, start: int = 0) -> list[Image.Image]:
    """Pictures that all differ."""
    seeds = range(start, start + n)
    noise = [np.random.default_rng(i).integers(0, 256, (16, 24, 3), dtype=np.uint8) for i in seeds]
    return [Image.fromarray(pixels) for pixels in noise]


def jpegs(n: int, start: int = 0) -> list[bytes]:
    embedder = NomicAPIEmbedder()
    return [embedder.prepare(image) for image in pictures(n, start)]


def expected(server: NomicServer, prepared: list[bytes]) -> np.ndarray:
    return np.array([server.image_vector(file) for file in prepared])


# --- pictures -------------------------------------------------------------------------------------------------


def test_it_keeps_the_protocol(embedder: NomicAPIEmbedder) -> None:
    """It is an `Embedder`, knows its space without a key, and no other model."""
    assert isinstance(embedder, Embedder)
    assert (embedder.space.model, embedder.space.backend, embedder.space.dim) == (
        "nomic-embed-v1.5",
        "nomic-api",
        768,
    )
    with pytest.raises(ModelNotFoundError, match=r"nomic-embed-v1\.5"):
        NomicAPIEmbedder("nomic-embed-v9")


@pytest.mark.parametrize("n", [1, 19, 20, 64, 300])
def test_a_batch_is_one_request(server: NomicServer, embedder: NomicAPIEmbedder, n: int) -> None:
    """Any number of pictures is one request, and row i is the server's vector of picture i, of unit length."""
    prepared = jpegs(n)
    vectors = embedder.embed_prepared(prepared)
    assert vectors.shape == (n, 768)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(server, prepared), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
    assert (server.requests, server.images, embedder.requests_sent) == (1, n, 1)
    assert server.image_counts == {server.content_of(file): 1 for file in prepared}


def test_nothing_is_sent_for_nothing(server: NomicServer, embedder: NomicAPIEmbedder) -> None:
    """No pictures and no texts are no requests, and arrays of no rows."""
    assert embedder.embed_prepared([]).shape == embedder.embed_texts([]).shape == (0, 768)
    assert server.counts.routes.total() == 0


@given(width=st.integers(1, 2600), height=st.integers(1, 2600))
@settings(max_examples=25, deadline=None)
def test_it_prepares_as_the_client_does(width: int, height: int) -> None:
    """A picture becomes the very bytes that the client's own `embed.image` would send, wherever that works."""
    from nomic.embed import resize_pil

    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ours = NomicAPIEmbedder().prepare(image)
    try:
        theirs = resize_pil(image)
    except ValueError:  # it reduces a long thin picture to no pixels
        assert min(Image.open(io.BytesIO(ours)).size) == 1
        return
    file = io.BytesIO()
    theirs.save(file, format="JPEG")
    assert ours == file.getvalue()


def test_long_thin_pictures_keep_a_pixel() -> None:
    """6000 x 10 pixels become 545 x 1, where the client raises; another mode than RGB is refused."""
    prepared = NomicAPIEmbedder().prepare(Image.new("RGB", (6000, 10)))
    assert Image.open(io.BytesIO(prepared)).size == (545, 1)
    with pytest.raises(ImageError, match="RGBA"):
        NomicAPIEmbedder().prepare(Image.new("RGBA", (8, 8)))


def test_it_agrees_with_the_client_used_alone(server: NomicServer, embedder: NomicAPIEmbedder, tmp_path: Path) -> None:
    """The client's own `embed.image` and `embed.text`, in a process of their own, return the same vectors."""
    files = [str(tmp_path / f"{i}.png") for i in range(5)]
    for image, file in zip(pictures(5), files, strict=True):
        image.save(file)
    script = (
        "import json, sys; from nomic import embed\n"
        "texts = embed.text(['a red car', 'rain'], task_type='search_query')['embeddings']\n"
        "json.dump([embed.image(sys.argv[1:])['embeddings'], texts], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, timeout=120, check=True)
    images, texts = json.loads(done.stdout)
    np.testing.assert_allclose(embedder.embed_prepared(jpegs(5)), np.array(images), atol=1e-7)
    np.testing.assert_allclose(embedder.embed_texts(["a red car", "rain"]), np.array(texts), atol=1e-7)


def test_a_picture_and_a_text_meet(embedder: NomicAPIEmbedder) -> None:
    """Pictures and texts share the space: the red picture is nearest to the word red."""
    colours = {"red": RED, "green": (30, 160, 50), "blue": (30, 60, 210)}
    files = [embedder.prepare(Image.new("RGB", (32, 32), colour)) for colour in colours.values()]
    scores = embedder.embed_texts([f"a {name} thing" for name in colours]) @ embedder.embed_prepared(files).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


# --- texts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, 11, 47])
def test_texts_go_ten_to_a_request_in_order(server: NomicServer, embedder: NomicAPIEmbedder, n: int) -> None:
    """n texts are ceil(n / 10) requests, and row i is the vector of text i."""
    texts = [f"query number {i}" for i in range(n)]
    vectors = embedder.embed_texts(texts)
    np.testing.assert_allclose(vectors, [server.text_vector(text) for text in texts], atol=1e-7)
    assert server.requests == -(-n // 10)
    assert server.texts == n


def test_texts_are_asked_for_as_queries(server: NomicServer, embedder: NomicAPIEmbedder) -> None:
    """The request names the text model, the task ``search_query`` and the whole dimension."""
    embedder.embed_texts(["a"])
    assert server.last_request is not None
    assert server.last_request.json() == {
        "texts": ["a"],
        "model": "nomic-embed-text-v1.5",
        "task_type": "search_query",
        "dimensionality": None,
        "long_text_mode": "truncate",
    }


def test_a_string_is_no_list_of_texts(embedder: NomicAPIEmbedder) -> None:
    """One text in place of a list is refused, and not taken for a list of letters."""
    with pytest.raises(QueryError, match="list of texts"):
        embedder.embed_texts("red")
    with pytest.raises(QueryError, match="list of texts"):
        embedder.embed_texts(["red", 3])  # type: ignore[list-item]


def test_a_refused_text_is_a_query_error(server: NomicServer, embedder: NomicAPIEmbedder) -> None:
    """A text that the service refuses is named, and no image error."""
    server.faults.script([Fault("html-413")])
    with pytest.raises(QueryError, match="too long"):
        embedder.embed_texts(["too long"])


# --- what goes wrong ------------------------------------------------------------------------------------------

PASSING = [
    "429",
    "500",
    "503",
    "text-500",
    "html-200",
    "html-502",
    "html-504",
    "slow",
    "slow-upload",
    "drip",
    "dropped",
    "reset",
    "wrong-count",
    "wrong-model",
    "nan",
    "extra-vector",
    "wrong-dim",
    "duplicate-vectors",
    "redirect-307",
    "redirect-308",
    "hung",
]


@pytest.mark.parametrize("kind", PASSING)
def test_it_gets_over_every_passing_fault(server: NomicServer, kind: str) -> None:
    """After two faults of a kind the batch is embedded all the same, in order, for pictures and for texts."""
    embedder = NomicAPIEmbedder(retries=QUICK, timeouts=Timeouts(read=0.5 if kind == "hung" else 60))
    prepared, texts = jpegs(7), ["one red", "two"]
    server.faults.script([kind, kind])
    np.testing.assert_allclose(embedder.embed_prepared(prepared), expected(server, prepared), atol=1e-7)
    server.faults.script([kind, kind])
    np.testing.assert_allclose(embedder.embed_texts(texts), [server.text_vector(text) for text in texts], atol=1e-7)
    assert set(server.image_counts.values()) == {1}
    harmless = kind in ("slow", "slow-upload", "drip")
    assert server.requests == (2 if harmless else 6)


@pytest.mark.parametrize("kind", ["500", "503", "text-500", "html-502", "reset", "hung"])
def test_it_gives_up_in_the_end(server: NomicServer, kind: str) -> None:
    """A service that goes on failing is an error that says how often it was asked, after the attempts allowed."""
    embedder = NomicAPIEmbedder(retries=Retries(4, 0.001, 0.005), timeouts=Timeouts(read=0.1))
    server.faults.script([kind] * 9)
    with pytest.raises(ServiceError, match="given up after 4 requests"):
        embedder.embed_prepared(jpegs(2))
    assert server.requests == 4


@pytest.mark.parametrize("kind", ["html-200", *OF_VECTORS])
def test_paid_nonsense_is_asked_for_three_times(server: NomicServer, embedder: NomicAPIEmbedder, kind: str) -> None:
    """Answers that cannot be used, and may have been charged for, are given up after three."""
    server.faults.script([kind] * 9)
    with pytest.raises(ServiceError, match="given up after 3 requests"):
        embedder.embed_prepared(jpegs(2))
    assert server.requests == 3
    assert server.images == 0


SPOILT = ("html-200", *OF_VECTORS)


@pytest.mark.parametrize(
    ("kinds", "threads"),
    [
        # One after the other, the seed alone decides which request meets what: no batch is spoilt three times.
        ([kind for kind in PASSING if kind != "hung"], 1),
        # With threads the order is chance, and chance may spoil a batch three times, which is given up by design.
        ([kind for kind in PASSING if kind not in ("hung", *SPOILT)], 4),
    ],
)
def test_random_faults_lose_nothing(server: NomicServer, kinds: list[str], threads: int) -> None:
    """With faults on 30 % of the requests each picture is embedded and aligned, and delivered once."""
    retries = Retries(attempts=30, first_wait=0.001, longest_wait=0.005)  # so many failures in a row never come
    embedder = NomicAPIEmbedder(retries=retries)
    server.faults.random(0.3, seed=5, kinds=kinds)
    prepared = jpegs(640)
    batches = [prepared[i : i + 16] for i in range(0, len(prepared), 16)]
    with ThreadPoolExecutor(threads) as pool:
        vectors = np.concatenate(list(pool.map(embedder.embed_prepared, batches)))
    np.testing.assert_allclose(vectors, expected(server, prepared), atol=1e-7)
    assert server.image_counts == {server.content_of(file): 1 for file in prepared}
    assert server.counts.requests > len(batches)


def test_a_hung_server_ends_in_an_error_within_the_timeout(server: NomicServer) -> None:
    """A server that takes requests and never answers, from the first on, is an error and no endless wait."""
    embedder = NomicAPIEmbedder(retries=Retries(2, 0.001, 0.005), timeouts=Timeouts(read=0.1))
    server.faults.script(["hung"] * 9, path="/")
    with pytest.raises(ServiceError, match="no answer within"):
        embedder.embed_prepared(jpegs(1))


def test_patience_ends_before_the_attempts_do(server: NomicServer) -> None:
    """When the patience is spent no further attempt is made, however many are left."""
    embedder = NomicAPIEmbedder(retries=Retries(1000, 0.001, 0.005, patience=0.2), timeouts=Timeouts(read=0.15))
    server.faults.script(["hung"] * 1000)
    with pytest.raises(ServiceError, match=r"given up after [1-9] requests"):
        embedder.embed_prepared(jpegs(1))


def test_an_answer_that_drips_ends_within_the_total(server: NomicServer) -> None:
    """A server that sends a little now and then, never pausing for the read timeout, is held to the total."""
    embedder = NomicAPIEmbedder(retries=Retries(1), timeouts=Timeouts(read=5, total=0.3))
    server.faults.script([Fault("drip", seconds=3)])
    with pytest.raises(ServiceError, match="no answer within"):
        embedder.embed_prepared(jpegs(1))


def test_a_slow_line_may_take_longer_than_the_connect_timeout(server: NomicServer) -> None:
    """A large upload is sent in pieces, so it may take longer in all than one of them may."""
    embedder = NomicAPIEmbedder(retries=Retries(1), timeouts=Timeouts(connect=0.8, read=5))
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    prepared = [embedder.prepare(Image.fromarray(np.roll(noise, i, axis=1))) for i in range(30)]
    assert sum(map(len, prepared)) > 12_000_000, "more than the sockets' buffers hold"
    server.faults.script([Fault("slow-upload", seconds=1.6)])
    assert embedder.embed_prepared(prepared).shape == (30, 768)


def test_an_upload_that_crawls_ends_within_the_total(server: NomicServer) -> None:
    """A server that takes the request ever so slowly is held to the total."""
    embedder = NomicAPIEmbedder(retries=Retries(1), timeouts=Timeouts(connect=5, read=5, total=0.3))
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    prepared = [embedder.prepare(Image.fromarray(noise))] * 30
    server.faults.script([Fault("slow-upload", seconds=2)])
    with pytest.raises(ServiceError, match="could not be sent in time"):
        embedder.embed_prepared(prepared)


def test_each_failure_is_a_line_that_says_why(
    server: NomicServer, embedder: NomicAPIEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason, which attempt of how many it was and how long the wait is stand on one line."""
    server.faults.script(["500", "reset"])
    embedder.embed_prepared(jpegs(2))
    reasons = (r"Nomic's service answered 500: .*", r"127\.0\.0\.1:\d+: the connection failed \([^()]+\)")
    for number, (record, why) in enumerate(zip(caplog.records, reasons, strict=True), 1):
        line = rf"embedding 2 pictures: attempt {number} of 6: {why}; again in 0\.0 s"
        assert re.fullmatch(line, record.getMessage())


def test_without_a_network_adding_ends_at_once(pictures: Path, tmp_path: Path) -> None:
    """A name that cannot be looked up is one line, with no attempt after the first, and leaves no store behind."""
    nowhere = {"ATLAS_API_PATH": "https://no-such-host.invalid", "NOMIC_API_KEY": "nk-x", "EMBEDSTORE_OFFLINE": "0"}
    done = run_process("add", tmp_path / "n.store", pictures, "--model", "nomic", "-q", **nowhere)
    assert done.returncode == 1
    assert re.fullmatch(r"error: no-such-host\.invalid: this name cannot be looked up \(.*\n", done.stderr)
    assert not (tmp_path / "n.store").exists()


def test_a_network_that_goes_away_is_waited_for(server: NomicServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a request has got through, a name that cannot be looked up may pass; before, nothing will."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    key = find_key()
    assert key is not None
    transport = Transport(key, Timeouts(), "a test")
    with pytest.raises(NoSuchHostError, match="cannot be looked up"):
        transport.get("https://no-such-host.invalid")
    transport.get(server.url)
    with pytest.raises(NoAnswerError, match="the connection failed"):
        transport.get("https://no-such-host.invalid")


def test_no_server_at_all_is_a_service_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A port where nobody listens is retried, and then an error that names it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("ATLAS_API_PATH", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("EMBEDSTORE_STATE_DIR", str(tmp_path))
    embedder = NomicAPIEmbedder(key="nk-x", retries=Retries(3, 0.001, 0.002))
    with pytest.raises(ServiceError, match=f"^127.0.0.1:{port}: the connection failed.*given up after 3 requests"):
        embedder.embed_prepared(jpegs(1))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_poison_picture_is_refused_at_once(server: NomicServer, embedder: NomicAPIEmbedder, status: int) -> None:
    """A batch with a picture that is refused for good is no matter for retries, and halving it finds the picture."""
    server.faults.refuse(lambda pixels: bool((pixels[0, 0] > 240).all()), status=status)
    prepared = jpegs(15)
    prepared.insert(11, embedder.prepare(Image.new("RGB", (24, 16), (255, 255, 255))))

    messages: list[str] = []

    def bisect(low: int, high: int) -> list[int]:
        try:
            embedder.embed_prepared(prepared[low:high])
        except RejectedImagesError as error:
            messages.append(str(error))
            middle = (low + high) // 2
            return [low] if high - low == 1 else bisect(low, middle) + bisect(middle, high)
        return []

    assert bisect(0, 16) == [11]
    assert all(f"answered {status}" in message for message in messages)
    assert server.requests == 9
    assert server.images == 15


def test_bytes_that_are_no_picture_are_refused(embedder: NomicAPIEmbedder) -> None:
    """What the service cannot decode is a rejected batch."""
    with pytest.raises(RejectedImagesError, match="Invalid image"):
        embedder.embed_prepared([b"no picture"])


def test_a_wrong_parameter_is_not_blamed_on_the_pictures(
    server: NomicServer, embedder: NomicAPIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 422 about the model's name is the service's error: halving the batch would only cost requests."""
    monkeypatch.setattr(embedder, "_image_model", "nomic-embed-vision-v7")
    with pytest.raises(ServiceError, match="not a valid enumeration member"):
        embedder.embed_prepared(jpegs(4))
    assert server.requests == 1


def test_a_wrong_address_is_said_to_be_one(
    server: NomicServer, embedder: NomicAPIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 is not retried, and the message names the variable with the address."""
    monkeypatch.setenv("ATLAS_API_PATH", server.url + "/elsewhere")
    with pytest.raises(ServiceError, match=r"404.*ATLAS_API_PATH \(http.*elsewhere\)"):
        embedder.embed_prepared(jpegs(1))
    assert server.counts.routes.total() == 1


# --- the rate limit and the budget ----------------------------------------------------------------------------


def test_retry_after_holds_back_everything(server: NomicServer, tmp_path: Path) -> None:
    """After a 429 with Retry-After no request leaves, of this or another embedder, before that time."""
    slept: list[float] = []
    now = [1000.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    limiter = RateLimiter(100, 300.0, tmp_path / "times.json", clock=lambda: now[0], sleep=sleep)
    embedder = NomicAPIEmbedder(retries=QUICK, limiter=limiter)
    server.faults.script([Fault("429", retry_after=17), None, Fault("503", retry_after=5)])
    embedder.embed_prepared(jpegs(1))
    NomicAPIEmbedder(retries=QUICK, limiter=limiter).embed_prepared(jpegs(1))
    assert slept == [8, 8, pytest.approx(1), pytest.approx(5)]


def test_waiting_as_asked_costs_no_patience(server: NomicServer, tmp_path: Path) -> None:
    """Time spent waiting for the rate limit is not time spent on failing."""
    limiter = RateLimiter(100, 300.0, tmp_path / "times.json")
    embedder = NomicAPIEmbedder(retries=Retries(6, 0.001, 0.002, patience=1.2), limiter=limiter)
    server.faults.script([Fault("429", retry_after=0.5)] * 3)
    assert embedder.embed_prepared(jpegs(1)).shape == (1, 768)


def test_a_retry_after_of_hours_is_an_error(server: NomicServer, embedder: NomicAPIEmbedder) -> None:
    """Nobody waits for two hours without a word."""
    server.faults.script([Fault("429", retry_after=7200)])
    with pytest.raises(ServiceError, match=r"wait 2\.0 hours"):
        embedder.embed_prepared(jpegs(1))


def test_the_limit_keeps_the_service_from_refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a limit no looser than the server's no request is ever refused, and all get through in the end."""
    with NomicServer(rate_limit=(5, 0.1)) as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        limiter = RateLimiter(5, 0.6, tmp_path / "times.json")
        embedder = NomicAPIEmbedder(retries=Retries(1), limiter=limiter)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: embedder.embed_prepared(jpegs(1, i)), range(12)))
        assert server.counts.statuses == {200: 13}


def test_two_processes_share_the_limit(server: NomicServer, tmp_path: Path) -> None:
    """Two processes of the same user write to one file of times, by the address of the service."""
    script = (
        "from embedstore.embedders.nomic_api import NomicAPIEmbedder\n"
        "embedder = NomicAPIEmbedder()\n"
        "for i in range(5): embedder.embed_texts([f'text {i}'])"
    )
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    files = sorted((tmp_path / "home" / "state").glob("*.json"))
    assert len(files) == 1
    assert len(json.loads(files[0].read_text())["times"]) == server.requests == 10


def test_the_default_limit_is_the_services(server: NomicServer) -> None:
    """Without another, the limit is 1,200 requests in five minutes, and never less than those five."""
    embedder = NomicAPIEmbedder()
    limiter = embedder._client.value.limiter
    assert limiter.limit == 1200
    assert 300 <= limiter.window <= 305


def test_a_budget_stops_cleanly(server: NomicServer) -> None:
    """With a budget of three requests the fourth is an error that says what to do, and nothing was sent for it;
    failures count."""
    embedder = NomicAPIEmbedder(retries=QUICK, max_requests=3)
    server.faults.script([None, "500"])
    embedder.embed_prepared(jpegs(2))
    embedder.embed_prepared(jpegs(2, 2))
    with pytest.raises(BudgetSpentError, match="budget of 3 requests is spent"):
        embedder.embed_prepared(jpegs(2, 4))
    assert server.requests == embedder.requests_sent == 3


# --- the key and the network ----------------------------------------------------------------------------------


def test_without_a_key_the_three_places_are_named(
    server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is an error when the first picture comes, before anything is sent; making the embedder is none."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    embedder = NomicAPIEmbedder()
    with pytest.raises(CredentialsError, match=r"key=.*NOMIC_API_KEY.*credentials"):
        embedder.embed_prepared(jpegs(1))
    assert server.counts.routes.total() == 0


def test_a_refused_key_is_named_by_its_source_only(server: NomicServer) -> None:
    """A key that the service refuses is not retried; the error says where it is from and never what it is, though
    the server repeats it."""
    embedder = NomicAPIEmbedder(key="nk-very-secret-123", retries=QUICK)
    with pytest.raises(CredentialsError, match="from the argument `key` was refused") as caught:
        embedder.embed_prepared(jpegs(1))
    assert "[key]" in str(caught.value), "the server did repeat it"
    error: BaseException | None = caught.value
    while error is not None:
        assert "nk-very-secret-123" not in f"{error!s}{error!r}{error.args}"
        error = error.__cause__ or error.__context__
    assert server.counts.routes.total() == 1


def test_the_variable_alone_is_enough(server: NomicServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key in the environment alone, which the client itself does not read, no file is needed or made."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("NOMIC_API_KEY", server.key)
    NomicAPIEmbedder().embed_texts(["a"])
    assert not (tmp_path / "nobody").exists()


def test_two_keys_in_one_process(server: NomicServer, tmp_path: Path) -> None:
    """Two embedders with different keys do not disturb each other, nor the client's own state."""
    from nomic import embed

    with NomicServer(key="nk-another-key") as second:
        before = dict(vars(embed))
        one = NomicAPIEmbedder(retries=QUICK)
        one.embed_texts(["a"])
        os.environ["ATLAS_API_PATH"] = second.url
        other = NomicAPIEmbedder(key="nk-another-key", retries=QUICK)
        other.embed_texts(["b"])
        one.embed_texts(["c"])
        assert (server.texts, second.texts) == (2, 1)
        assert dict(vars(embed)) == before


def test_the_key_is_in_no_file_and_no_log(
    server: NomicServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """After successes and failures of every kind the key stands in no file under the home and state folders but
    the client's own, in no log record and on no screen."""
    caplog.set_level(logging.DEBUG)
    embedder = NomicAPIEmbedder(retries=QUICK, timeouts=Timeouts(read=0.2))
    errors: list[str] = []
    for kind in [*PASSING, "html-413"]:
        server.faults.script([kind] * 6)
        for embed in (lambda: embedder.embed_prepared(jpegs(1)), lambda: embedder.embed_texts(["a"])):
            try:
                embed()
            except (ServiceError, RejectedImagesError, QueryError) as error:
                errors.append(f"{error!s}{error!r}")
        server.faults.clear()
    assert len(errors) > 10
    assert server.key not in "".join(errors)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in written if server.key.encode() in path.read_bytes()] == ["credentials"]
    assert any("state" in path.parts for path in written)
    captured = capfd.readouterr()
    assert server.key not in caplog.text + captured.out + captured.err
    assert server.key not in repr(vars(embedder)) + repr(vars(embedder._client.value))


def test_offline_names_what_wanted_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the network switched off nothing is sent, and the error says what wanted it, without any retry."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    monkeypatch.setenv("ATLAS_API_PATH", "https://api.example.com")
    monkeypatch.setenv("EMBEDSTORE_STATE_DIR", str(tmp_path))
    embedder = NomicAPIEmbedder(key="nk-x")
    monkeypatch.setattr(socket, "getaddrinfo", _no_lookup)
    for embed in (lambda: embedder.embed_prepared(jpegs(1)), lambda: embedder.embed_texts(["a"])):
        with pytest.raises(OfflineError, match="embedding with Nomic's service"):
            embed()


def _no_lookup(*arguments: object) -> None:
    raise AssertionError(f"looked up {arguments}")


def test_offline_leaves_this_machine_reachable(
    server: NomicServer, embedder: NomicAPIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in on this machine is not the network, and no proxy comes between."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert embedder.embed_texts(["a"]).shape == (1, 768)


def test_a_netrc_file_does_not_replace_the_key(
    server: NomicServer, embedder: NomicAPIEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password for the host in ``~/.netrc`` is not sent in the key's place, as `requests` would do."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    embedder.embed_texts(["a"])
    assert server.counts.statuses == {200: 2}


def test_a_client_without_the_functions_is_named(
    server: NomicServer, embedder: NomicAPIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of the client that lacks what is used here is an error with the command that mends it."""
    from nomic import embed

    monkeypatch.delattr(embed, "image_api_request")
    with pytest.raises(MissingDependencyError, match=r"pip install 'nomic>=3\.9,<4'"):
        embedder.embed_prepared(jpegs(1))


def test_importing_the_module_loads_no_client() -> None:
    """The client, and `requests`, are loaded when something is sent, and not before."""
    script = (
        "import sys; from embedstore.embedders.nomic_api import NomicAPIEmbedder; NomicAPIEmbedder()\n"
        "assert not {'nomic', 'requests', 'pandas', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_traceback_that_shows_local_names_shows_no_key(server: NomicServer) -> None:
    """As services that collect errors take them along."""
    embedder = NomicAPIEmbedder(key="nk-" + "wrong-secret")
    try:
        embedder.embed_texts(["dog"])
    except CredentialsError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "the key from" in shown
    assert "wrong-secret" not in shown
