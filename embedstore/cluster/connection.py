"""An address -> Ray, connected: with no telemetry, and with authentication said rather than left to a default.

Ray reads its environment when it is imported, so the settings are made before. Whoever has imported Ray already, or
connected this process, has said how; that is left as it is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedstore.errors import ClusterError, MissingDependencyError
from embedstore.settings import API_KEY, cores

_log = logging.getLogger("embedstore")
_OBJECT_STORE_BYTES = 512 << 20
"""Of a cluster of this process's own: only scores and matches stand in it, one bundle's beside the other's."""
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning: no accelerator is asked for
}
_UNHINDERED = "RAY_worker_niceness", "0"
"""By default workers give way to all else on the machine: they would be slower than this process's threads are."""
_WAIT_SECONDS = 5.0
_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def connected(address: str | None) -> Any:
    """Return the module ray, connected to the cluster at `address`; see `ray_executor.RayExecutor`."""
    os.environ.update(_SILENT)
    named = address or os.environ.get("RAY_ADDRESS") or "local"
    if named == "local":
        os.environ.setdefault(*_UNHINDERED)
    if _MODE not in os.environ and sys.modules.get("ray") is None:
        _say_how_to_authenticate(named)
    ray = _imported()
    if ray.is_initialized():
        _require_same(ray, address)
        return ray
    own: dict[str, Any] = {}
    if named == "local":
        own = {
            "num_cpus": cores(),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    _require_answer(named)
    try:
        with _quietly(), _keeping_the_key(named):
            ray.init(address=named, log_to_driver=False, logging_level=logging.ERROR, **own)
            _keep_off_stdout()
    except Exception as error:  # Ray raises plain ones too, where a node takes too long to start
        said = " ".join(str(error).split())
        raise ClusterError(
            f"no Ray cluster could be joined at {named!r}: {said[:300]}. See that it runs and that this machine has "
            "joined it (`ray status` tells), and name it by HOST:PORT or auto"
        ) from error
    return ray


def _require_answer(named: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for many minutes."""
    found = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d+)", named)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _WAIT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {named!r} ({error}); start one there, or name the head of "
            "the one that this machine has joined, by HOST:PORT or auto"
        ) from error


def _keep_off_stdout() -> None:
    """Let what Ray says of workers that died go to the log, for debugging: it would print it among our results."""
    from ray._private import worker  # no option of Ray's own keeps it

    def told(data: dict[str, Any], *more: Any, **options: Any) -> None:
        _log.debug("Ray: %s", " ".join(map(str, data.get("lines", ()))))

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = told


def _say_how_to_authenticate(address: str) -> None:
    """Set what Ray's default would else be, which differs between its versions.

    A cluster of this process's own, whose ports others on the network could reach, has a token that nobody else
    knows. With another cluster the user's token is used where there is one.
    """
    if address == "local":
        os.environ.update({_MODE: "token", _TOKEN: secrets.token_hex(32)})
        return
    with contextlib.suppress(RuntimeError):  # a user without a home
        if (Path.home() / ".ray" / "auth_token").exists():
            os.environ[_MODE] = "token"
            return
    has_one = os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH)
    os.environ[_MODE] = "token" if has_one else "disabled"


def _imported() -> Any:
    try:
        import ray
        import ray.cloudpickle
    except ImportError as error:
        raise MissingDependencyError(
            f'the executor "ray" needs Ray, which is not installed ({error}): pip install "embedstore[ray]"'
        ) from error
    return ray


def _require_same(ray: Any, address: str | None) -> None:
    """Refuse another cluster than the one that this process is connected to: Ray knows only one at a time."""
    here = ray.get_runtime_context().gcs_address
    host, _, port = (address or "").rpartition(":")
    # Ray calls this machine by its name in the network, whatever it was called.
    is_here = host in ("127.0.0.1", "localhost") and here.endswith(f":{port}")
    if not is_here and address not in (None, "auto", "local", here):
        raise ClusterError(
            f"this process is connected to the Ray cluster at {here} already, and {address} is asked for; "
            "call ray.shutdown() first"
        )


@contextlib.contextmanager
def _keeping_the_key(address: str) -> Iterator[None]:
    """Let the processes of a cluster of this process's own start without the key of the service: none needs it."""
    key = os.environ.pop(API_KEY, None) if address == "local" else None
    try:
        yield
    finally:
        if key is not None:
            os.environ[API_KEY] = key


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep Ray's own messages about its start to warnings."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
