"""The layer around every remote embedder: what is asked again, what is believed, what is said, and when it ends."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.embedders import batches, waits
from embedstore.embedders.nomic_api import NomicAPIEmbedder
from embedstore.embedders.rate_limit import RateLimiter
from embedstore.embedders.remote import FIRST_PATIENCE, PERSON_WAITS, RemoteEmbedder, Retries
from embedstore.embedders.transport import Answer, PassingError, Timeouts, Transport, require_good
from embedstore.errors import (
    CredentialsError,
    OfflineError,
    PlanLimitError,
    RejectedImagesError,
    ServiceError,
)
from embedstore.settings import Key
from embedstore.space import Space
from embedstore.testing import Fault, NomicServer
from embedstore.testing.wire import Reply, Request, Service

QUICK = Retries(attempts=6, first_wait=0.001, longest_wait=0.005)
KEY = Key("nk-secret-1", "a test")


class Scripted(RemoteEmbedder):
    """Answers with what a test has written down: vectors, or an error to raise."""

    space = Space("scripted", "a-service", "float32", "none", dim=3)
    service = "The service"

    def __init__(self, *answers: Any, limiter: RateLimiter | None = None, **options: Any) -> None:
        super().__init__(**{"retries": QUICK, **options})
        self.answers, self._limiter = list(answers), limiter

    def prepare(self, image: Image.Image) -> bytes:
        return image.tobytes()

    def send_pictures(self, prepared: Sequence[bytes]) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def send_texts(self, texts: Sequence[str]) -> Any:
        return self.send_pictures([])

    def limiter(self) -> RateLimiter | None:
        return self._limiter


def rows(*vectors: Sequence[float]) -> list[list[float]]:
    return [list(vector) for vector in vectors]


X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)


# --- what is believed -----------------------------------------------------------------------------------------


def test_one_vector_for_different_pictures_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked for again, counted and said; the good answer is taken."""
    embedder = Scripted(rows(X, X, Y), rows(X, Y, Z))
    assert embedder.embed_prepared([b"a", b"b", b"c"]).tolist() == rows(X, Y, Z)
    assert (embedder.requests_sent, embedder.wrong_answers) == (2, 1)
    assert "attempt 1 of 6: 1 of 3 vectors is that of another, different input" in caplog.text


def test_one_vector_for_different_pictures_is_seen_across_requests() -> None:
    """A service that answers everything with one vector is found out at the second request, also of one picture."""
    embedder = Scripted(rows(X), rows(X), rows(X), rows(X))
    embedder.embed_prepared([b"a"])
    with pytest.raises(ServiceError, match="different input: embedding 1 picture was given up after 3 requests"):
        embedder.embed_prepared([b"b"])
    assert embedder.wrong_answers == 3


def test_equal_pictures_may_have_one_vector() -> None:
    """The same picture twice in a request, and again in the next, is no fault."""
    embedder = Scripted(rows(X, X), rows(X))
    embedder.embed_prepared([b"a", b"a"])
    embedder.embed_prepared([b"a"])
    assert embedder.wrong_answers == 0


def test_what_is_remembered_of_pictures_is_bounded() -> None:
    """The newest 4 MB of pictures, whatever their number."""
    embedder = Scripted(*(rows((np.cos(i), np.sin(i), 0)) for i in range(40)))
    for number in range(40):
        embedder.embed_prepared([bytes([number]) * 500_000])
    assert sum(map(len, embedder._newest.values())) <= 4 << 20
    assert len(embedder._newest) == 8


