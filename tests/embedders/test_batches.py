"""The one loop that embeds: what is sent, what is handed on, and what an error or an interrupt leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedstore.embedders import batches
from embedstore.embedders.batches import Batch, Outcome, embed, embed_texts
from embedstore.errors import BudgetSpentError, EmbedderError, RejectedImagesError, ServiceError
from embedstore.space import Space

PATIENCE = 20.0
"""Seconds after which something that was to happen meanwhile has not."""


class Numbers:
    """An embedder of whole numbers below 90: a picture is a number, its vector points so many degrees up.

    `meet` is called with each batch, on the thread of its call, before it is answered.
    """

    space = Space.given("numbers", 2)

    def __init__(
        self, batch_size: int = 4, workers: int = 2, meet: Callable[[list[int]], None] = lambda _: None
    ) -> None:
        self.batch_size, self.workers, self.meet = batch_size, workers, meet
        self.asked = self.under_way = self.most_under_way = 0
        self.calls: list[list[int]] = []
        self._lock = threading.Lock()

    def __call__(self) -> Numbers:
        """Return the embedder, as something that is called when there is something to embed."""
        self.asked += 1
        return self

    def prepare(self, image: Any) -> int:
        raise NotImplementedError

    def embed_prepared(self, prepared: Sequence[int]) -> NDArray[np.float32]:
        with self._lock:
            self.calls.append(list(prepared))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.meet(list(prepared))
        finally:
            with self._lock:
                self.under_way -= 1
        return vectors_of(prepared)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed_prepared([len(text) for text in texts])


class Kept(list[tuple[str, Outcome]]):
    """What was handed on, in the order in which it was; called with each batch."""

    def __call__(self, outcomes: list[tuple[str, Outcome]]) -> None:
        self.extend(outcomes)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self]

    def require(self, numbers: Sequence[int], refused: Sequence[int] = ()) -> None:
        """Fail unless each number was handed on once: with its own vector, or with the error if it is to blame."""
        assert sorted(self.keys) == sorted(map(str, numbers))
        for key, outcome in self:
            if int(key) in refused:
                assert isinstance(outcome, RejectedImagesError)
            else:
                np.testing.assert_array_equal(outcome, vectors_of([int(key)])[0])


def vectors_of(numbers: Sequence[int]) -> NDArray[np.float32]:
    angles = np.radians(np.array(numbers, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def items(numbers: Sequence[int]) -> list[tuple[str, int]]:
    return [(str(number), number) for number in numbers]


def wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def failing(*errors: Exception) -> Callable[[list[int]], None]:
    """Wait until so many calls are under way; then fail the one with number 0 by the first error, and so on.

    A call whose batch is beyond the errors is answered, after them.
    """
    meeting = threading.Barrier(max(2, len(errors)))

    def meet(batch: list[int]) -> None:
        meeting.wait(PATIENCE)
        place = batch[0] // len(batch)
        time.sleep(0.05 * place)
        if place < len(errors):
            raise errors[place]

    return meet


def refuse(*bad: int) -> Callable[[list[int]], None]:
    """Refuse every batch that holds one of these."""

    def meet(batch: list[int]) -> None:
        if set(bad) & set(batch):
            raise RejectedImagesError(f"{batch} is refused")

    return meet


# --- what is sent, and what is handed on ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 30])
def test_each_key_gets_its_own_vector_in_the_order_given(count: int) -> None:
    """With one call at a time the keys come back as they were given, each with the vector of its own picture."""
    kept, numbers = Kept(), list(range(count))[::-1]
    embed(items(numbers), Numbers(workers=1), kept)
    assert kept.keys == [str(number) for number in numbers]
    kept.require(numbers)


def test_an_order_is_kept_inside_a_batch_whichever_comes_back_first() -> None:
    """Of several batches under way the one that is answered first is handed on first, in its own order."""
    kept, later = Kept(), threading.Event()

    def meet(batch: list[int]) -> None:
        if 0 in batch:
            wait_for(later)

    def keep(outcomes: list[tuple[str, Outcome]]) -> None:
        kept(outcomes)
        later.set()

    embed(items(range(8)), Numbers(meet=meet), keep)
    assert kept.keys == [str(number) for number in (4, 5, 6, 7, 0, 1, 2, 3)]


@pytest.mark.parametrize(("workers", "batch_size"), [(None, None), (1, 5), (3, 2), (8, 1)])
def test_workers_and_batch_size(workers: int | None, batch_size: int | None) -> None:
    """Just so many calls are under way at once, with so many pictures each: as given, else as the embedder says."""
    together, at_once = workers or 2, batch_size or 4
    meeting = threading.Barrier(together)
    embedder = Numbers(meet=lambda _: meeting.wait(PATIENCE) and None)
    kept, numbers = Kept(), range(together * at_once * 2)
    embed(items(numbers), embedder, kept, workers=workers, batch_size=batch_size)
    assert embedder.most_under_way == together
    assert sorted(embedder.calls) == [list(numbers[at : at + at_once]) for at in numbers[::at_once]]
    kept.require(numbers)


def test_the_rest_is_a_smaller_batch() -> None:
    """What does not fill a batch is sent at the end."""
    embedder = Numbers(workers=1)
    embed(items(range(10)), embedder, Kept())
    assert [len(call) for call in embedder.calls] == [4, 4, 2]


def test_pictures_are_taken_only_as_fast_as_batches_leave() -> None:
    """Of any number of pictures no more are taken than fill the calls under way and one batch that waits."""
    taken = answered = most = 0
    lock = threading.Lock()

    def source() -> Iterator[tuple[str, int]]:
        nonlocal taken, most
        for item in items(range(60)):
            with lock:
                taken += 1
                most = max(most, taken - answered)
            yield item

    def meet(batch: list[int]) -> None:
        nonlocal answered
        time.sleep(0.005)
        with lock:
            answered += len(batch)

    embed(source(), Numbers(meet=meet), Kept())
    assert taken == 60
    assert most <= 4 * (2 + 1)


def test_an_embedder_is_asked_for_only_when_there_is_something_to_embed() -> None:
    """No pictures, or none that need be embedded, ask for no embedder, and so load no model."""
    embedder, kept, started = Numbers(), Kept(), list[bool]()
    for nothing in ([], [None, None]):
        embed(nothing, embedder, kept, starting=lambda: started.append(True))
    assert (embedder.asked, kept, started) == (0, [], [])
    embed([None, ("7", 7), None], embedder, kept)
    assert embedder.asked > 0
    kept.require([7])


def test_pictures_that_need_no_embedding_give_time_to_hand_on() -> None:
    """While the source yields None, what has come back is handed on, long before the source ends."""
    kept = Kept()

    def source() -> Iterator[tuple[str, int] | None]:
        yield from items(range(4))
        until = time.monotonic() + PATIENCE
        while not kept and time.monotonic() < until:
            time.sleep(0.001)
            yield None
        assert kept.keys == ["0", "1", "2", "3"]
        yield from items(range(4, 6))

    embed(source(), Numbers(), kept)
    kept.require(range(6))


def test_the_calling_thread_keeps_and_starts() -> None:
    """`keep` and `starting` are called by who called `embed`, and `starting` once before each call leaves."""
    ours, threads, started = threading.get_ident(), set[int](), 0
    embedder = Numbers()

    def starting(batch: Batch) -> Batch:
        nonlocal started
        started += 1
        assert len(embedder.calls) < started
        threads.add(threading.get_ident())
        return batch

    embed(items(range(20)), embedder, lambda _: threads.add(threading.get_ident()), starting=starting)
    assert threads == {ours}
    assert started == len(embedder.calls) == 5


def test_only_what_starting_returns_leaves() -> None:
    """Of each batch the pictures go to the embedder that `starting` hands back; a batch of none makes no call."""
    embedder, kept = Numbers(), Kept()
    embed(items(range(20)), embedder, kept, starting=lambda batch: [item for item in batch if int(item[0]) >= 6])
    assert sorted(int(key) for key in kept.keys) == list(range(6, 20))
    assert [len(call) for call in embedder.calls] == [2, 4, 4, 4]


# --- refusals -------------------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 40),
    bad=st.sets(st.integers(0, 39), max_size=6),
    batch_size=st.integers(1, 16),
    workers=st.integers(1, 3),
)
def test_a_refused_batch_is_halved_down_to_the_one_to_blame(
    count: int, bad: set[int], batch_size: int, workers: int
) -> None:
    """Whichever pictures are refused, and in batches of any size: just these get the error, all others a vector."""
    kept = Kept()
    embedder = Numbers(batch_size, workers, refuse(*bad))
    embed(items(range(count)), embedder, kept)
    kept.require(range(count), sorted(bad))
    for key, outcome in kept:
        if int(key) in bad:
            assert str(outcome) == f"[{key}] is refused"


def test_halves_go_before_what_waits() -> None:
    """A batch that is refused is settled before the next one leaves, and no picture is embedded twice."""
    embedder = Numbers(workers=1, meet=refuse(2))
    embed(items(range(8)), embedder, Kept())
    assert embedder.calls == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7]]


# --- errors ---------------------------------------------------------------------------------------------------


def test_a_failure_keeps_what_came_back_with_it() -> None:
    """A failure is raised after all that was under way has come back and is kept; nothing more is sent or taken."""
    kept, closed = Kept(), threading.Event()

    def source() -> Iterator[tuple[str, int]]:
        try:
            yield from items(range(80))
        finally:
            closed.set()

    embedder = Numbers(meet=failing(ServiceError("gone")))
    with pytest.raises(ServiceError, match="gone"):
        embed(source(), embedder, kept)
    kept.require(range(4, 8))
    assert len(embedder.calls) == 2
    assert closed.is_set()


@pytest.mark.parametrize("budget_first", [True, False])
def test_a_spent_budget_gives_way_to_a_harder_error(budget_first: bool) -> None:
    """Of a spent budget, which ends in a tidy stop, and an error that came back with it the error is raised."""
    errors = (BudgetSpentError("spent"), ServiceError("gone"))
    with pytest.raises(ServiceError, match="gone"):
        embed(items(range(8)), Numbers(meet=failing(*errors[:: 1 if budget_first else -1])), Kept())


def test_the_first_of_two_errors_is_raised() -> None:
    """An error that comes after another one, while the loop winds up, does not take its place."""
    embedder = Numbers(meet=failing(ServiceError("first"), ServiceError("second")))
    with pytest.raises(ServiceError, match="first"):
        embed(items(range(8)), embedder, Kept())
    assert len(embedder.calls) == 2


def test_a_refusal_at_the_end_is_no_loss_of_the_others() -> None:
    """A batch that is refused while the loop winds up is neither kept nor blamed: its pictures come again next time."""
    kept = Kept()
    with pytest.raises(ServiceError, match="gone"):
        embed(items(range(8)), Numbers(meet=failing(ServiceError("gone"), RejectedImagesError("no"))), kept)
    assert kept == []


def test_what_is_no_exception_is_one_here() -> None:
    """An embedder's thread that is told to exit is an EmbedderError that says so, not the end of this process."""

    def leave(_: list[int]) -> None:
        raise SystemExit(3)

    with pytest.raises(EmbedderError, match=r"SystemExit\(3\)"):
        embed(items(range(2)), Numbers(meet=leave), Kept())


