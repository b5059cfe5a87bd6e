"""Fetches the JavaScript that the page and its tests carry with them, from the npm registry, and notes what it was.

    python scripts/vendor_scripts.py            fetch, check, write
    python scripts/vendor_scripts.py --check    fetch, and say whether the files here are those

Each tarball must have the SHA-512 that the registry names for that version, and the one that the manifest here has
for it already. One file of each is taken, which imports nothing; only its pointer to a source map is left out. The
licence goes beside it; the manifest says name, version, licence, address and the SHA-256 of each file as it is here.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = "https://registry.npmjs.org"
PAGE = ROOT / "embedstore" / "page" / "static" / "vendor"
TESTS = ROOT / "tests" / "page"
_SECONDS = 60


@dataclass(frozen=True)
class Vendored:
    """A package of which one script is taken, and where to: member of the tarball -> file here."""

    name: str
    version: str
    licence: str
    folder: Path
    members: dict[str, str]


VENDORED = (
    Vendored(
        "lit-html",
        "3.3.3",
        "BSD-3-Clause",
        PAGE,
        {"package/lit-html.js": "lit-html.js", "package/LICENSE": "lit-html.LICENSE.txt"},
    ),
    Vendored(
        "@preact/signals-core",
        "1.14.5",
        "MIT",
        PAGE,
        {"package/dist/signals-core.mjs": "signals-core.js", "package/LICENSE": "signals-core.LICENSE.txt"},
    ),
    Vendored(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        TESTS,
        {
            "package/axe.min.js": "axe.min.js",
            "package/LICENSE": "axe.LICENSE.txt",
            "package/LICENSE-3RD-PARTY.txt": "axe.LICENSE-3RD-PARTY.txt",
        },
    ),
)
MANIFESTS = {PAGE: "manifest.json", TESTS: "axe.json"}
SOURCE_MAP = re.compile(rb"\s*//# sourceMappingURL=\S*\s*\Z")


def fetch(address: str) -> bytes:
    """Return what an address holds."""
    with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
        content: bytes = answer.read()
    return content


def named_by_registry(package: Vendored) -> dict[str, Any]:
    """Return what the registry says of a version: address and integrity of its tarball, and its licence."""
    said = json.loads(fetch(f"{REGISTRY}/{package.name.replace('/', '%2f')}/{package.version}"))
    if said["license"] != package.licence:
        raise SystemExit(f"{package.name} {package.version} has the licence {said['license']}, not {package.licence}")
    return {"address": said["dist"]["tarball"], "integrity": said["dist"]["integrity"]}


def checked_tarball(package: Vendored, named: dict[str, Any]) -> bytes:
    """Return a tarball that has the SHA-512 that the registry names, which is the one in the manifest here."""
    content = fetch(named["address"])
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != named["integrity"]:
        raise SystemExit(f"{named['address']} has {found}, and the registry names {named['integrity']}")
    manifest = package.folder / MANIFESTS[package.folder]
    for entry in json.loads(manifest.read_text()) if manifest.exists() else []:
        same = (entry["name"], entry["version"]) == (package.name, package.version)
        if same and entry["integrity"] != found:
            raise SystemExit(f"{named['address']} is no longer what was taken: {found} for {entry['integrity']}")
    return content


def taken(package: Vendored) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a package by their names here, and the package's entry in the manifest."""
    named = named_by_registry(package)
    with tarfile.open(fileobj=io.BytesIO(checked_tarball(package, named))) as tarball:
        files = {}
        for member, name in package.members.items():
            file = tarball.extractfile(member)
            if file is None:
                raise SystemExit(f"{member} in {named['address']} is no file")
            content = file.read()
            files[name] = SOURCE_MAP.sub(b"\n", content) if name.endswith(".js") else content
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    entry = {"name": package.name, "version": package.version, "licence": package.licence, **named, "sha256": hashes}
    return files, entry


def main(arguments: list[str]) -> int:
    """Fetch all packages; write their files and manifests, or compare them with what is here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Write nothing; end with 1 where a file differs.")
    check = parser.parse_args(arguments).check
    contents: dict[Path, bytes] = {}
    entries: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in MANIFESTS}
    for package in VENDORED:
        files, entry = taken(package)
        contents |= {package.folder / name: content for name, content in files.items()}
        entries[package.folder].append(entry)
    for folder, name in MANIFESTS.items():
        contents[folder / name] = (json.dumps(entries[folder], indent=2) + "\n").encode()
    differing = 0
    for path, content in contents.items():
        same = path.exists() and path.read_bytes() == content
        differing += not same
        state = "same" if same else "differs" if check else "written"
        print(f"{state}: {path.relative_to(ROOT)} ({len(content):,} bytes)")
        if not same and not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