def test_blank_pages_of_two_sizes_may_have_one_vector(server: NomicServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model sees both squashed to one size and alike; pictures that it can tell apart may not share a vector."""
    embedder = NomicAPIEmbedder(retries=QUICK)
    small, large = (embedder.prepare(Image.new("RGB", size, (250, 250, 250))) for size in ((40, 40), (400, 300)))
    assert small != large
    assert embedder.is_same_picture(small, large)
    striped = Image.new("RGB", (400, 300), (250, 250, 250))
    striped.paste((0, 0, 0), (0, 0, 400, 20))
    assert not embedder.is_same_picture(large, embedder.prepare(striped))


def test_texts_that_a_model_may_read_alike_may_have_one_vector() -> None:
    """Case, accents and signs are no different texts to a model; other letters are."""
    embedder = Scripted(rows(X, X, X), rows(Y, Y), rows(Y, Z))
    embedder.embed_texts(["a café!", "A Café", "a cafe ?"])
    assert embedder.wrong_answers == 0
    embedder.embed_texts(["a dog", "a cat"])
    assert embedder.wrong_answers == 1


@pytest.mark.parametrize("kind", ["extra-vector", "wrong-dim", "duplicate-vectors"])
def test_the_stand_in_tells_each_wrong_answer(server: NomicServer, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each is refused with its own words, the pictures are paid for once more, and the right vectors are stored."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    embedder = NomicAPIEmbedder(retries=QUICK)
    prepared = [embedder.prepare(Image.fromarray(pixels)) for pixels in noise]
    server.faults.script([kind])
    vectors = embedder.embed_prepared(prepared)
    np.testing.assert_allclose(vectors, [server.image_vector(file) for file in prepared], atol=1e-7)
    assert (embedder.wrong_answers, server.counts.spoilt.total(), server.images) == (1, 3, 3)
    words = {
        "extra-vector": "expected 3 vectors, one for each input; found 4",
        "wrong-dim": r"(n, 768)",
        "duplicate-vectors": "1 of 3 vectors is that of another, different input",
    }
    assert words[kind] in caplog.text


# --- when it ends ---------------------------------------------------------------------------------------------


class Time:
    """A clock that only sleeping moves, in the place of the module."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr("embedstore.embedders.remote.time", fake)
    monkeypatch.setattr("embedstore.embedders.waits.time", fake)
    return fake


def timed(embedder: Scripted, clock: Time) -> Scripted:
    embedder.notices._clock = clock.monotonic
    return embedder


def test_a_dead_service_is_given_up_soon(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    """One that has never answered well: a few lines and seconds, the reason first in each; it was 154 s and nine."""
    embedder = timed(Scripted(*[PassingError("no route")] * 20, retries=Retries()), clock)
    with pytest.raises(
        ServiceError, match=r"^no route: embedding 1 picture was given up after [345] requests and \d+ s"
    ):
        embedder.embed_prepared([b"a"])
    assert clock.slept <= FIRST_PATIENCE
    assert 2 <= len(caplog.records) <= 4


def test_a_first_request_that_hangs_is_made_again(clock: Time) -> None:
    """However long that took: one that hangs says nothing of the next."""

    class Hangs(Scripted):
        def send_pictures(self, prepared: Sequence[bytes]) -> Any:
            clock.now += 60.0 * (len(self.answers) == 2)
            return super().send_pictures(prepared)

    embedder = timed(Hangs(PassingError("no answer within 60 s"), rows(X), retries=Retries()), clock)
    assert embedder.embed_prepared([b"a"]).tolist() == rows(X)


def test_a_service_that_has_answered_is_waited_for(clock: Time) -> None:
    """The work of hours is not thrown away for half a minute's fault."""
    embedder = timed(Scripted(rows(X), *[PassingError("no route")] * 7, rows(Y), retries=Retries()), clock)
    embedder.embed_prepared([b"a"])
    assert embedder.embed_prepared([b"b"]).tolist() == rows(Y)
    assert clock.slept > 60


def test_the_patience_counts_the_wait_that_would_follow(clock: Time) -> None:
    """No wait is begun that would end after the patience."""
    embedder = timed(Scripted(rows(X), *[PassingError("no")] * 20, retries=Retries(patience=20)), clock)
    embedder.embed_prepared([b"a"])
    with pytest.raises(ServiceError, match="given up"):
        embedder.embed_prepared([b"b"])
    assert clock.slept <= 20


def test_a_text_waits_as_long_as_a_person_does(clock: Time) -> None:
    """However patient the embedder is with pictures."""
    embedder = timed(Scripted(rows(X), *[PassingError("no")] * 20, retries=Retries(100)), clock)
    embedder.embed_texts(["a"])
    with pytest.raises(ServiceError, match="given up"):
        embedder.embed_texts(["b"])
    assert clock.slept <= PERSON_WAITS


def test_long_waits_are_said_all_along(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    """A pause of a service without a limiter is slept through with a line every few seconds, and costs no patience."""
    paused = PassingError("busy", pause=40.0)
    embedder = timed(Scripted(paused, rows(X), retries=Retries(patience=5)), clock)
    embedder.embed_prepared([b"a"])
    assert clock.slept == pytest.approx(40)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "embedding 1 picture: attempt 1 of 10: busy; again in 40.0 s"
    assert [line.split()[1] for line in lines[1:]] == ["32", "24", "16", "8"]


def test_an_answer_that_is_long_in_coming_is_said(
    server: NomicServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all that wait for the service, and again while they do; a quick answer is not worth a line."""
    monkeypatch.setattr(waits, "SAY_EVERY", 1.0)
    embedder = NomicAPIEmbedder(retries=QUICK)
    embedder.embed_texts(["a"])
    assert caplog.text == ""
    server.faults.script([Fault("slow", seconds=2.4)] * 2)
    embedder.embed_texts([f"text {number}" for number in range(20)])
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 3
    assert all(re.fullmatch(r"waiting for an answer of Nomic's service, \d s so far", line) for line in lines)


@pytest.mark.parametrize("limited", [True, False])
def test_a_pause_longer_than_allowed_ends_it(tmp_path: Path, limited: bool) -> None:
    """At once, with the reason, and what was asked; with a limiter, later requests know of it too."""
    limiter = RateLimiter(100, 10.0, tmp_path / "times.json") if limited else None
    options: Any = {"retries": Retries(longest_pause=20), "limiter": limiter}
    started = time.monotonic()
    with pytest.raises(ServiceError, match=r"^busy: .* given up after 1 request and 0 s, as it asks to wait 300 s"):
        Scripted(PassingError("busy", pause=300.0), **options).embed_prepared([b"a"])
    if limited:
        with pytest.raises(ServiceError, match=r"^busy; it asks to wait: (300|299) s are left"):
            Scripted(rows(X), **options).embed_prepared([b"a"])
    assert time.monotonic() - started < 2


def test_threads_that_fail_alike_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same reason is one line while the wait that it names goes on."""
    embedder = Scripted(rows(X), retries=Retries(first_wait=0.2))
    error = PassingError("no route")
    for number in range(4):
        embedder.notices.say(str(error), f"attempt {number}", 5.0)
    assert [record.getMessage() for record in caplog.records] == ["attempt 0"]


# --- what an answer's status means ----------------------------------------------------------------------------


def answer(status: int, body: str = "{}", **headers: str) -> Answer:
    return Answer(status, headers, body.encode())


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (402, "{}", PlanLimitError, "is good, but a payment is due"),
        (403, '{"detail": "Your plan has no tokens left"}', PlanLimitError, "its plan does not allow this"),
        (403, '{"detail": "Monthly quota exceeded"}', PlanLimitError, "its plan does not allow this"),
        (403, '{"detail": "You exceed your organization limit"}', PlanLimitError, "its plan does not allow this"),
        (403, '{"detail": "You do not have access"}', CredentialsError, "was refused"),
        (403, '{"detail": "an explanation planted in a plane"}', CredentialsError, "was refused"),
        (401, '{"detail": "plan"}', CredentialsError, "was refused"),
        (400, "{}", RejectedImagesError, "answered 400"),
        (503, "{}", PassingError, "answered 503"),
        (404, "{}", ServiceError, "answered 404"),
    ],
)
def test_a_status_says_what_it_means(status: int, body: str, error: type[Exception], words: str) -> None:
    """A plan at its end is told from a key that is refused; the key's place is named, and the key is not."""
    with pytest.raises(error, match=words) as caught:
        require_good(answer(status, body), KEY, "The service")
    assert type(caught.value) is error
    assert "nk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("402", PlanLimitError, r"the key from ~/.nomic/credentials is good, but a payment is due.*answered 402"),
        ("plan-403", PlanLimitError, r"is good, but its plan does not allow this.*upgrade to go on"),
        ("403", CredentialsError, r"the key from ~/.nomic/credentials was refused.*answered 403"),
    ],
)
def test_a_plan_that_ends_in_the_middle(
    server: NomicServer, tmp_path: Path, pictures: Path, kind: Any, error: type[Exception], words: str
) -> None:
    """What was paid for before is stored, nothing is tried again, and the next run goes on from there."""
    from embedstore.store import EmbedStore

    server.faults.script([None, kind])
    store = EmbedStore.create(tmp_path / "plan.store", model="nomic")
    with pytest.raises(error, match=words) as caught:
        store.add(pictures, batch_size=4, workers=1)
    assert "4 images were embedded and are stored" in str(caught.value.__notes__)
    assert server.requests == 2
    assert store.add(pictures).embedded == 8
    assert set(server.image_counts.values()) == {1}


