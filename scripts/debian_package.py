"""A pinned Debian package -> its files in a folder, with no installing; used by the scripts that build data.

The file comes from `apt-get download` (or is given), and is refused unless it has the SHA-256 written down.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DebianPackage:
    """Name, version and SHA-256 of one package file."""

    name: str
    version: str
    sha256: str


STAMPS = DebianPackage(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
WORDNET = DebianPackage(
    "wordnet-base",
    "1:3.0-37",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
)


def unpack(package: DebianPackage, folder: Path, deb: Path | None = None) -> Path:
    """Fetch `package` (unless given as the file `deb`), check it, unpack it below `folder`; return that root.

    Raises
    ------
    SystemExit
        The package cannot be fetched, or its bytes are not the pinned ones.
    """
    if deb is None:
        deb = _download(package, folder)
    found = hashlib.sha256(deb.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(
            f"{deb.name} has SHA-256 {found}; {package.name} {package.version} has {package.sha256}. "
            "Fetch that version (snapshot.debian.org keeps it) and give its file."
        )
    root = folder / package.name
    subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    return root


def _download(package: DebianPackage, folder: Path) -> Path:
    """Return the package file that `apt-get download` writes to `folder`."""
    wanted = f"{package.name}={package.version}"
    done = subprocess.run(["apt-get", "download", wanted], cwd=folder, capture_output=True, text=True)
    files = sorted(folder.glob(f"{package.name}_*.deb"))
    if done.returncode != 0 or not files:
        raise SystemExit(
            f"`apt-get download {wanted}` gave no file: {done.stderr.strip()[-300:]}. "
            "Run `apt-get update`, or fetch the file elsewhere and give its path."
        )
    return files[0]
