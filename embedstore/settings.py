"""What stands outside a call and steers it: environment variables, Nomic's API key, the cores of this machine.

Whoever is about to use the network asks `require_network` first; whoever imports a library that would use it by
itself calls `apply_switches` before that import, as those libraries read their environment once. A key comes from a
flag, the environment or the official client's own file, which is read and never written; it stays inside a `Key`.
What settings are good for is left to those who ask.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from embedstore.errors import CredentialsError, InputError, OfflineError, spelt
from embedstore.files import read_regular

# Environment variables.
API_KEY = "NOMIC_API_KEY"
MODEL = "EMBEDSTORE_MODEL"  # the model to use when none is named
OFFLINE = "EMBEDSTORE_OFFLINE"  # 1 (or true, yes, on) keeps embedstore off the network; --offline sets it
MIXED = "EMBEDSTORE_ALLOW_MIXED_BACKEND"  # 1 allows another backend of a store's model for queries
PRIVATE_URLS = "EMBEDSTORE_ALLOW_PRIVATE_URLS"  # 1 lets pictures be fetched from private addresses
URL_SECONDS = "EMBEDSTORE_URL_SECONDS"  # how long the download of one picture may take, all attempts together
RATE_LIMIT = "EMBEDSTORE_RATE_LIMIT"  # another limit of Nomic's service, REQUESTS/SECONDS
DOMAIN = "NOMIC_DOMAIN"  # whose deployment a key is for, as in `nomic login --domain`; --domain sets it
ADDRESS = "ATLAS_API_PATH"  # the address of Nomic's service, whatever a login says; the official client reads it
STATE_DIR = "EMBEDSTORE_STATE_DIR"  # another folder for the state shared by processes
CACHE_DIR = "EMBEDSTORE_CACHE_DIR"  # another folder for what can be made again; --cache-dir sets it
CACHE_SIZE = "EMBEDSTORE_CACHE_SIZE"  # most bytes that the parts of one store in a bucket may take here; --cache-size
DATA_DIR = "EMBEDSTORE_DATA_DIR"  # another folder for what stores in buckets keep on this machine

# Read by huggingface_hub (HF_HUB_*, DO_NOT_TRACK, DISABLE_TELEMETRY), transformers, datasets and onnxruntime.
_NO_TELEMETRY = dict.fromkeys(
    ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY"), "1"
)
_NO_NETWORK = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")

_MOST_CACHED = 50 * 10**9
_LOGIN = "~/.nomic/credentials"
_PUBLIC = "atlas.nomic.ai"
_DEPLOYMENTS = {
    "production": {"frontend_domain": _PUBLIC, "api_domain": "api-atlas.nomic.ai"},
    "staging": {"frontend_domain": "staging-atlas.nomic.ai", "api_domain": "staging-api-atlas.nomic.ai"},
}
"""Nomic's own, as the official client knows them; any other is an enterprise's."""


def key_places() -> str:
    """Return the three places of a key, in the order in which they are asked, for messages."""
    given = spelt("pass key='nk-...' to the embedder", "give --api-key-file FILE")
    return f"{given}, set {API_KEY}, or run `nomic login nk-...` (it writes ~/.nomic/credentials)"


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def state_dir() -> Path:
    """Return the folder of the state that this user's processes share; it may not exist yet."""
    named = os.environ.get(STATE_DIR)
    if named:
        return Path(named)
    from platformdirs import user_state_path  # late: a process that only asks has no such state

    return _place(user_state_path, STATE_DIR)


def cache_dir() -> Path:
    """Return the folder of what this user's processes keep and could make again; it may not exist yet."""
    named = os.environ.get(CACHE_DIR)
    if named:
        return Path(named)
    return user_cache(CACHE_DIR)


def data_dir() -> Path:
    """Return the folder of what this user's processes must not lose, of stores in buckets; it may not exist yet."""
    named = os.environ.get(DATA_DIR)
    if named:
        return Path(named)
    from platformdirs import user_data_path  # late, as above

    return _place(user_data_path, DATA_DIR)


