"""Take the pictures of the page that README shows, of the sample photographs: data/page.png and data/page-dark.png.

    python scripts/take_screenshots.py [--folder data]

Eighty rows are labelled first, as two rounds of the planner picked them, by the photographs' own categories.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path

from in_browser import Served, chromium, find_chromium, serving
from PIL import Image
from playwright.sync_api import Browser, Page

from embedstore.store import EmbedStore

ROOT = Path(__file__).parents[1]
QUERY = "bird"
MOST = 250_000
"""Bytes of a picture."""


def labelled(served: Served) -> None:
    """Answer two rounds of "next to label" by what the photographs are."""
    kinds = served.store.to_table(["category"]).column("category").to_pylist()
    scored = served.call("score", query={"terms": [{"text": QUERY, "weight": 1}]}, where="")
    about = {"scored": scored["scored"], "threshold": scored["start"]["threshold"]}
    for _ in range(2):
        for row in served.call("next", **about, near=10, random=30)["rows"]:
            answer = "yes" if kinds[row["row"]] == QUERY else "no"
            served.call("label", scored=scored["scored"], row=row["row"], answer=answer)


def shown(browser: Browser, served: Served, width: int, height: int, scheme: str, scale: float) -> Page:
    """Open the page at a size and in a light, ask, and wait until all is drawn."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=scale,
    )
    page.goto(served.address)
    page.get_by_test_id("query-input").fill(QUERY)
    page.get_by_test_id("ask").click()
    page.wait_for_function("""() => {
        const shown = "[data-testid=tile] img, [data-testid=strip] :not(:disabled) > img";
        const images = [...document.querySelectorAll(shown)];
        const figures = document.querySelector("[data-testid=f1]");
        return images.length > 3 && images.every((one) => one.complete && one.naturalWidth) && figures?.dataset.value;
    }""")
    page.get_by_test_id("precision-interval").filter(has_text="to").wait_for()
    return page


def save(picture: bytes, path: Path) -> None:
    """Write a picture with a palette of as many colours as fit into the bytes that it may have."""
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32):
        written = io.BytesIO()
        whole.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
        if written.tell() <= MOST:
            break
    path.write_bytes(written.getvalue())
    print(f"{path}: {whole.width} x {whole.height}, {colours} colours, {written.tell() / 1000:.0f} kB")


def main() -> None:
    """Make the store, serve it, and take both pictures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, default=ROOT / "data")
    folder = options.parse_args().folder
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium is on the PATH; `apt-get install chromium`, for example")
    with tempfile.TemporaryDirectory() as name:
        os.environ["EMBEDSTORE_CACHE_DIR"] = str(Path(name) / "cache")
        store = EmbedStore.create(Path(name) / "photos.store", model="objects")
        store.add(ROOT / "data" / "photos", progress=False)
        with serving(store.path, Path(name) / "serve.log") as served, chromium(path) as browser:
            labelled(served)
            save(shown(browser, served, 1440, 1200, "light", 1).screenshot(), folder / "page.png")
            save(shown(browser, served, 390, 844, "dark", 2).screenshot(), folder / "page-dark.png")


if __name__ == "__main__":
    main()
