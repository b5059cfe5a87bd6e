"""Three thresholds over 10,000 pictures: what the cookbook's loop sends, and what a store sends.

    scripts/in_venv python scripts/count_requests.py [--pictures 10000]

Both ways run the official client against the stand-in server, which counts. The store's thresholds are tried in a
process that cannot open a socket. Both ways must find the same pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embedstore.testing import NomicServer

QUERY = "a tiny red ball"
THRESHOLDS = (0.0544, 0.0564, 0.0584)

COOKBOOK = """
import json, sys
import numpy as np
from nomic import embed
files, query, *thresholds = sys.argv[1:]
files = open(files).read().split("\\n")
text = np.array(embed.text([query], model="nomic-embed-text-v1.5", task_type="search_query")["embeddings"])[0]
for threshold in thresholds:
    found = np.array(embed.image(files, model="nomic-embed-vision-v1.5")["embeddings"])
    print(json.dumps([file for file, score in zip(files, found @ text) if score > float(threshold)]), flush=True)
"""

STORE = """
import json, socket, sys
class Closed(socket.socket):
    def __init__(self, *arguments, **options): raise OSError("sockets are closed")
socket.socket = Closed
from embedstore import EmbedStore
path, query, *thresholds = sys.argv[1:]
store = EmbedStore.open(path)
for threshold in thresholds:
    print(json.dumps(store.classify(query, float(threshold)).uri))
"""


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pictures", type=int, default=10_000)
    count = options.parse_args().pictures
    with tempfile.TemporaryDirectory() as name, NomicServer() as server:
        folder = Path(name)
        environment = {**os.environ, **server.environment(folder / "home")}
        files = draw(folder / "pictures", count)
        (folder / "files.txt").write_text("\n".join(files))
        limits = [str(threshold) for threshold in THRESHOLDS]
        print(f"{'':<44}{'requests':>9}{'pictures':>9}{'seconds':>9}")

        def step(what: str, *words: str) -> list[Any]:
            requests, images, started = server.requests, server.images, time.perf_counter()
            done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            seconds = time.perf_counter() - started
            print(f"{what:<44}{server.requests - requests:>9,}{server.images - images:>9,}{seconds:>9.1f}")
            return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

        store = str(folder / "s.store")
        (folder / "query.txt").write_text(QUERY)
        theirs = step(f"cookbook, {len(limits)} thresholds", "-c", COOKBOOK, str(folder / "files.txt"), QUERY, *limits)
        step(
            "embedstore add",
            "-m",
            "embedstore",
            "add",
            store,
            str(folder / "pictures"),
            "--model",
            "nomic",
            "-q",
        )
        step("embedstore queries", "-m", "embedstore", "queries", store, str(folder / "query.txt"), "-q")
        ours = step(f"{len(limits)} thresholds on the store, no sockets", "-c", STORE, store, QUERY, *limits)
        step("embedstore add, a second time", "-m", "embedstore", "add", store, str(folder / "pictures"), "-q")
    same = [set(one) == set(two) for one, two in zip(theirs, ours, strict=True)]
    print(f"matches: {', '.join(f'{len(found):,} above {limit}' for found, limit in zip(ours, limits, strict=True))}")
    print("the same pictures both ways" if all(same) else "THE TWO WAYS DIFFER")


def draw(folder: Path, count: int) -> list[str]:
    """Write pictures of 8 x 8 pixels that all differ; return their paths."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number:05}.png"))
        Image.fromarray(pixels).save(paths[-1], compress_level=1)
    return paths


if __name__ == "__main__":
    main()
