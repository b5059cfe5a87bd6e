"""Where Nomic's API key comes from, and how it is kept out of everything that is written.

Flag, then environment, then the official client's own file, which is read and never written. The secret stays
inside a `Key`, which shows it to nobody but the caller of `Key.reveal`. Using it is left to
`embedders.nomic_transport`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from embedstore.errors import CredentialsError

VARIABLE = "NOMIC_API_KEY"
"""Environment variable with the key."""

PLACES = (
    f"give --api-key-file FILE, set {VARIABLE}, or run `nomic login nk-...` (it writes ~/.nomic/credentials)"
)
"""The three places of a key, in the order in which they are asked, for messages."""

_MASK = "[key]"


class Key:
    """An API key that does not show itself: neither printed, nor formatted, nor pickled.

    Parameters
    ----------
    secret : str
        The key; white space around it is dropped.
    source : str
        Where it was found, for messages.
    tenant : dict[str, Any] | None
        Other fields of the client's file, which say which deployment the key belongs to; None means Nomic's own.

    Raises
    ------
    CredentialsError
        Empty, or with characters that no HTTP header can carry.

    Examples
    --------
    >>> print(Key("nk-secret", "a flag"))
    Key(from a flag)
    """

    __slots__ = ("_secret", "source", "tenant")

    def __init__(self, secret: str, source: str, tenant: dict[str, Any] | None = None) -> None:
        secret = secret.strip()
        if not secret or not secret.isascii() or any(c.isspace() or not c.isprintable() for c in secret):
            raise CredentialsError(
                f"the key from {source} is empty or holds spaces or other characters that no key has; {PLACES}"
            )
        self._secret = secret
        self.source = source
        self.tenant = dict(tenant) if tenant is not None else {"tenant": "production"}

    def reveal(self) -> str:
        """Return the secret, for the header of a request and nothing else."""
        return self._secret

    def scrub(self, text: str) -> str:
        """Return `text` with the secret, plain or percent-encoded, replaced by ``[key]``."""
        for form in {self._secret, quote(self._secret, safe=""), quote(self._secret)}:
            text = text.replace(form, _MASK)
        return text

    def __repr__(self) -> str:
        return f"Key(from {self.source})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Key is not to be pickled or copied to another process: look it up there, by find_key"
        )


def find_key(flag: str | None = None) -> Key | None:
    """Look the API key up: `flag`, else ``NOMIC_API_KEY``, else ``~/.nomic/credentials``.

    Parameters
    ----------
    flag : str | None
        A key given on the command line or by the caller.

    Returns
    -------
    Key | None
        None if there is none in any of the three places.

    Raises
    ------
    CredentialsError
        A key is there and cannot be used: malformed, a file that cannot be read, a login that has expired.
    """
    if flag:
        return Key(flag, "--api-key")
    if os.environ.get(VARIABLE, "").strip():
        return Key(os.environ[VARIABLE], VARIABLE)
    path = Path.home() / ".nomic" / "credentials"
    return _from_file(path) if path.exists() else None


def require_key(flag: str | None = None) -> Key:
    """Return what `find_key` finds.

    Raises
    ------
    CredentialsError
        There is no key; the message names the three places.
    """
    key = find_key(flag)
    if key is None:
        raise CredentialsError(f"no Nomic API key was found: {PLACES}")
    return key


def scrub(text: str, key: Key | None) -> str:
    """Return `text` without the secret of `key`; as it is if there is no key."""
    return text if key is None else key.scrub(text)


def _from_file(path: Path) -> Key:
    """Read the client's own file; its content appears in no message."""
    name = "~/.nomic/credentials"
    try:
        login = json.loads(path.read_text(encoding="utf-8"))
        secret, expires = login["token"], login.get("expires")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # The parser's own message would quote the file, and so the key.
        raise CredentialsError(f"{name} cannot be read as the Nomic client's login; {PLACES}") from None
    if not isinstance(secret, str):
        raise CredentialsError(f"{name} holds no key; {PLACES}")
    if isinstance(expires, int | float) and expires and time.time() >= expires:
        raise CredentialsError(f"the login in {name} has expired: run `nomic login` again, or {PLACES}")
    fields = ("tenant", "api_domain", "frontend_domain")
    tenant = {field: login[field] for field in fields if isinstance(login.get(field), str)}
    return Key(secret, name, {"tenant": "production", **tenant})
