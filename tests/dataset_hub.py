"""A stand-in for the part of the Hugging Face hub that serves data sets: folders, by revision, to the real library."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit


class DatasetHub:
    """Serves revisions of data sets from folders; `requests` lists each path that was asked for.

    Parameters
    ----------
    repositories : dict of str to dict of str to Path
        Name of a data set, such as ``"owner/name"``, to the folder of each revision, such as ``"main"``.
    """

    def __init__(self, repositories: dict[str, dict[str, Path]]) -> None:
        self.requests: list[str] = []
        self._commits = {
            hashlib.sha1(f"{name}@{revision}".encode(), usedforsecurity=False).hexdigest(): (name, revision)
            for name, revisions in repositories.items()
            for revision in revisions
        }
        self._repositories = repositories
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(path)
                status, headers, body = hub.answer(path, self.rfile.read(length))
                wanted = self.headers.get("Range", "")
                if status == 200 and wanted.startswith("bytes="):
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    end = min(int(last or len(body) - 1), len(body) - 1)
                    headers["Content-Range"] = f"bytes {first}-{end}/{len(body)}"
                    status, body = 206, body[int(first) : end + 1]
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a test reads `requests`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a request."""
        for name in self._repositories:
            for start in (f"/datasets/{name}/resolve/", f"/api/datasets/{name}/"):
                if path.startswith(start):
                    return self._of_dataset(name, path.removeprefix(start), sent, files=start.startswith("/datasets"))
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def _of_dataset(self, name: str, rest: str, sent: bytes, *, files: bool) -> tuple[int, dict[str, str], bytes]:
        what, _, rest = ("file", "", rest) if files else rest.partition("/")
        revision, folder = self._revision(name, rest)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        commit = next(key for key, value in self._commits.items() if value == (name, revision))
        below = rest.removeprefix(revision).removeprefix(commit).strip("/")
        here = folder / below
        if what == "file":
            if not here.is_file():
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"{}"
            return 200, {"ETag": f'"{_oid(here)}"', "X-Repo-Commit": commit}, here.read_bytes()
        if what == "revision":
            siblings = [{"rfilename": entry["path"]} for entry in _tree(folder, folder) if entry["type"] == "file"]
            return _json({"id": name, "sha": commit, "siblings": siblings})
        if what == "paths-info":
            asked = parse_qs(sent.decode()).get("paths", []) if not sent.startswith(b"{") else json.loads(sent)["paths"]
            wanted = [asked] if isinstance(asked, str) else asked
            return _json([_entry(folder / path, folder) for path in wanted if (folder / path).exists()])
        if what == "tree" and here.is_dir():
            return _json(_tree(here, folder))
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"

    def _revision(self, name: str, rest: str) -> tuple[str, Path | None]:
        """Find the revision, or its commit, with which a path begins."""
        for commit, (owner, revision) in self._commits.items():
            if owner == name and rest.startswith((revision, commit)):
                return revision, self._repositories[name][revision]
        return "", None

    def __enter__(self) -> DatasetHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _tree(folder: Path, root: Path) -> list[dict[str, object]]:
    return [_entry(path, root) for path in sorted(folder.rglob("*"))]


def _entry(path: Path, root: Path) -> dict[str, object]:
    about: dict[str, object] = {"path": str(path.relative_to(root)), "type": "directory" if path.is_dir() else "file"}
    return about | {"oid": _oid(path), "size": path.stat().st_size if path.is_file() else 0}


def _oid(path: Path) -> str:
    content = path.read_bytes() if path.is_file() else str(path).encode()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
