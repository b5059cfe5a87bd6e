"""The network's switch and those of other libraries; where the key is found, and that it shows nowhere."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedstore import settings
from embedstore.errors import CredentialsError, InputError, OfflineError
from embedstore.settings import API_KEY, STATE_DIR, Key, find_key, require_key, state_dir

SECRET = "nk-a+secret/with=signs"


@pytest.mark.parametrize("value", ["1", "true", " YES ", "on"])
def test_switch_is_on(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The usual words for yes switch the network off."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", value)
    assert settings.is_offline()


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_switch_is_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The usual words for no leave the network on, and asking for it passes."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", value)
    assert not settings.is_offline()
    settings.require_network("anything")


def test_error_names_what_and_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says who wanted the network and how it was switched off, and is a ConnectionError."""
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"loading the moon.*--offline.*EMBEDSTORE_OFFLINE=1") as caught:
        settings.require_network("loading the moon")
    assert isinstance(caught.value, ConnectionError)


def _libraries_see(environment: dict[str, str]) -> dict[str, bool]:
    """Return, from a fresh process, what the real libraries made of the switches."""
    code = (
        "import json; from embedstore import settings; settings.apply_switches();"
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


def test_the_state_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable moves the folder; without it, it is the user's own on this platform."""
    monkeypatch.setenv("EMBEDSTORE_STATE_DIR", str(tmp_path / "elsewhere"))
    assert settings.state_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("EMBEDSTORE_STATE_DIR")
    assert "embedstore" in settings.state_dir().parts


def test_the_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the state folder."""
    monkeypatch.setenv("EMBEDSTORE_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert settings.cache_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("EMBEDSTORE_CACHE_DIR")
    assert "embedstore" in settings.cache_dir().parts


@pytest.fixture(autouse=True)
def _no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NOMIC_API_KEY", raising=False)


def write_login(home: Path, content: str) -> Path:
    (home / ".nomic").mkdir()
    path = home / ".nomic" / "credentials"
    path.write_text(content)
    return path


def login(**fields: object) -> str:
    return json.dumps({"refresh_token": None, "token": SECRET, "tenant": "production", "expires": None, **fields})


def test_flag_beats_variable_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over the variable, the variable over the client's file, and each says where it is from."""
    assert find_key() is None
    path = write_login(tmp_path, login(token="nk-file"))
    before = path.read_bytes(), path.stat().st_mtime_ns
    found = [find_key()]
    monkeypatch.setenv("NOMIC_API_KEY", " nk-variable\n")
    found += [find_key(), find_key("nk-flag")]
    assert [(key.reveal(), key.source) for key in found if key] == [
        ("nk-file", "~/.nomic/credentials"),
        ("nk-variable", "NOMIC_API_KEY"),
        ("nk-flag", "the argument `key`"),
    ]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before, "the client's file is only read"


def test_an_empty_variable_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is as good as none, and the error then names the three places."""
    monkeypatch.setenv("NOMIC_API_KEY", "  ")
    assert find_key("") is None
    with pytest.raises(CredentialsError, match=r"key=.*NOMIC_API_KEY.*nomic login.*credentials"):
        require_key()


def test_the_key_does_not_show_itself() -> None:
    """No way of printing, formatting, pickling or copying a key shows the secret."""
    key = Key(SECRET, "a test")
    for shown in (repr(key), str(key), f"{key}", f"{key!r:>80}", "%s" % key, repr([key]), repr({"key": key})):  # noqa: UP031
        assert SECRET not in shown
        assert "a test" in shown
    assert not hasattr(key, "__dict__")
    for escape in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be pickled"):
            escape(key)


def test_scrub_takes_out_every_form_of_the_key() -> None:
    """A text is freed of the key as it is and percent-encoded."""
    text = f"sent Bearer {SECRET} to /?key=nk-a%2Bsecret%2Fwith%3Dsigns and /?k=nk-a%2Bsecret/with%3Dsigns"
    assert Key(SECRET, "a test").scrub(text) == "sent Bearer [key] to /?key=[key] and /?k=[key]"


@pytest.mark.parametrize("bad", ["nk-a b", "nk-ü", "nk-a\nInjected: header", "nk-\x00"])
def test_a_malformed_key_is_refused_without_being_shown(bad: str) -> None:
    """A key that no header can carry is refused before a library prints it in its own error."""
    with pytest.raises(CredentialsError) as caught:
        find_key(bad)
    assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [login()[:-4], "[]", '"' + SECRET + '"', "{}", login(token=None), login(token=""), login(token=12), ""],
)
def test_a_broken_file_is_reported_without_its_content(tmp_path: Path, content: str) -> None:
    """A credentials file that cannot be used is an error which quotes nothing of it, not even in its cause."""
    write_login(tmp_path, content)
    with pytest.raises(CredentialsError, match="credentials") as caught:
        find_key()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_expired_login_is_said_to_be_expired(tmp_path: Path) -> None:
    """A login whose time is over is refused here; one that is still good is taken, with its deployment."""
    path = write_login(tmp_path, login(expires=time.time() - 1))
    with pytest.raises(CredentialsError, match="expired"):
        find_key()
    fields = {"tenant": "enterprise", "api_domain": "api.example.com", "frontend_domain": "example.com"}
    path.write_text(login(expires=time.time() + 60, **fields))
    key = require_key()
    assert key.tenant == fields


# --- whose service a key is for -------------------------------------------------------------------------------

ENTERPRISE = {"tenant": "enterprise", "api_domain": "api.acme.example", "frontend_domain": "acme.example"}


def test_a_key_beside_a_login_to_another_deployment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have gone to Nomic's public service without a word: both are named, and the way to say which."""
    write_login(tmp_path, login(**ENTERPRISE))
    monkeypatch.setenv("NOMIC_API_KEY", "nk-variable")
    for given in (None, "nk-flag"):
        with pytest.raises(CredentialsError) as caught:
            find_key(given)
        said = str(caught.value)
        for name in ("api-atlas.nomic.ai", "api.acme.example", "NOMIC_DOMAIN=acme.example", "NOMIC_DOMAIN=atlas.nomic"):
            assert name in said
        assert "ATLAS_API_PATH" in said
        assert "nk-" not in said.replace("nk-...", "")


@pytest.mark.parametrize(
    ("domain", "tenant", "host"),
    [
        ("acme.example", "enterprise", "api.acme.example"),
        ("atlas.nomic.ai", "production", "api-atlas.nomic.ai"),
        ("staging-atlas.nomic.ai", "staging", "staging-api-atlas.nomic.ai"),
    ],
)
def test_a_domain_says_whose_the_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str, tenant: str, host: str
) -> None:
    """With NOMIC_DOMAIN a key from the environment is for that deployment, whatever login lies beside it."""
    write_login(tmp_path, login(**ENTERPRISE))
    monkeypatch.setenv("NOMIC_API_KEY", "nk-variable")
    monkeypatch.setenv("NOMIC_DOMAIN", domain)
    key = require_key()
    assert (key.reveal(), key.tenant["tenant"], key.tenant["api_domain"]) == ("nk-variable", tenant, host)


