"""A stand-in for the Hugging Face hub on this machine: serves one folder for each repository to the real client."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


class Hub:
    """Serves repositories from folders; `requests` lists each (method, path) that was asked for.

    Parameters
    ----------
    repositories : dict of str to Path
        Name of a repository, such as ``"owner/name"``, to the folder of its files.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve(with_body=True)

            def do_HEAD(self) -> None:
                self._serve(with_body=False)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a test reads `requests`."""

            def _serve(self, with_body: bool) -> None:
                url = urlsplit(self.path)
                hub.requests.append((self.command, unquote(url.path)))
                status, headers, body = answer(unquote(url.path), parse_qs(url.query))
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        def answer(path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
            for name, folder in repositories.items():
                files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
                if path.startswith(f"/api/models/{name}/tree/"):
                    tree = [
                        {"type": "file", "path": key, "size": file.stat().st_size, "oid": etag(file)}
                        for key, file in sorted(files.items())
                    ]
                    return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
                if path.startswith(f"/api/models/{name}"):
                    about = {
                        "id": name,
                        "sha": COMMIT,
                        "siblings": [{"rfilename": key} for key in sorted(files)],
                    }
                    return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
                if path.startswith(f"/{name}/resolve/"):
                    key = path.removeprefix(f"/{name}/resolve/").split("/", 1)[1]
                    if key in files:
                        headers = {"ETag": f'"{etag(files[key])}"', "X-Repo-Commit": COMMIT}
                        return 200, headers, files[key].read_bytes()
            return 404, {"X-Error-Code": "EntryNotFound"}, b"not found"

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def etag(file: Path) -> str:
    """Return a name for a file's content, as the hub does."""
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
