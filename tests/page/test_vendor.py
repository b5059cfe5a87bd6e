"""The JavaScript that is carried with the package and its tests: unchanged, with licences, importing nothing."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "embedstore" / "page" / "static" / "vendor"
MANIFESTS = (PAGE / "manifest.json", ROOT / "tests" / "page" / "axe.json")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_carried_files_are_those_of_the_manifest(manifest: Path) -> None:
    """Every file has the SHA-256 that was written down; each script has a licence beside it."""
    entries = json.loads(manifest.read_text())
    assert entries
    for entry in entries:
        assert entry["address"].startswith("https://registry.npmjs.org/")
        assert entry["address"].endswith(f"-{entry['version']}.tgz")
        assert entry["licence"] in ("BSD-3-Clause", "MIT", "MPL-2.0")
        assert any("LICENSE" in name for name in entry["sha256"])
        for name, digest in entry["sha256"].items():
            assert hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == digest, name


def test_nothing_else_is_carried() -> None:
    """The folder holds what the manifest names, and the manifest."""
    named = {name for entry in json.loads((PAGE / "manifest.json").read_text()) for name in entry["sha256"]}
    assert {path.name for path in PAGE.iterdir()} == named | {"manifest.json"}


def test_carried_scripts_import_nothing() -> None:
    """No import, static or dynamic, no pointer to a source map, no address of another machine."""
    for script in PAGE.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert re.findall(r"\bimport\b|sourceMappingURL|https?://(?!www\.w3\.org)", text) == [], script.name
        assert re.search(r"export\{[^}]*\};?\s*$", text), script.name