def cache_bytes(folder: Path, given: int | str | None = None) -> int:
    """Return how many bytes the parts of one store in a bucket may take below `folder`.

    As given, else as the environment says, else the smaller of 50 GB and half of what is free there.
    """
    text = given if given is not None else os.environ.get(CACHE_SIZE, "").strip()
    if text != "":
        return bytes_of(text)
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path(os.curdir))
    return min(_MOST_CACHED, shutil.disk_usage(there).free // 2)


def bytes_of(text: int | str) -> int:
    """Return a number of bytes, as ``50GB``, ``512 MiB`` or a plain number."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) ?([kMGT]i?)?B?", str(text).strip(), re.IGNORECASE)
    unit = (found[2] or "").lower() if found else ""
    step = 1024 if unit.endswith("i") else 1000
    number = float(found[1]) * step ** " kmgt".index(unit[:1] or " ") if found else 0.0
    if not 1 <= number < 1e18:
        named = spelt(f"`cache_size`, {CACHE_SIZE}", f"--cache-size, {CACHE_SIZE}")
        raise InputError(f"{text!r} is no number of bytes ({named}); expected such as 50GB")
    return int(number)


def user_cache(variable: str) -> Path:
    """Return embedstore's folder where the system keeps caches; `variable` names another, for the error of no home."""
    from platformdirs import user_cache_path  # late, as above

    return _place(user_cache_path, variable)


def _place(folder: Callable[..., Path], variable: str) -> Path:
    """Return a folder of this user's."""
    try:
        return folder("embedstore", appauthor=False)
    except RuntimeError as error:
        why = f"this user has no home folder; set HOME, or {variable}, to one that can be written to"
        raise FileNotFoundError(errno.ENOENT, why) from error


def _home() -> Path:
    """Return the home folder; for a user without one, as in some containers, a path at which nothing is."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)


def mixing_is_allowed() -> bool:
    """Tell whether the environment lets another backend of a store's model make query vectors."""
    return _is_on(MIXED)


def private_urls_are_allowed() -> bool:
    """Tell whether pictures may be fetched from this machine itself and from its own network."""
    return _is_on(PRIVATE_URLS)


def seconds_for_a_url() -> float:
    """Return how many seconds the download of one picture may take; 60 unless the environment says otherwise."""
    text = os.environ.get(URL_SECONDS, "").strip() or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise InputError(f"{URL_SECONDS} is {text!r}; expected a number of seconds, such as 60")
    return seconds


def rate_limit() -> tuple[int, float] | None:
    """Return how many requests Nomic's service takes in how many seconds, where the environment says so.

    ``EMBEDSTORE_RATE_LIMIT=1200/300`` is what the public service says of itself; a plan may have another limit.
    """
    text = os.environ.get(RATE_LIMIT, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9}) ?/ ?(\d{1,6}(?:\.\d+)?)", text)
    if not found or int(found[1]) < 1 or float(found[2]) <= 0:
        raise InputError(f"{RATE_LIMIT} is {text!r}; expected requests and seconds, such as 1200/300")
    return int(found[1]), float(found[2])


def is_offline() -> bool:
    """Tell whether the network is switched off for this process.

    Hugging Face's own switch, ``HF_HUB_OFFLINE``, is left to Hugging Face: it says nothing of other services.
    """
    return _is_on(OFFLINE)


def require_network(what: str) -> None:
    """Raise OfflineError when the network is switched off; `what` wants it, such as "embedding with Nomic's API"."""
    if is_offline():
        raise OfflineError(
            f"{what} needs the network, which is switched off (--offline, or {OFFLINE}=1); "
            "switch it on, or use what is stored on this machine already"
        )


def apply_switches() -> None:
    """Switch off the telemetry of the libraries used, always; and their network access when offline.

    Telemetry is switched off even if the environment asks for it. Network switches are only ever switched on,
    never back, as the libraries would not see it.
    """
    os.environ.update(_NO_TELEMETRY)
    if is_offline():
        os.environ.update(_NO_NETWORK)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


class Key:
    """An API key that does not show itself: neither printed, nor formatted, nor pickled.

    `source` says where it was found, for messages; `tenant` has the other fields of the client's file, which say which
    deployment the key belongs to (Nomic's own without them). White space around the secret is dropped. Raises
    CredentialsError where it is empty or has characters that no HTTP header can carry.
    """

    __slots__ = ("_secret", "source", "tenant")

    def __init__(self, secret: str, source: str, tenant: dict[str, Any] | None = None) -> None:
        secret = secret.strip()
        if not secret or not secret.isascii() or any(c.isspace() or not c.isprintable() for c in secret):
            raise CredentialsError(
                f"the key from {source} is empty or holds spaces or other characters that no key has; {key_places()}"
            )
        self._secret = secret
        self.source = source
        self.tenant = {"tenant": "production", **(tenant or {})}

    def reveal(self) -> str:
        """Return the secret, for the header of a request and nothing else."""
        return self._secret

    def scrub(self, text: str) -> str:
        """Return `text` with the secret, plain or percent-encoded, replaced by ``[key]``."""
        for form in {self._secret, quote(self._secret, safe=""), quote(self._secret)}:
            text = text.replace(form, "[key]")
        return text

    def __repr__(self) -> str:
        return f"Key(from {self.source})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key is not to be pickled or copied to another process: look it up there, by find_key")


