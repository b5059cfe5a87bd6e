"""Where the key is found, and that it shows nowhere."""

from __future__ import annotations

import copy
import json
import pickle
import time
from pathlib import Path

import pytest

from embedstore.credentials import Key, find_key, require_key, scrub
from embedstore.errors import CredentialsError

SECRET = "nk-a+secret/with=signs"


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
    return json.dumps(
        {"refresh_token": None, "token": SECRET, "tenant": "production", "expires": None, **fields}
    )


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
        ("nk-flag", "--api-key"),
    ]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before, "the client's file is only read"


def test_an_empty_variable_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is as good as none, and the error then names the three places."""
    monkeypatch.setenv("NOMIC_API_KEY", "  ")
    assert find_key("") is None
    with pytest.raises(CredentialsError, match=r"--api-key.*NOMIC_API_KEY.*nomic login.*credentials"):
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
    """A text is freed of the key as it is and percent-encoded; without a key it stays as it is."""
    text = f"sent Bearer {SECRET} to /?key=nk-a%2Bsecret%2Fwith%3Dsigns and /?k=nk-a%2Bsecret/with%3Dsigns"
    assert scrub(text, Key(SECRET, "a test")) == "sent Bearer [key] to /?key=[key] and /?k=[key]"
    assert scrub(text, None) == text


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