def test_an_answer_of_another_shape_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector too few is refused, so that no key gets the vector of another."""
    embedder = Numbers()
    monkeypatch.setattr(embedder, "embed_prepared", lambda prepared: vectors_of(prepared)[1:])
    kept = Kept()
    with pytest.raises(EmbedderError, match=r"shape \(3, 2\) for 4 pictures"):
        embed(items(range(4)), embedder, kept)
    assert kept == []


@pytest.mark.parametrize(
    ("most", "kept"), [(5, [["0", "1", "2"], ["99"], ["3"]]), (1, [["0"], ["1", "2"], ["99"], ["3"]])]
)
def test_what_has_come_back_is_kept_together(most: int, kept: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to what is refused, and to a bound; each key with its own vector, and nothing counts as under way any more."""
    monkeypatch.setattr(batches, "MOST_KEPT", most)
    found = Kept()
    together: list[list[str]] = []

    def keep(outcomes: list[tuple[str, Outcome]]) -> None:
        together.append([key for key, _ in outcomes])
        found(outcomes)

    with ThreadPoolExecutor(1) as pool:
        calls = batches._Calls(pool, Numbers(), keep, None, None, lambda batch: batch)
        calls.back.extend((items(some), vectors_of(some)) for some in ([0], [1, 2]))
        calls.back.append((items([99]), RejectedImagesError("no")))
        calls.back.append((items([3]), vectors_of([3])))
        calls.under_way = 4
        calls.collect(0.0)
    assert together == kept
    found.require([0, 1, 2, 3, 99], refused=[99])
    assert (calls.under_way, len(calls.back)) == (0, 0)


