"""What access to a bucket needs: a URL without secrets, and an environment that says where it is and who asks.

Turns the URL into one spelling, the environment into how connections are made, and what went wrong into words that name
the variable to set and never what it holds. Keys are read by obstore itself. Requests are left to `bucket`.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from datetime import timedelta
from pathlib import Path
from typing import Any

from embedstore.errors import BucketError, InputError

URL = re.compile(r"(s3a?|gs|az|abfss?):[/\\]{1,2}(?=[^/\\])", re.ASCII)
"""How a place in a bucket begins, also once `pathlib` has made one slash of two."""
RETRIES: dict[str, Any] = {
    "max_retries": 6,
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2},
    "retry_timeout": timedelta(seconds=30),
}
"""How obstore tries again what a service was too busy for: a closed port is given up after 2 to 9 seconds."""

_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, for a key that ends)",
    "gs": "GOOGLE_SERVICE_ACCOUNT, the path of a key file,",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_S3_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_MACHINE_MAKER = Path("/sys/class/dmi/id/sys_vendor")
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.ASCII)
_CLIENT = {"connect_timeout": "3s", "timeout": "120s"}
"""No time for the first byte of an answer: obstore's would hold for sending a request too, and end a slow upload."""
_LATE = "did not answer in time"
_CLIENT_NAMES = (*_CLIENT, "read_timeout", "allow_http", "allow_invalid_certificates", "proxy_url", "proxy_excludes")


def plain_url(url: str) -> str:
    """Return a URL with two slashes behind its scheme and none at its end; InputError for one that is of no use."""
    found = URL.match(url)
    if found is None:
        raise InputError(f"{url!r} is no place in a bucket; expected s3://BUCKET/PLACE")
    scheme, rest = found[1], url[found.end() :].strip("/")
    root, _, place = rest.partition("/")
    user, at, _ = root.rpartition("@")
    if at and (":" in user or not scheme.startswith("abfs")):
        raise InputError(f"a URL of {scheme}:// takes no user and password; set {_KEYS[kind_of(scheme)]} instead")
    if "?" in rest or "#" in rest:
        raise InputError(
            f"a URL of {scheme}:// takes nothing behind ? or #; write {scheme}://{re.split('[?#]', rest)[0]}"
        )
    if place and not {"", ".", ".."}.isdisjoint(place.split("/")):
        raise InputError(f"{scheme}://{rest} has an empty segment, or a dot or two for one; write it without")
    return f"{scheme}://{rest}"


def kind_of(scheme: str) -> str:
    """Return which service a scheme is of: ``s3``, ``gs`` or ``az``."""
    return {"s3a": "s3", "abfs": "az", "abfss": "az"}.get(scheme, scheme)


def client_options(scheme: str) -> dict[str, str]:
    """Return how connections are made; what the environment says of it goes before what we do."""
    prefix = _PREFIXES[kind_of(scheme)]
    named = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in _CLIENT_NAMES}
    return {**_CLIENT, **{name: value for name, value in named.items() if value}}


