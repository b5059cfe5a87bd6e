"""The page before a million rows: how long a query takes to be seen, what a step of the slider costs, and the memory.

    python scripts/measure_page.py [--rows 1000000] [--folder /dev/shm/page] [--keep]

Makes a store of vectors of 768 components (3.1 GB a million rows; `--folder` says where, `--keep` leaves it there for
the next run), whose texts are embedded by the stand-in of Nomic's service. Each row's picture is a photograph of
`data/photos`, reached by a path of its own. Then `embedstore serve` serves it, Chromium opens it, and a mouse does what
a person's hand would; thumbnails that were made are thrown away before each query.

Times are taken in the page twice: by the page's own marks, and by a clock of this script that runs from the click or
the slider's event to the frame after the next paint. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from in_browser import chromium, find_chromium, serving
from playwright.sync_api import Browser, Page

from embedstore.store import EmbedStore
from embedstore.testing import NomicServer

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
WORDS = "bird dog cat horse fish snake frog flower tree fruit car boat train plane house bridge road lamp chair table"
KINDS = [*WORDS.split(), *(f"{colour} {thing}" for colour in ("red", "blue") for thing in WORDS.split())]
BLOCK = 40_000
QUERIES = ("bird", "red car", "lamp", "blue boat", "snake")
STEPS = 400

CLOCK = """
    window.clock = {asked: [], pictured: [], steps: [], frames: []};
    const painted = (then) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => then(performance.now());
        channel.port2.postMessage(null);
    });
    const shown = () => [...document.querySelectorAll("[data-testid=tile]")].filter((tile) => {
        const box = tile.getBoundingClientRect();
        return box.width > 0 && box.bottom > 0 && box.top < innerHeight;
    });
    const waitFor = (condition, then) => {
        const look = () => (condition() ? painted(then) : requestAnimationFrame(look));
        look();
    };
    const rows = () => shown().map((tile) => tile.dataset.row).join();
    const whole = (tile) => [...tile.querySelectorAll("img")].every((image) => image.complete && image.naturalWidth);
    addEventListener("click", (event) => {
        if (!event.target.closest("[data-testid=ask]")) return;
        const [from, before] = [performance.now(), rows()];
        waitFor(() => rows() && rows() !== before, (at) => {
            window.clock.asked.push(at - from);
            waitFor(() => shown().length && shown().every((tile) => tile.querySelector("img") && whole(tile)),
                (then) => window.clock.pictured.push(then - from));
        });
    }, true);
    addEventListener("input", (event) => {
        if (!event.target.closest("[data-testid=threshold-range]")) return;
        const from = performance.now();
        painted((at) => window.clock.steps.push(at - from));
    }, true);
"""


def make_store(folder: Path, rows: int) -> EmbedStore:
    """Make a store of `rows` unit vectors, each of them near the text that is its kind, by more or less."""
    pictures = reachable(folder / "pictures", rows)
    store = EmbedStore.create(folder / "page.store", model="nomic")
    texts = store.query_vectors(KINDS)
    random = np.random.default_rng(7)
    started = time.perf_counter()
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        kinds = random.integers(0, len(KINDS), n)
        vectors = random.standard_normal((n, store.space.dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors += random.normal(0.2, 0.09, (n, 1)).astype(np.float32) * texts[kinds]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = pa.array(vectors.ravel())
        columns = {
            "id": [f"row-{row:07}" for row in range(start, start + n)],
            "uri": [next(pictures) for _ in range(n)],
            "width": np.full(n, 256),
            "height": np.full(n, 256),
            "kind": [KINDS[kind] for kind in kinds],
            "vector": pa.FixedSizeListArray.from_arrays(flat, store.space.dim),
        }
        store.add(pa.table(columns), embedding_column="vector", progress=False)
    print(f"{rows:,} rows of {store.space.dim} components made in {time.perf_counter() - started:.0f} s")
    return store


def reachable(folder: Path, rows: int) -> Iterator[str]:
    """Yield a path for each row: the photographs, each time through another folder that is a link to theirs."""
    photos = sorted(PHOTOS.rglob("*.jpg"))
    for number in range(-(-rows // len(photos))):
        link = folder / f"{number:05}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(PHOTOS.resolve(), target_is_directory=True)
        yield from (str(link / photo.relative_to(PHOTOS)) for photo in photos)


def own_megabytes(process: int) -> float:
    """Return the memory of a process that is no file's: the store's pages are the page cache's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmSwap"))) / 1024


