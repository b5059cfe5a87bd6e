"""URLs -> records whose bytes are downloaded when they are loaded, and not before.

`download` is also for others that meet a URL, such as the rows of a table. The switch that forbids the network is
`settings`' business; whether the bytes are a picture is left to `images`.
"""

from __future__ import annotations

import functools
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence

from embedstore.errors import ImageError
from embedstore.settings import require_network
from embedstore.sources.record import Record, Source

TIMEOUT = 30.0
"""Seconds that a server may be silent."""

MAX_BYTES = 1 << 30
"""Largest file that is downloaded or unpacked: 1 GiB."""


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
    """Fetch a URL; a busy or stumbling server is asked three times.

    Raises OfflineError where the network is switched off, ImageError where the file is larger than `MAX_BYTES`, and
    OSError where the server cannot be reached, is silent for `TIMEOUT` seconds, or refuses.
    """
    require_network(f"downloading from {urllib.parse.urlsplit(without_password(url)).netloc}")
    import stamina  # late: only URLs need it

    for attempt in stamina.retry_context(on=_may_pass, attempts=3, wait_initial=0.2, wait_max=5.0):
        with attempt:
            return _fetch(url)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may do better a moment later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 425, 429, 500, 502, 503, 504)
    return isinstance(error, OSError)


def _fetch(url: str) -> bytes:
    """Make one request."""
    # Spaces and letters beyond ASCII are escaped, as browsers do; what is escaped already stays.
    address = urllib.parse.quote(without_password(url), safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(address, headers={"User-Agent": "embedstore"})
    if (header := _authorization(url)) is not None:
        request.add_unredirected_header("Authorization", header)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            data: bytes = response.read(MAX_BYTES + 1)
            promised = response.headers.get("Content-Length")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"the server's answer cannot be used: {error!r}") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"more than {MAX_BYTES:,} bytes were sent, which is no picture")
    if promised is not None and promised.isdigit() and len(data) < int(promised):
        raise OSError(f"the download stopped after {len(data):,} of {promised} bytes")
    return data


def _authorization(url: str) -> str | None:
    """Return the header for the name and password that stand in a URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return None
    import base64  # late: hardly any URL has them

    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
