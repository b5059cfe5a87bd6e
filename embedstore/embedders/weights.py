"""The files of local models: where they lie, how they get there, and whether they are still what was fetched.

They lie in the cache of the Hugging Face hub, so that fastembed's own downloads are found too; only `Weights.pull`
touches the network. A pull asks for one commit of a repository, `Tower.revision`, so that the weights under a store do
not change; compares each file with the hub's checksum of it, and with `KNOWN` where that has one; and writes checksums
down, which are compared at every later load. Running the models is left to `local_towers`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedstore import files
from embedstore.errors import EmbedderError, ModelNotFoundError, ServiceError
from embedstore.settings import apply_switches, require_network, user_cache

_log = logging.getLogger("embedstore")

_OPTIONAL = ("config.json", "special_tokens_map.json")
"""Files that are read where they are; fastembed works without them."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

KNOWN: Final[dict[tuple[str, str], str]] = {
    (repo, name): checksum
    for repo, checksums in {
        "nomic-ai/nomic-embed-text-v1.5": {
            "onnx/model.onnx": "147d5aa88c2101237358e17796cf3a227cead1ec304ec34b465bb08e9d952965",
            "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
        },
        "Qdrant/clip-ViT-B-32-vision": {
            "model.onnx": "c68d3d9a200ddd2a8c8a5510b576d4c94d1ae383bf8b36dd8c084f94e1fb4d63",
            "preprocessor_config.json": "ce945ef831c9972c135b5b198a03d8eeb70478cd69c0238f24caf1903a9965e6",
        },
        "Qdrant/clip-ViT-B-32-text": {
            "model.onnx": "4dbe762b11e36488304471e439cde89da053ad7acaddbf9e096745d142ec8d8b",
            "tokenizer.json": "b68d571997a1f81bf521fb73806740ddb91e4ed6666cb6e996c066bb289cf55b",
        },
        "onnx-community/siglip2-base-patch16-224-ONNX": {
            "onnx/vision_model.onnx": "c0573e3f4140c3a7c4e9cc5912bd6b26a033b46a6a8e8af26cbea262b163bcad",
            "onnx/text_model.onnx": "baf12d941beabafafb14f7b4adb38dc15be18681b964a84410ec53d9d65e6293",
            "onnx/vision_model_fp16.onnx": "a1959f7bd3993a607e48839f6d01e25b876fe76afda301b028b78eef68aabd95",
            "onnx/text_model_fp16.onnx": "711da56ada0a4aa11c7dd3320df741081a3cae4f0ae1b5e5c6d5b294738d0eb0",
            "onnx/vision_model_quantized.onnx": "5f2b401c1a4fc095702a5d45348e17ad46c4f87064085365b43c6e8eaa5c0070",
            "onnx/text_model_quantized.onnx": "3a0603d3a00c05a80a6ded4743c16aaac7b1e62cdcc7e362e7ce418659b96400",
            "tokenizer.json": "cb9140fae3ac5122c972d37adf83e1248471a38147ad76f8215c8872c6fd8322",
        },
    }.items()
    for name, checksum in checksums.items()
}
"""SHA-256 of files at the revision that is pinned, as several public projects that pin the same commit list them.

They could not be compared with the hub itself when this was written. Files that are not here have the hub's own
checksum only.
"""


@dataclass(frozen=True)
class Tower:
    """One of a model's two halves: its repository on the hub, the commit, and the files that must be there.

    `name` is that of the model in fastembed whose code runs it; `graph` the ONNX file, which need not be fastembed's.
    """

    name: str
    repo: str
    graph: str
    settings: tuple[str, ...]
    revision: str

    @property
    def files(self) -> tuple[str, ...]:
        """The paths inside the repository that loading needs, the ONNX file first."""
        return (self.graph, *self.settings)