# --- redirects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redirect-307", "redirect-308"])
def test_a_redirect_sends_the_body_again(server: NomicServer, kind: Any) -> None:
    """The second place gets the whole body, not what is left of it after the first."""
    embedder = NomicAPIEmbedder(retries=Retries(1), timeouts=Timeouts(read=2))
    file = embedder.prepare(Image.new("RGB", (30, 30), (200, 10, 10)))
    server.faults.script([kind])
    np.testing.assert_allclose(embedder.embed_prepared([file])[0], server.image_vector(file), atol=1e-7)
    assert (server.counts.statuses[int(kind[-3:])], server.images) == (1, 1)


class Elsewhere(Service):
    """A server that sends on to another, or shows what it got."""

    def __init__(self, target: str = "") -> None:
        super().__init__(0.0)
        self.target, self.got = target, list[Request]()

    def _answer(self, request: Request) -> Reply:
        self.got.append(request)
        return Reply({}, 307, {"Location": self.target}) if self.target else Reply({})

    def _count(self, request: Request, reply: Reply) -> None: ...

    def _settle(self, reply: Reply, delivered: bool) -> None: ...


def test_the_key_goes_to_no_other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another host takes the body along and not the key, nor a password of a netrc file."""
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Elsewhere() as second, Elsewhere(second.url.replace("127.0.0.1", "localhost") + "/v1") as first:
        Transport(KEY, Timeouts(), "a test").post(first.url + "/v1", data=b"body")
    assert first.got[0].headers["Authorization"] == "Bearer nk-secret-1"
    assert second.got[0].body == b"body"
    assert second.got[0].headers["Authorization"] is None


def test_a_redirect_to_the_network_is_refused_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """From this machine too."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    with Elsewhere("https://api.example.com/") as server, pytest.raises(OfflineError, match="a test"):
        Transport(KEY, Timeouts(), "a test").get(server.url)