def find_key(flag: str | None = None) -> Key | None:
    """Look the API key up: `flag`, else ``NOMIC_API_KEY``, else ``~/.nomic/credentials``; None if there is none.

    A key that is given or stands in the environment is for the deployment that ``NOMIC_DOMAIN`` names, else for Nomic's
    own service.

    Raises CredentialsError where a key cannot be used: malformed, a file that cannot be read, an expired login; and
    where the file is a login to another deployment than the one that the key would be sent to, as nobody knows then
    which is meant. Where ``ATLAS_API_PATH`` names the address it is known.
    """
    path = _home() / ".nomic" / "credentials"
    domain = os.environ.get(DOMAIN, "").strip()
    tenant = _tenant_of(domain) if domain else None
    secret, source = (flag, "the argument `key`") if flag else (os.environ.get(API_KEY, "").strip(), API_KEY)
    if secret:
        key = Key(secret, source, tenant)
        if tenant is None and not os.environ.get(ADDRESS):
            _require_own(key, path)
        return key
    if not path.exists():
        return None
    key = _key_from_login(path)
    if tenant is not None and _host(key.tenant) != _host(tenant):
        raise CredentialsError(
            f"{_LOGIN} is a login to {_host(key.tenant)}, and {domain} is named ({spelt(DOMAIN, '--domain')}), whose "
            f"service is {_host(tenant)}: its key is not sent there. Run `nomic login --domain {domain} nk-...`, or "
            + key_places()
        )
    return key


def _require_own(key: Key, path: Path) -> None:
    """Raise CredentialsError where a login to another deployment lies beside a key that does not say whose it is."""
    try:
        tenant = _tenant_in(json.loads(read_regular(path)))
    except (OSError, ValueError, TypeError, AttributeError):
        return  # no login, or none that says
    if tenant.get("tenant", "production") != "production":
        other = tenant.get("frontend_domain", "DOMAIN")
        raise CredentialsError(
            f"the key from {key.source} would go to {_host(key.tenant)}, Nomic's public service, but {_LOGIN} is a "
            f"login to {_host(tenant)}. Say whose the key is: {DOMAIN}={other} or {DOMAIN}={_PUBLIC}"
            + spelt("", f" (`add` and others: --domain {other})")
            + f"; or name the service's address in {ADDRESS}"
        )


def _tenant_of(domain: str) -> dict[str, str]:
    """Return the fields of a login to the deployment of a domain, as ``nomic login --domain`` writes them."""
    for tenant, hosts in _DEPLOYMENTS.items():
        if domain == hosts["frontend_domain"]:
            return {"tenant": tenant, **hosts}
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", domain):
        raise CredentialsError(f"{domain!r} is no domain; expected a name such as {_PUBLIC}, without https://")
    return {"tenant": "enterprise", "frontend_domain": domain, "api_domain": f"api.{domain}"}


def _tenant_in(login: dict[str, Any]) -> dict[str, str]:
    """Return the fields of the client's file that say which deployment it is for."""
    fields = ("tenant", "api_domain", "frontend_domain")
    return {field: login[field] for field in fields if isinstance(login.get(field), str)}


def _host(tenant: dict[str, Any]) -> str:
    """Return the host of a deployment's service."""
    own = _DEPLOYMENTS.get(tenant.get("tenant", "production"), tenant)
    return str(own.get("api_domain", f"the tenant {tenant.get('tenant')!r}"))


def require_key(given: Key | str | None = None) -> Key:
    """Return a key that is given as one, else what `find_key` finds; CredentialsError, with its places, for none."""
    key = given if isinstance(given, Key) else find_key(given)
    if key is None:
        raise CredentialsError(f"no Nomic API key was found: {key_places()}")
    return key


def _key_from_login(path: Path) -> Key:
    """Read the client's own file; its content appears in no message."""
    try:
        login = json.loads(read_regular(path))
        secret, expires = login["token"], login.get("expires")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # The parser's own message would quote the file, and so the key.
        raise CredentialsError(f"{_LOGIN} cannot be read as the Nomic client's login; {key_places()}") from None
    if not isinstance(secret, str):
        raise CredentialsError(f"{_LOGIN} holds no key; {key_places()}")
    if isinstance(expires, int | float) and expires and time.time() >= max(expires, _expiry(secret)):
        raise CredentialsError(f"the login in {_LOGIN} has expired: run `nomic login` again, or {key_places()}")
    return Key(secret, _LOGIN, _tenant_in(login))


def _expiry(token: str) -> float:
    """Return when a browser login's token ends, in seconds since the epoch, as it says itself; 0 where it does not.

    The client writes a refreshed token into its file and leaves the moment there as it was.
    """
    import jwt  # late: only for a login that looks as if it had expired

    try:
        ends = jwt.decode(token, options={"verify_signature": False}).get("exp", 0)
    except jwt.PyJWTError:
        return 0.0
    return float(ends) if isinstance(ends, int | float) else 0.0