# --- interrupts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_batch_comes_again(after: bool) -> None:
    """An interrupt while a batch is being kept, before or after it is down, hands the same batch on again."""
    kept, interrupts = Kept(), [KeyboardInterrupt()]

    def keep(outcomes: list[tuple[str, Outcome]]) -> None:
        if after:
            kept(outcomes)
        if interrupts:
            raise interrupts.pop()
        if not after:
            kept(outcomes)

    embedder = Numbers(workers=1)
    with pytest.raises(KeyboardInterrupt):
        embed(items(range(12)), embedder, keep)
    again = ["0", "1", "2", "3"]
    assert kept.keys == (again + again if after else again)
    assert embedder.calls == [[0, 1, 2, 3]]


def test_an_interrupt_of_the_source_loses_nothing_that_is_under_way() -> None:
    """When the source is interrupted, what was sent is waited for and kept; what was not sent is not."""
    kept, interrupted = Kept(), threading.Event()

    def source() -> Iterator[tuple[str, int]]:
        yield from items(range(6))
        interrupted.set()
        raise KeyboardInterrupt

    embedder = Numbers(meet=lambda _: wait_for(interrupted))
    with pytest.raises(KeyboardInterrupt):
        embed(source(), embedder, kept)
    kept.require(range(4))


# --- texts ----------------------------------------------------------------------------------------------------


