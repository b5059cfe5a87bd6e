"""The switch that keeps every network call off, and the switches of other people's libraries.

`require_network` is asked by each thing whose job is a network call, before it makes one. `apply_switches` is
called by each function that imports a library which would go to the network by itself, before that import,
because those libraries read their environment once, when imported.
"""

from __future__ import annotations

import os

from embedstore.errors import OfflineError

SWITCH = "EMBEDSTORE_OFFLINE"
"""Environment variable: ``1`` (or true, yes, on) keeps embedstore off the network; ``--offline`` sets it."""

_TRUE = ("1", "true", "yes", "on")

# Read by huggingface_hub (HF_HUB_*, DO_NOT_TRACK, DISABLE_TELEMETRY), transformers, datasets and onnxruntime.
_NEVER = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
_WHEN_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def is_offline() -> bool:
    """Return whether the network is switched off for this process.

    Hugging Face's own switch, ``HF_HUB_OFFLINE``, is left to Hugging Face: it says nothing of other services.
    """
    return os.environ.get(SWITCH, "").strip().lower() in _TRUE


def require_network(what: str) -> None:
    """Stop here when the network is switched off.

    Parameters
    ----------
    what : str
        What wants the network, such as ``"embedding 12 images with the Nomic API"``.

    Raises
    ------
    OfflineError
        The network is switched off; the message names `what` and the switch.
    """
    if is_offline():
        raise OfflineError(
            f"{what} needs the network, which is switched off (--offline, or {SWITCH}=1); "
            "switch it on, or use what is stored on this machine already"
        )


def apply_switches() -> None:
    """Switch off the telemetry of the libraries used, always; and their network access when offline.

    Telemetry is switched off even if the environment asks for it. Network switches are only ever switched on,
    never back, as the libraries would not see it.
    """
    os.environ.update(_NEVER)
    if is_offline():
        os.environ.update(_WHEN_OFFLINE)
