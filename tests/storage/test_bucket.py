"""Buckets: objects made once, read whole, and errors that say what to do without saying a key."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import socket
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from s3_server import KEY, SECRET, S3Server

from embedstore.errors import BucketError, InputError, MissingDependencyError, OfflineError
from embedstore.storage import bucket as bucket_module
from embedstore.storage.bucket import Bucket, is_url

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """An empty place in a bucket of its own."""
    return Bucket(f"{s3.bucket()}/my photos/cats.store")


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def race(url: str, names: list[str], process: int) -> list[tuple[str, int]]:
    """Try to make each of these objects, by four threads; return those made, each with the number of its maker."""
    place, made = Bucket(url), []
    gate = threading.Barrier(4)

    def make_all(writer: int) -> None:
        for name in names:
            gate.wait()
            try:
                place.create(name, f"writer {writer}".encode() * 50)
                made.append((name, writer))
            except FileExistsError:
                pass

    place.write(f"here/{process}", b"")
    while len(place.list("here")) < 2:
        time.sleep(0.01)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make_all, range(process * 4, process * 4 + 4)))
    return made


def test_of_several_writers_one_makes_an_object(bucket: Bucket) -> None:
    """Two processes of four threads race for 40 names: each is made once, and holds what its maker wrote."""
    names = [f"_delta_log/{number:020}.json" for number in range(40)]
    with ProcessPoolExecutor(2, mp_context=SPAWN) as processes:
        found = processes.map(race, [bucket.url] * 2, [names] * 2, [0, 1])
        made = [pair for pairs in found for pair in pairs]
    assert Counter(name for name, _ in made) == Counter(names)
    assert {writer // 4 for _, writer in made} == {0, 1}
    assert all(bucket.read(name) == f"writer {writer}".encode() * 50 for name, writer in made)