def shared_out_megabytes(process: int) -> float:
    """Return the proportional memory of a process, files included: what is shared is divided among who shares it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Peak(threading.Thread):
    """Looks at the memory of a process twenty times a second, and keeps the largest."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.megabytes, self.done = process, 0.0, threading.Event()

    def run(self) -> None:
        """Look until told to stop, or until the process has ended."""
        while not self.done.wait(0.05) and Path(f"/proc/{self.process}/status").exists():
            self.megabytes = max(self.megabytes, own_megabytes(self.process))


def renderer_of(browser: Browser) -> int:
    """Return the process that runs the page: of several renderers the largest, as spare ones hold nothing."""
    found = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return max((int(one["id"]) for one in found if one["type"] == "renderer"), key=own_megabytes)


@contextmanager
def folder_for(named: Path | None, keep: bool) -> Iterator[Path]:
    """Give the folder that the store is made in, and remove it afterwards unless it is to be kept."""
    folder = named or Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder / "page.store", ignore_errors=True)
            shutil.rmtree(folder / "pictures", ignore_errors=True)
            shutil.rmtree(folder / "home", ignore_errors=True)
            if named is None:
                shutil.rmtree(folder)


def ask(page: Page, query: str) -> None:
    """Ask, and wait until every tile in sight has its picture."""
    seen = page.evaluate("clock.pictured.length")
    page.get_by_test_id("query-input").fill(query)
    page.get_by_test_id("ask").click()
    page.wait_for_function("before => clock.pictured.length > before", arg=seen, timeout=60_000)


def drag(page: Page, steps: int) -> list[float]:
    """Drag the slider to and fro; return the milliseconds between frames meanwhile."""
    slider = page.get_by_test_id("threshold-range")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.evaluate("""() => {
        let last = performance.now();
        window.watching = true;
        const note = (now) => { clock.frames.push(now - last); last = now; if (watching) requestAnimationFrame(note); };
        requestAnimationFrame(note);
    }""")
    page.mouse.down()
    for place in 0.5 + 0.45 * np.sin(np.linspace(0, 6 * np.pi, steps)):
        page.mouse.move(box["x"] + box["width"] * place, middle)
    page.mouse.up()
    found: list[float] = page.evaluate("() => { window.watching = false; return clock.frames.slice(2); }")
    return found


def own_marks(page: Page, name: str) -> list[float]:
    """Return the durations that the page itself has measured under a name."""
    found: list[float] = page.evaluate("name => performance.getEntriesByName(name).map((one) => one.duration)", name)
    return found


def judged(said: str, times: list[float], limits: dict[str, float]) -> bool:
    """Print the median and the 95th percentile of some milliseconds; tell whether they keep the limits."""
    found = {"median": statistics.median(times), "p95": float(np.percentile(times, 95))}
    kept = all(found[name] < limit for name, limit in limits.items())
    goals = ", ".join(f"{name} < {limit:g}" for name, limit in limits.items())
    mark = f"  (goal: {goals}{'' if kept else ': MISSED'})" if limits else ""
    print(f"  {said:<52} {found['median']:8.1f} {found['p95']:8.1f} {max(times):8.1f}{len(times):7}{mark}")
    return kept


def bounded(said: str, megabytes: float, limit: float | None = None) -> bool:
    """Print an amount of memory; tell whether it keeps the limit."""
    kept = limit is None or megabytes < limit
    mark = "" if limit is None else f"  (goal: < {limit:g}{'' if kept else ': MISSED'})"
    print(f"  {said:<52} {megabytes:8.0f} MB{mark}")
    return kept


