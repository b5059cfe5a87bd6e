"""A build backend (PEP 517) of the standard library alone: the tests build this package without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

_INFO = "embedstore_tiny-0.1.dist-info"
_FILES = {
    f"{_INFO}/METADATA": "Metadata-Version: 2.1\nName: embedstore-tiny\nVersion: 0.1\n",
    f"{_INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: zipped\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{_INFO}/entry_points.txt": "[embedstore.embedders]\ntiny = embedstore_tiny:TinyEmbedder\n",
}


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Write the wheel and return its name."""
    files = {str(path): path.read_text() for path in Path("embedstore_tiny").glob("*.py")} | _FILES
    name = "embedstore_tiny-0.1-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        lines = []
        for path, content in files.items():
            wheel.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
            lines.append(f"{path},sha256={digest},{len(content.encode())}")
        wheel.writestr(f"{_INFO}/RECORD", "\n".join([*lines, f"{_INFO}/RECORD,,", ""]))
    return name
