"""URLs -> records whose bytes are downloaded when they are loaded, and not before.

`download` is also for others that meet a URL, such as the rows of a table. One request is `fetching`'s business, the
switch that forbids the network that of `settings`; whether the bytes are a picture is left to `images`.
"""

from __future__ import annotations

import functools
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator, Sequence

from embedstore.images import turns
from embedstore.settings import require_network, seconds_for_a_url
from embedstore.sources.fetching import Fetch
from embedstore.sources.record import Record, Source

_WAITS = (0.2, 1.0)
"""Seconds before a server that is busy or stumbles is asked again."""


class UrlSource(Source):
    """Pictures on the web, named by http(s) URLs; each once."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(dict.fromkeys(urls))
        super().__init__(f"{len(self._urls):,} URLs", len(self._urls))

    def __iter__(self) -> Iterator[Record]:
        for url in self._urls:
            public = without_password(url)
            yield Record(f"url:{public}", public, functools.partial(download, url))


def is_url(text: str) -> bool:
    """Return whether a text is an http or https URL."""
    return text.lower().startswith(("http://", "https://"))


def without_password(url: str) -> str:
    """Return the URL without ``user:password@``, which belongs in no store, log or message."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def download(url: str) -> bytes:
    """Fetch a URL; a busy or stumbling server is asked three times, all in the time that the settings give a picture.

    Raises OfflineError where the network is switched off, ImageError where the file is too large or lies where none is
    to be fetched from (see `fetching`), and OSError where the server cannot be reached, refuses, or is not done in
    time.
    """
    require_network(f"downloading from {urllib.parse.urlsplit(without_password(url)).netloc}")
    # Spaces and letters beyond ASCII are escaped, as browsers do; what is escaped already stays.
    address = urllib.parse.quote(without_password(url), safe="%/:=&?~#+!$,;'@()*[]")
    deadline, stopped = time.monotonic() + seconds_for_a_url(), turns.stopped()
    for wait in (*_WAITS, None):
        try:
            return Fetch(address, {"User-Agent": "embedstore"}, _authorization(url)).run(deadline, stopped)
        except OSError as error:
            if wait is None or not _may_pass(error) or time.monotonic() + wait > deadline:
                raise
        if stopped is None:
            time.sleep(wait)
        elif stopped.wait(wait):
            raise turns.StoppedError("the download was stopped")
    raise AssertionError("unreachable: the last attempt returns or raises")


def _may_pass(error: OSError) -> bool:
    """Return whether the same request may do better a moment later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 425, 429, 500, 502, 503, 504)
    return True


def _authorization(url: str) -> dict[str, str]:
    """Return the header for the name and password that stand in a URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return {}
    import base64  # late: hardly any URL has them

    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