def test_retry_after_as_a_date_holds_back(server: NomicServer, tmp_path: Path) -> None:
    """A date a little ahead is waited for; the moment is the server's."""
    limiter = RateLimiter(100, 300.0, tmp_path / "times.json")
    embedder = NomicAPIEmbedder(retries=QUICK, limiter=limiter)
    server.faults.script([Fault("429", retry_after=2.5, as_date=True)])
    started = time.monotonic()
    embedder.embed_texts(["a"])
    assert 1.0 < time.monotonic() - started < 4.0
    assert format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True).endswith("GMT")


def alone(request: pytest.FixtureRequest) -> bool:
    """Tell whether this process runs this test alone; where not, run it in one that does, and hold it to pass there.

    Ctrl-C is for a process as people start it: in one where thousands of tests have left threads and libraries, the
    thread that waits is woken late.
    """
    if "RUNS_ALONE" in os.environ:
        return True
    words = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-W", "ignore"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    child = subprocess.run(
        [*words, request.node.nodeid],
        cwd=request.config.rootpath,
        env={**env, "RUNS_ALONE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return False


def interrupted(work: Callable[[], object]) -> float:
    """Return the seconds after which `work` ended that was interrupted by the keyboard after half a second."""
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work()
    return time.monotonic() - began - 0.5


@pytest.mark.parametrize("waits_for", ["limit", "retry"])
@pytest.mark.parametrize("what", ["pictures", "texts"])
def test_an_interrupt_ends_a_wait_at_once(
    request: pytest.FixtureRequest, tmp_path: Path, what: str, waits_for: str
) -> None:
    """Nobody waits for an hour after Ctrl-C, and nothing is sent after it, whichever thread waits and for what."""
    if not alone(request):
        return
    limited, embedder = None, Scripted(*[PassingError("busy")] * 9, retries=Retries(first_wait=20, longest_wait=20))
    if waits_for == "limit":
        limited = RateLimiter(9, 9.0, tmp_path / "times.json")
        limited.block(50.0)
        embedder = Scripted(*[rows(X, Y)] * 9, retries=Retries(), limiter=limited)
    calls: dict[str, Callable[[], object]] = {
        "pictures": lambda: batches.embed(
            [(name, name.encode()) for name in "abcdef"], lambda: embedder, lambda outcomes: None, batch_size=2
        ),
        "texts": lambda: embedder.embed_texts([str(number) for number in range(25)]),
    }
    assert interrupted(calls[what]) < 5
    assert embedder.requests_sent == (0 if waits_for == "limit" else 3)


def test_an_answer_on_its_way_is_waited_for_after_an_interrupt(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been paid for: it is kept, and that it is waited for is said."""
    if not alone(request):
        return

    class Slow(Scripted):
        def send_pictures(self, prepared: Sequence[bytes]) -> Any:
            time.sleep(2.5)
            return rows(X, Y)

    embedder, kept = Slow(), []
    assert 1 < interrupted(lambda: batches.embed([("a", b"a"), ("b", b"b")], lambda: embedder, kept.extend)) < 5
    assert [key for key, _ in kept] == ["a", "b"]
    assert "are waited for" in caplog.text


def test_the_lines_have_a_logger_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """So that whoever wants none switches off that, and no other warning."""
    embedder = Scripted(PassingError("no"), rows(X))
    embedder.embed_prepared([io.BytesIO(b"a").getvalue()])
    assert {record.name for record in caplog.records} == {"embedstore.waits"}
    assert logging.getLogger("embedstore.waits").parent is not None
