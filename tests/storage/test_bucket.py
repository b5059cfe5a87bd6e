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


def make_each(url: str, names: list[str], writer: int) -> list[str]:
    """Try to make each of these objects; return those that this writer has made."""
    place, made = Bucket(url), []
    for name in names:
        try:
            place.create(name, f"writer {writer}".encode() * 50)
            made.append(name)
        except FileExistsError:
            pass
    return made


def test_of_several_writers_one_makes_an_object(bucket: Bucket) -> None:
    """Two processes of four threads race for 60 names: each is made once, and holds what its maker wrote."""
    names = [f"_delta_log/{number:020}.json" for number in range(60)]
    with ProcessPoolExecutor(2, mp_context=SPAWN) as processes:
        rivals = processes.map(race, [bucket.url] * 2, [names] * 2, [0, 4])
        made = [pair for found in rivals for pair in found]
    assert Counter(name for name, _ in made) == Counter(names)
    assert len({writer for _, writer in made}) > 1
    assert all(bucket.read(name) == f"writer {writer}".encode() * 50 for name, writer in made)


def race(url: str, names: list[str], first: int) -> list[tuple[str, int]]:
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(
            lambda writer: [(name, writer) for name in make_each(url, names, writer)], range(first, first + 4)
        )
        return [pair for pairs in found for pair in pairs]