def measure(browser: Browser, address: str, server: int, cache: Path) -> bool:
    """Do what a person does, and print what it took; tell whether every goal was kept."""
    peak = Peak(server)
    peak.start()
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.add_init_script(CLOCK)
    page.goto(address)
    for query in QUERIES:
        shutil.rmtree(cache, ignore_errors=True)
        ask(page, query)
    renderer = Peak(renderer_of(browser))
    renderer.start()
    unmeasured = drag(page, STEPS)
    page.evaluate("() => { clock.frames = []; }")
    plain = page.evaluate("clock.steps.splice(0)")
    marked = len(own_marks(page, "es-step"))
    by_column(page)
    drag_frames = drag(page, STEPS)
    page.locator(".es-notes .es-hint").wait_for(timeout=60_000)  # intervals, asked for when the slider has rested
    print(f"\n  {'milliseconds':<52} {'median':>8} {'p95':>8} {'max':>8}{'n':>7}")
    clock: dict[str, Any] = page.evaluate("clock")
    first_marks, steps = own_marks(page, "es-ask"), own_marks(page, "es-step")
    kept = [
        judged("query to the first paint of its tiles", clock["asked"], {"median": 1500, "p95": 1500}),
        judged("  by the page's own marks", first_marks, {"median": 1500, "p95": 1500}),
        judged("query until every tile in sight has its picture", clock["pictured"], {}),
        judged("slider step, no labels", plain, {"median": 16, "p95": 33}),
        judged("  by the page's own marks", steps[:marked], {"median": 16, "p95": 33}),
        judged("slider step, figures of all rows by a column", clock["steps"], {"median": 16, "p95": 33}),
        judged("  by the page's own marks", steps[marked:], {"median": 16, "p95": 33}),
        judged("between frames while dragging, no labels", unmeasured, {}),
        judged("between frames while dragging, figures of all rows", drag_frames, {}),
    ]
    for watch in (peak, renderer):
        watch.done.set()
        watch.join()
    heap = page.evaluate("() => crossOriginIsolated ? performance.measureUserAgentSpecificMemory() : null")
    print()
    kept += [
        bounded("page: its process's own memory, largest", renderer.megabytes, 500),
        bounded("page: proportional memory, at the end", shared_out_megabytes(renderer.process), 500),
        bounded("server: own memory, largest", peak.megabytes, 400),
        bounded("server: own memory, at the end", own_megabytes(server)),
    ]
    if heap:
        bounded("page: as the browser itself counts it", heap["bytes"] / 1e6)
    return all(kept)


def by_column(page: Page) -> None:
    """Measure by a column of all rows."""
    page.get_by_test_id("truth").select_option("kind")
    page.get_by_test_id("truth-value").fill(QUERIES[-1])
    page.get_by_test_id("truth-value").press("Enter")
    page.wait_for_function("() => document.querySelector('[data-testid=f1]').dataset.value", timeout=60_000)


def main() -> None:
    """Make the store where it is not there, and measure."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, help="where the store is made; memory (/dev/shm) without it")
    options.add_argument("--keep", action="store_true", help="leave the store there, for the next run")
    chosen = options.parse_args()
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium is on the PATH; `apt-get install chromium`, for example")
    with folder_for(chosen.folder, chosen.keep) as folder, NomicServer() as nomic:
        environment = nomic.environment(folder / "home")
        os.environ.update(environment)
        store = folder / "page.store"
        if not store.is_dir():
            make_store(folder, chosen.rows)
        with serving(store, folder / "serve.log", environment) as served, chromium(path) as browser:
            print(f"{date.today()}, {os.cpu_count()} cores, Chromium {browser.version}, {len(served.store):,} rows")
            kept = measure(browser, served.address, served.process, Path(environment["EMBEDSTORE_CACHE_DIR"]))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