def environment(root: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that obstore sets itself up by."""
    prefix = _PREFIXES[kind_of(root.partition(":")[0])]
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(f"{prefix}_")))


def require_access(root: str) -> None:
    """Raise BucketError where the environment has no key for S3, or no usable address.

    Without a key obstore would ask the metadata service of a rented machine, whatever `AWS_EC2_METADATA_DISABLED`
    says, and elsewhere wait for it in vain.
    """
    if kind_of(root.partition(":")[0]) != "s3":
        return
    named = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if named and not re.match(r"https?://[^/\s]+", os.environ[named], re.IGNORECASE):
        raise BucketError(f"what {named} says is no address; expected one such as https://s3.example.com")
    if not (_is_on("AWS_SKIP_SIGNATURE") or any(os.environ.get(name) for name in _S3_KEYS) or _machine_has_keys()):
        raise BucketError(
            f"there is no key for {root}: set {_KEYS['s3']}. Profiles of AWS's command line are not read; "
            "`aws configure export-credentials` prints the keys of one, also in the format env"
        )


def setup_error(root: str, error: Exception) -> BucketError:
    """Return the error of a store that obstore could not set up."""
    return BucketError(f"{root} cannot be used: {_scrubbed(str(error))}; set {_KEYS[kind_of(root.partition(':')[0])]}")


def request_error(error: Exception, doing: str, url: str, root: str) -> BucketError:
    """Return what an error of obstore's comes to; of what the service answered only the code, as it quotes keys.

    Parameters
    ----------
    error : Exception
    doing : str
        What was being done, such as "reading".
    url : str
        With what.
    root : str
        The bucket's own URL.
    """
    text, _, debug = str(error).partition("\n\nDebug source:")
    scheme, _, bucket = root.partition("://")
    kind, where, what = kind_of(scheme), _address(scheme), f"{doing} {url}"
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d{3})([A-Za-z ]*)", text)
    if code and code[1] == "NoSuchBucket":
        hint = "; AWS_REGION and AWS_ENDPOINT_URL say where it is looked for" if kind == "s3" else ""
        return BucketError(f"there is no bucket {bucket!r} at {where}; make it, or name another{hint}")
    if "Received redirect" in text and kind == "s3":
        return BucketError(f"{what} was sent elsewhere by {where}; set AWS_REGION to the region of the bucket")
    if status is None:
        if "BadScheme" in debug:
            return BucketError(f"{what} failed: {where} is no https:// address; set AWS_ALLOW_HTTP=true to use it")
        reason, unsettled = _reason(text, debug), "kind: Connect" not in debug
        hint = f"see that {'AWS_ENDPOINT_URL' if kind == 's3' else 'its name'} is right, and the network up"
        if unsettled and reason == _LATE:
            hint += f"; for a slow one, {_PREFIXES[kind]}_TIMEOUT=600s allows more time for a request"
        return BucketError(f"{what} failed: {where} {reason}; {hint}", unsettled=unsettled)
    answer = f"{status[1]}{status[2]}".strip() + (f", {code[1]}" if code else "")
    if status[1] in ("401", "403"):
        use = f"set {_KEYS[kind]} to a key that may read and write there"
        return BucketError(f"{what} was refused by {where} ({answer}); {use}")
    retried = re.search(r"after (\d+) retries", text)
    again = f", and so on {retried[1]} further tries" if retried else ""
    busy = status[1].startswith("5") or status[1] == "429"
    use = "try again later" if busy else "see what this service takes"
    return BucketError(f"{what} failed: {where} answered {answer}{again}; {use}", unsettled=busy)


def is_beyond_end(error: Exception) -> bool:
    """Tell whether a range was asked for that begins behind the end of an object."""
    return "status code: 416" in str(error)


def is_broken_list(error: Exception) -> bool:
    """Tell whether a list was cut short on its way: unlike an object, obstore does not ask for it again."""
    return "Error getting list response body" in str(error)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def _machine_has_keys() -> bool:
    """Tell whether this may be a machine of AWS's, or in a place made to look like one, which gives out keys itself."""
    if _is_on("AWS_EC2_METADATA_DISABLED"):
        return False
    with contextlib.suppress(OSError):
        if "amazon" in _MACHINE_MAKER.read_text(encoding="utf-8").lower():
            return True
    return bool(os.environ.get("AWS_METADATA_ENDPOINT"))


def _address(scheme: str) -> str:
    """Return where requests go to, without a password."""
    if kind_of(scheme) != "s3":
        return {"gs": "Google Cloud Storage", "az": "Azure"}[kind_of(scheme)]
    named = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    parts = urllib.parse.urlsplit(named)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if named else "AWS"


def _reason(text: str, debug: str) -> str:
    """Return why no answer came, in words."""
    for sign, words in (
        ("ConnectionRefused", "refused the connection"),
        ("dns error", "is no known host"),
        ("TimedOut", _LATE),
        ("kind: Timeout", _LATE),
        ("IncompleteMessage", "broke the connection off"),
        ("kind: Body", "broke off in the middle of its answer"),
        ("kind: Connect", "cannot be reached"),
    ):
        if sign in debug:
            return words
    return f"gave no answer that can be used ({_scrubbed(text.partition(' - ')[2] or text)})"


def _scrubbed(text: str) -> str:
    """Return the first line of a text, shortened, with nothing in it that a variable with a key holds."""
    line = text.partition("\n")[0]
    for name, value in os.environ.items():
        if value and _SECRET_NAME.search(name):
            line = line.replace(value, "[key]")
    return line[:300]
