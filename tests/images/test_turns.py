"""Readers share two budgets of memory, and wait for their turn."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from embedstore.errors import ImageError
from embedstore.images import turns
from embedstore.images.turns import Budget


def test_what_is_taken_is_never_more_than_there_is() -> None:
    """Many threads that take, use and give back: the sum stays within the budget, and all of it comes back."""
    budget = Budget(100)
    lock, taken, most = threading.Lock(), 0, 0

    def use(amount: int) -> None:
        nonlocal taken, most
        for _ in range(20):
            with budget.take(amount):
                with lock:
                    taken += amount
                    most = max(most, taken)
                time.sleep(0.0005)
                with lock:
                    taken -= amount

    threads = [threading.Thread(target=use, args=(amount,)) for amount in (10, 30, 45, 60, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert 60 <= most <= 100
    assert budget.take(100).amount == 100


def test_a_large_turn_is_not_passed_by_smaller_ones_for_ever() -> None:
    """Turns come in order: small ones that are asked for after a large one wait behind it."""
    budget, order = Budget(10), []
    first = budget.take(6)

    def use(amount: int) -> None:
        with budget.take(amount):
            order.append(amount)

    threads = []
    for amount in (9, 2, 3):
        threads.append(threading.Thread(target=use, args=(amount,)))
        threads[-1].start()
        time.sleep(0.05)
    assert order == []
    first.release()
    for thread in threads:
        thread.join(10)
    assert order[0] == 9


def test_more_than_there_is_counts_as_all() -> None:
    """A turn that is larger than the budget waits until it is alone."""
    budget = Budget(10)
    with budget.take(50) as turn:
        assert turn.amount == 10


def test_a_turn_comes_back_when_it_is_forgotten() -> None:
    """A turn that nobody refers to any more is given back, and giving back twice does no harm."""
    budget = Budget(10)
    turn = budget.take(10)
    turn.release()
    turn.release()
    turn = budget.take(10)
    del turn
    gc.collect()
    assert budget.take(10).amount == 10


def test_stopping_ends_the_waiting() -> None:
    """Who waits when the run is stopped gets an error at once, and does not stand in the way of others."""
    budget, stopped = Budget(10), threading.Event()
    turn = budget.take(10)
    threading.Timer(0.2, stopped.set).start()
    started = time.monotonic()
    with pytest.raises(turns.StoppedError):
        budget.take(1, stopped)
    assert time.monotonic() - started < 2
    turn.release()
    assert budget.take(10).amount == 10


def test_what_is_read_counts_until_the_end_of_the_block() -> None:
    """One file and one picture at a time count within a block; nothing of it does after, and nothing outside."""
    with turns.holding():
        turns.hold_file(1000)
        turns.hold_pixels(500)
        turns.hold_pixels(700)
        assert (turns.FILES._free, turns.PIXELS._free) == (turns.FILES.total - 1000, turns.PIXELS.total - 700)
        turns.hold_file(10)
        assert (turns.FILES._free, turns.PIXELS._free) == (turns.FILES.total - 10, turns.PIXELS.total)
    turns.hold_file(1000)
    assert turns.FILES._free == turns.FILES.total


def test_a_file_too_large_for_memory_is_refused_with_both_numbers() -> None:
    """The error says how large it is, what the limit is, and the way on."""
    with pytest.raises(ImageError, match=r"104,857,601 bytes, more than the 104,857,600.*folder"):
        turns.hold_file(turns.LARGEST_FILE + 1)
