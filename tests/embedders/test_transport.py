"""What stands in the place of `requests` inside the official client, and what its service's answers mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from embedstore.embedders.nomic_api import DIM, rows_of
from embedstore.embedders.remote import sound_vectors
from embedstore.embedders.transport import is_loopback, retry_after
from embedstore.errors import ServiceError


def test_loopback_is_told_by_the_literal_host() -> None:
    """Only addresses and the name of this machine count, no name that might resolve to it."""
    here = ["http://127.0.0.1:80", "http://[::1]/v1", "http://localhost:1", "http://127.9.9.9"]
    there = ["https://api-atlas.nomic.ai", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://", "x"]
    assert all(is_loopback(url) for url in here)
    assert not any(is_loopback(url) for url in there)


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds and a date are understood; what is neither asks for nothing."""
    assert [retry_after(value) for value in (None, "12", "1.5", "-3", "soon", "")] == [0, 12, 1.5, 0, 0, 0]
    moment = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < retry_after(format_datetime(moment, usegmt=True)) <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def answer(**fields: object) -> dict[str, object]:
    return {"embeddings": [[0.0] * 767 + [2.0]] * 2, "model": "m", "usage": {}, **fields}


def test_a_good_answer_is_made_unit_length() -> None:
    """Vectors that are not of unit length are made so."""
    assert sound_vectors(rows_of(answer(), "m"), 2, DIM)[:, -1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (answer(model="n"), "asked for m, answered by 'n'"),
        (answer(embeddings=[[1.0] * 768]), "expected 2 vectors.*found 1"),
        (answer(embeddings=[[1.0] * 768] * 3), "expected 2 vectors.*found 3"),
        (answer(embeddings=[[1.0] * 767] * 2), r"shape \(n, 768\)"),
        (answer(embeddings=[[1.0] * 768, [1.0] * 5]), "expected numbers"),
        (answer(embeddings=[[1.0] * 768, [0.0] * 768]), "zero"),
        (answer(embeddings=[[1.0] * 768, [float("inf")] * 768]), "infinity"),
        (answer(embeddings=[["a"] * 768] * 2), "expected numbers"),
        (answer(embeddings=None), "no embeddings"),
        ([], "no embeddings"),
        ("page", "no embeddings"),
    ],
)
def test_a_bad_answer_is_told_apart(bad: object, message: str) -> None:
    """Every way in which an answer is not what was asked for is found, and said."""
    with pytest.raises(ServiceError, match=message):
        sound_vectors(rows_of(bad, "m"), 2, DIM)