def test_an_address_settles_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ATLAS_API_PATH it is known where the key goes."""
    write_login(tmp_path, login(**ENTERPRISE))
    monkeypatch.setenv("NOMIC_API_KEY", "nk-variable")
    monkeypatch.setenv("ATLAS_API_PATH", "https://atlas.acme.example")
    assert require_key().reveal() == "nk-variable"


def test_a_login_is_sent_to_its_own_deployment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain that is not the login's is refused with both named; its own is fine; what is no domain is said."""
    write_login(tmp_path, login(**ENTERPRISE))
    monkeypatch.setenv("NOMIC_DOMAIN", "acme.example")
    assert require_key().tenant == ENTERPRISE
    monkeypatch.setenv("NOMIC_DOMAIN", "other.example")
    with pytest.raises(CredentialsError, match=r"api\.acme\.example.*other\.example"):
        find_key()
    monkeypatch.setenv("NOMIC_DOMAIN", "https://acme.example/")
    with pytest.raises(CredentialsError, match="no domain"):
        find_key()


def test_a_key_beside_a_public_login_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are for the same service, so nothing is unclear; a broken file beside a key does not matter either."""
    path = write_login(tmp_path, login())
    monkeypatch.setenv("NOMIC_API_KEY", "nk-variable")
    assert require_key().reveal() == "nk-variable"
    path.write_text("{")
    assert require_key().reveal() == "nk-variable"


def test_a_browser_login_that_the_client_refreshed_is_accepted(tmp_path: Path) -> None:
    """The client writes the new token and leaves the old moment beside it: the token's own moment counts."""
    import jwt

    path, old = write_login(tmp_path, ""), time.time() - 3600
    for seconds, good in ((3600, True), (-60, False)):
        token = jwt.encode({"exp": int(time.time() + seconds)}, "k" * 32, algorithm="HS256")
        path.write_text(login(token=token, refresh_token="r", expires=old))
        if good:
            assert require_key().reveal() == token
        else:
            with pytest.raises(CredentialsError, match="expired"):
                find_key()


def test_a_user_without_a_home_has_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container run under any number: keys of the environment are found, folders are asked for by name."""

    def no_home(*given: object, **options: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv(API_KEY, raising=False)
    assert find_key() is None
    monkeypatch.setenv(API_KEY, "nk-secret-1")
    assert find_key() is not None
    monkeypatch.delenv(STATE_DIR, raising=False)
    monkeypatch.setattr("platformdirs.user_state_path", no_home)
    with pytest.raises(OSError, match=f"set HOME, or {STATE_DIR}"):
        state_dir()


def test_the_bound_of_a_cache_is_given_or_in_the_environment_or_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the usual units; a folder that is not there yet counts as where it will be."""
    sizes = {"50GB": 50 * 10**9, "512 MiB": 512 << 20, "1.5k": 1500, "2tib": 2 << 40, 7: 7, "7": 7}
    assert {text: settings.bytes_of(text) for text in sizes} == sizes
    for bad in ("", "much", "-4", "0", "5 GX", "1e3"):
        with pytest.raises(InputError, match=r"is no number of bytes .*such as 50GB"):
            settings.bytes_of(bad)
    folder = tmp_path / "not" / "yet"
    free = shutil.disk_usage(tmp_path).free
    assert min(50 * 10**9, free // 2) == pytest.approx(settings.cache_bytes(folder), rel=0.1)
    monkeypatch.setenv(settings.CACHE_SIZE, "3MB")
    assert settings.cache_bytes(folder) == 3_000_000
    assert settings.cache_bytes(folder, "4MB") == 4_000_000


def test_what_must_not_be_lost_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system keeps data of users, or where the environment says; it is no cache."""
    monkeypatch.delenv(settings.DATA_DIR, raising=False)
    assert settings.data_dir() != settings.cache_dir()
    monkeypatch.setenv(settings.DATA_DIR, str(tmp_path))
    assert settings.data_dir() == tmp_path