class Weights:
    """The files of both towers in the hub's cache.

    `cache`, where the hub's client keeps its repositories, is `cache_dir`, else ``FASTEMBED_CACHE_PATH``, else in the
    user's cache: fastembed's own default is the temporary directory, which a reboot may empty, and a gigabyte deserves
    better. `model` is what ``embedstore models pull`` takes, `gigabytes` what that fetches.
    """

    def __init__(
        self, towers: Sequence[Tower], model: str, gigabytes: float, cache_dir: str | Path | None = None
    ) -> None:
        self.towers, self.gigabytes = tuple(towers), gigabytes
        named = cache_dir or os.environ.get("FASTEMBED_CACHE_PATH")
        self.cache = Path(named) if named else user_cache("FASTEMBED_CACHE_PATH") / "fastembed"
        self.pull_command = f"embedstore models pull {model}"

    def find(self, tower: Tower) -> Path | None:
        """Return the folder of a tower's files, or None when one of them is not on this machine.

        The pinned commit comes first, then what another program has fetched as the newest.
        """
        apply_switches()
        from huggingface_hub import try_to_load_from_cache  # a sixth of a second, so not at start

        for revision in (tower.revision, "main"):
            found = [try_to_load_from_cache(tower.repo, name, self.cache, revision) for name in tower.files]
            if all(isinstance(file, str) for file in found):
                return Path(str(found[0])).parents[tower.graph.count("/")]
        return None

    def missing(self) -> list[str]:
        """Return the repositories of which a file is not on this machine; empty when both towers are here."""
        return [tower.repo for tower in self.towers if self.find(tower) is None]

    def require(self, towers: Sequence[Tower] | None = None) -> list[Path]:
        """Return the towers' folders; ModelNotFoundError, which says how to get the weights, if one is not here."""
        wanted = self.towers if towers is None else towers
        folders = [folder for tower in wanted if (folder := self.find(tower))]
        if len(folders) < len(wanted):
            raise ModelNotFoundError(
                f"the weights of {' and '.join(dict.fromkeys(self.missing()))} are not in {self.cache}. Run "
                f"`{self.pull_command}` once (a download of about {self.gigabytes:g} GB), "
                "or point FASTEMBED_CACHE_PATH at a folder that has them"
            )
        return folders

    def size(self) -> int | None:
        """Return the bytes that both towers take, or None when they are not both here."""
        folders = [self.find(tower) for tower in self.towers]
        pairs = [(folder, tower) for folder, tower in zip(folders, self.towers, strict=True) if folder is not None]
        if len(pairs) < len(self.towers):
            return None
        return sum(file.stat().st_size for file in {folder / name for folder, tower in pairs for name in tower.files})

    def require_sound(self, tower: Tower) -> Path:
        """Return a tower's folder after its files were compared with the checksums written down at the pull.

        Files that another program has fetched have none, and are taken as they are until `pull` has looked at them.
        Raises ModelNotFoundError where one is missing, EmbedderError where one is not what was fetched.
        """
        folder = self.require([tower])[0]
        noted = self._noted(tower, folder)
        changed = [name for name in tower.files if name in noted and _fingerprint(folder / name) != noted[name]["xxh3"]]
        if changed:
            raise EmbedderError(
                f"{', '.join(changed)} of {tower.repo} in {folder} is not the file that was fetched: damaged or "
                f"replaced since; delete that folder and run `{self.pull_command}`"
            )
        return folder

    def revisions(self) -> dict[str, str]:
        """Return the commits whose files are used, by repository."""
        found = {tower.repo: self.find(tower) for tower in self.towers}
        return {repo: folder.name for repo, folder in found.items() if folder is not None}

    def pull(self, progress: bool = True) -> Path:
        """Download what is missing of both towers, files already here are kept; return the cache folder.

        What is here, and was not yet looked at, is compared with what is known of it, and its checksums are written
        down. The hub's bars show on standard error, unless `progress` is off. Raises OfflineError where the network is
        switched off and something is missing, ServiceError where the hub does not answer, does not deliver every file,
        or delivers another one.
        """
        missing = list(dict.fromkeys(self.missing()))
        if missing:
            require_network(f"`{self.pull_command}`, to download {' and '.join(missing)},")
        for tower in self.towers:
            if self.find(tower) is None:
                self._download(tower, progress)
            self._note(tower)
        return self.cache

    def _download(self, tower: Tower, progress: bool) -> None:
        """Fetch one tower and see that it is complete."""
        from huggingface_hub import snapshot_download

        advice = f"nothing is lost: what has arrived is kept in {self.cache}; run the command again"
        wanted = [*tower.files, *_OPTIONAL]
        try:
            with _bars(progress):
                snapshot_download(tower.repo, revision=tower.revision, cache_dir=self.cache, allow_patterns=wanted)
        except Exception as error:  # the hub's client lets through the errors of its HTTP library, which vary
            reason = " ".join(str(error).split())
            raise ServiceError(f"{tower.repo} could not be downloaded: {reason}; {advice}") from error
        if self.find(tower) is None:
            # The hub's client is content with an older, partial copy when it cannot reach the hub.
            raise ServiceError(
                f"{tower.repo} is not complete: it needs {', '.join(tower.files)}, and the hub has not delivered or "
                f"not answered; {advice}"
            )

    def _note(self, tower: Tower) -> None:
        """Compare a tower's files with what is known of them, once, and write their checksums down."""
        folder = self.require([tower])[0]
        noted = self._noted(tower, folder)
        new = [name for name in tower.files if name not in noted]
        for name in new:
            file = folder / name
            checksum = _sha256(file)
            expected = {KNOWN.get((tower.repo, name)) if folder.name == tower.revision else None, _of_the_hub(file)}
            if wrong := expected - {None, checksum}:
                raise ServiceError(
                    f"{name} of {tower.repo} at {folder.name} has the SHA-256 {checksum}, and {wrong.pop()} was "
                    f"expected: a download that was cut short, or another file under this name. Delete {folder} and "
                    f"{file.resolve()}, and run `{self.pull_command}` again"
                )
            noted[name] = {"size": file.stat().st_size, "sha256": checksum, "xxh3": _fingerprint(file)}
        if new:
            record = {"repo": tower.repo, "revision": folder.name, "files": noted}
            files.replace(self._record(tower, folder), json.dumps(record, indent=1).encode())

    def _record(self, tower: Tower, folder: Path) -> Path:
        """Return the file with the checksums of a commit's files, beside what the hub's client keeps."""
        return folder.parents[1] / f"embedstore-{folder.name}.json"

    def _noted(self, tower: Tower, folder: Path) -> dict[str, dict[str, Any]]:
        """Return what was written down of a commit's files, by name; nothing where that cannot be read."""
        path = self._record(tower, folder)
        try:
            noted = json.loads(path.read_text())["files"]
            return {name: noted[name] for name in noted if isinstance(noted[name]["xxh3"], str)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError):
            _log.warning("%s cannot be read: the weights are not compared with it; `%s`", path, self.pull_command)
            return {}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fingerprint(file: Path) -> str:
    """Return the xxh3 of a file: at ten times the speed of SHA-256 it can be looked at whenever a model is loaded."""
    import xxhash

    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _of_the_hub(file: Path) -> str | None:
    """Return the SHA-256 that the hub gives for a file: large ones are kept under it as their name."""
    name = file.resolve().name
    return name if _SHA256.fullmatch(name) else None


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Switch the hub's progress bars off for a while, unless they are to be shown."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