def test_texts_are_kept_before_more_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lot of texts is kept, with its vectors in its order, before the next one leaves."""
    monkeypatch.setattr(batches, "TEXTS_AT_ONCE", 3)
    kept: list[str] = []
    embedder = Numbers()
    embedder.meet = lambda _: seen.append(len(kept))
    seen: list[int] = []

    def keep(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        np.testing.assert_array_equal(vectors, vectors_of([len(text) for text in texts]))
        kept.extend(texts)

    texts = ["x" * length for length in (5, 1, 4, 2, 9, 3, 7)]
    embed_texts(embedder, texts, keep)
    assert kept == texts
    assert seen == [0, 3, 6]


def test_texts_that_came_back_survive_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a later lot fails, those before it are kept, and no further one is sent."""
    monkeypatch.setattr(batches, "TEXTS_AT_ONCE", 2)

    def meet(batch: list[int]) -> None:
        if 3 in batch:
            raise ServiceError("gone")

    kept: list[str] = []
    embedder = Numbers(meet=meet)
    with pytest.raises(ServiceError, match="gone"):
        embed_texts(embedder, ["x" * length for length in range(1, 8)], lambda texts, _: kept.extend(texts))
    assert kept == ["x", "xx"]
    assert len(embedder.calls) == 2
    embed_texts(embedder, [], lambda texts, _: kept.extend(texts))
    assert len(embedder.calls) == 2
