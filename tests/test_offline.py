"""The network switch, and the switches of the libraries used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from embedstore import offline
from embedstore.errors import OfflineError


@pytest.mark.parametrize("value", ["1", "true", " YES ", "on"])
def test_switch_is_on(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The usual words for yes switch the network off."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", value)
    assert offline.is_offline()


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_switch_is_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The usual words for no leave the network on, and asking for it passes."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", value)
    assert not offline.is_offline()
    offline.require_network("anything")


def test_error_names_what_and_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says who wanted the network and how it was switched off, and is a ConnectionError."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"loading the moon.*--offline.*EMBEDSTORE_OFFLINE=1") as caught:
        offline.require_network("loading the moon")
    assert isinstance(caught.value, ConnectionError)


def _libraries_see(environment: dict[str, str]) -> dict[str, bool]:
    """Return, from a fresh process, what the real libraries made of the switches."""
    code = (
        "import json; from embedstore import offline; offline.apply_switches();"
        "import datasets.config, huggingface_hub.constants as hub;"
        "print(json.dumps({'datasets': bool(datasets.config.HF_HUB_OFFLINE),"
        "'hub': bool(hub.HF_HUB_OFFLINE), 'no_telemetry': bool(hub.HF_HUB_DISABLE_TELEMETRY)}))"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSF"))}
    run = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    seen: dict[str, bool] = json.loads(run.stdout)
    return seen


def test_libraries_obey_when_offline() -> None:
    """Offline, datasets and huggingface_hub see their own switch on, even where the environment said no."""
    seen = _libraries_see({"EMBEDSTORE_OFFLINE": "1", "HF_HUB_OFFLINE": "0"})
    assert seen == {"datasets": True, "hub": True, "no_telemetry": True}


def test_telemetry_is_off_online_too() -> None:
    """Online, the network stays on for the libraries and their telemetry is off even if it was asked for."""
    seen = _libraries_see({"EMBEDSTORE_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "0"})
    assert seen == {"datasets": False, "hub": False, "no_telemetry": True}
