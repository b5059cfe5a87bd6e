"""The fixtures of tests in a browser; modules take them by ``pytest_plugins = ["browser_fixtures"]``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Served, Watch, chromium_path, watched
from in_browser import chromium as open_chromium
from in_browser import serving
from playwright.sync_api import Browser, Page

from embedstore.store import EmbedStore


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one module: while it is open, no other test of this process may run an event loop."""
    with open_chromium(chromium_path()) as browser:
        yield browser


@pytest.fixture
def served(photo_store: EmbedStore, tmp_path: Path) -> Iterator[Served]:
    """A copy of the sample photographs' store, to be changed, and the process that serves it."""
    shutil.copytree(photo_store.path, tmp_path / "photos.store")
    with serving(tmp_path / "photos.store", tmp_path / "serve.log") as running:
        yield running


@pytest.fixture(scope="module")
def read_only(photo_store: EmbedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of a module that write nothing."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(photo_store.path, folder / "photos.store")
    with serving(folder / "photos.store", folder / "serve.log") as running:
        yield running


@pytest.fixture
def window(chromium: Browser) -> Iterator[tuple[Page, Watch]]:
    """An empty, watched window of 1440 x 900."""
    with watched(chromium) as opened:
        yield opened


@pytest.fixture
def page(window: tuple[Page, Watch]) -> Page:
    """The page of `window`."""
    return window[0]
