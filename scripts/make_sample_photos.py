"""Debian's `tuxpaint-stamps-default` -> data/photos: real photographs of single things, sorted in folders.

    python scripts/make_sample_photos.py [--deb FILE] [--out data/photos]

The package holds cut-out stamps with a line of description each. Kept are photographs of at least 100 pixels;
left out are drawings, mirrored copies, and those for which upstream names terms other than the package's GPL.
Each is flattened on white in the middle of a 256 pixel square. The same Pillow gives the same bytes again.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from debian_package import STAMPS, unpack
from PIL import Image

SIDE = 256  # pixels of the finished square
LONGEST = 224  # pixels of the longer side of the thing in it
SMALLEST = 100  # pixels of the longer side of a stamp, below which a photograph is too coarse

# Folder of the package -> category; the longest prefix counts. Folders not named hold no photographs.
CATEGORIES = {
    "animals/amphibians": "amphibian",
    "animals/birds": "bird",
    "animals/fish": "fish",
    "animals/fish/lobster": "shellfish",
    "animals/fish/shrimp": "shellfish",
    "animals/insects": "insect",
    "animals/lizards": "reptile",
    "animals/mammals": "mammal",
    "animals/mammals/bears/toys": "toy",
    "animals/marsupials": "mammal",
    "animals/shellfish": "shellfish",
    "food/fruit": "fruit",
    "food/vegetables": "vegetable",
    "food/spices": "vegetable",
    "hobbies/binoculars": "optical instrument",
    "hobbies/camera_35mm": "optical instrument",
    "hobbies/music": "musical instrument",
    "household": "household item",
    "household/rubberduck": "toy",
    "household/tools": "tool",
    "household/arttools": "household item",
    "medical": "medical instrument",
    "military/paratrooper": "person",
    "military/vehicles": "vehicle",
    "people": "person",
    "people/toys": "toy",
    "plants": "plant",
    "plants/flowers": "flower",
    "plants/mushrooms": "mushroom",
    "plants/trees": "tree",
    "space/apollo_lander": "spacecraft",
    "space/voyager2": "spacecraft",
    "space/spacewalk": "person",
    "space/moon": "planet or moon",
    "space/planets": "planet or moon",
    "sports": "sports equipment",
    "town/uk_post_box": "mailbox",
    "town/usps_mailbox": "mailbox",
    "vehicles": "vehicle",
}
DRAWN = {  # or black and white outlines
    "animals/insects/bee",
    "animals/mammals/echidna",
    "animals/mammals/hedgehog",
    "household/arttools/highlighter",
    "household/dishes/glass",
    "household/tools/wrench_adjustable",
    "medical/tooth",
    "people/body_parts/eye",
    "space/planets/0_sun",
    "sports/soccer",
    "vehicles/7spoke256",
    "vehicles/emergency/sedan_police",
}
OTHER_TERMS = {
    "animals/birds/helmeted_guineafowl",  # GFDL
    "animals/birds/heron_greatblue",  # CC BY-SA, as the next
    "animals/birds/heron_greatblue_flying",
    "animals/birds/pelican",
    "animals/insects/Brown_slug",  # GFDL, as the next
    "animals/insects/Woodlouse",
    "food/fruit/Apricot_whole",
    "food/fruit/Cherry_Stella",
    "food/fruit/Strawberry2",
    "food/fruit/grapes",  # a stock photograph
    "household/Lightbulb",  # GFDL
    "plants/flowers/adeenia",  # CC BY-SA, as the next
    "plants/flowers/anthoorium",
    "plants/flowers/appooppanthady",
    "plants/flowers/bolsom",
    "plants/flowers/chemparathi",
    "plants/flowers/plastic/chuvanna_plastic_poo",
    "vehicles/emergency/firetruck",  # CC BY
}
NOT_OF_ITS_FOLDER = {
    "vehicles/wheel_tractor",  # a wheel is not a vehicle
    "medical/bandage_adhesive",  # nor a plaster an instrument
    "plants/trees/holly_leaves",  # nor leaves, cones and fruit a tree
    "plants/trees/pinecone",
    "plants/trees/rambutan",
}
LEFT_OUT = DRAWN | OTHER_TERMS | NOT_OF_ITS_FOLDER

LICENCE = """\
The photographs in this folder are made from the stamps of Tux Paint, as Debian distributes them in the
package {name} {version} (upstream: tuxpaint-stamps, https://tuxpaint.org/).
scripts/make_sample_photos.py made them: flattened on white, resized and saved as JPEG. The descriptions in
metadata.csv are the package's own.

Copyright 2002-2022 by Bill Kendrick <bill@newbreedsoftware.com> and the contributors to Tux Paint.

These files are free software; you can redistribute them and/or modify them under the terms of the GNU General
Public License as published by the Free Software Foundation; either version 2 of the License, or (at your
option) any later version.

They are distributed in the hope that they will be useful, but WITHOUT ANY WARRANTY; without even the implied
warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more
details: https://www.gnu.org/licenses/old-licenses/gpl-2.0.html

Stamps for which the upstream notes name other terms (GFDL, Creative Commons) are left out. These terms hold
for this folder only: it is no part of the embedstore package, whose licence is the LICENSE file at the root.
"""


def category_of(stem: str) -> str | None:
    """Return the category of a stamp named by its path without suffix, or None where it is left out."""
    if stem in LEFT_OUT or stem.endswith("_mirror") or "cartoon" in stem.split("/"):
        return None
    parts = stem.split("/")
    prefixes = ("/".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((CATEGORIES[prefix] for prefix in prefixes if prefix in CATEGORIES), None)


def flatten(stamp: Image.Image) -> Image.Image:
    """Return the stamp without its empty border, on white, in the middle of a square of `SIDE` pixels."""
    stamp = stamp.convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    scale = LONGEST / max(stamp.size)
    width, height = (max(1, round(side * scale)) for side in stamp.size)
    stamp = stamp.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE), "white")
    square.alpha_composite(stamp, ((SIDE - width) // 2, (SIDE - height) // 2))
    return square.convert("RGB")


def description_of(stamp: Path) -> str:
    """Return the English description that lies beside a stamp: the first line of its text file."""
    return stamp.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip()


def make(stamps: Path, out: Path) -> Counter[str]:
    """Write photographs, metadata.csv and LICENSE to `out`; return how many there are of each category."""
    if (out / "metadata.csv").exists():  # an earlier run's folder, and nobody else's
        shutil.rmtree(out)
    rows: list[tuple[str, str, str]] = []
    for path in sorted(stamps.rglob("*.png")):
        category = category_of(path.relative_to(stamps).with_suffix("").as_posix())
        if category is None:
            continue
        with Image.open(path) as stamp:
            if max(stamp.size) < SMALLEST:
                continue
            photo = flatten(stamp)
        name = f"{category.replace(' ', '_')}/{path.stem.lower().replace('-', '_')}.jpg"
        target = out / name
        if target.exists():
            raise SystemExit(f"two stamps would both be {name}: leave one out")
        target.parent.mkdir(parents=True, exist_ok=True)
        photo.save(target, quality=88, optimize=True)
        rows.append((name, category, description_of(path)))
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file_name", "category", "description"))
        writer.writerows(sorted(rows))
    licence = LICENCE.format(name=STAMPS.name, version=STAMPS.version)
    (out / "LICENSE").write_text(licence, encoding="utf-8")
    return Counter(category for _, category, _ in rows)


def main() -> None:
    """Parse the command line, make the photographs and print what was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deb", type=Path, help=f"file of {STAMPS.name} {STAMPS.version}; fetched when not given")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data" / "photos")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = unpack(STAMPS, Path(folder), options.deb)
        counts = make(root / "usr/share/tuxpaint/stamps", options.out)
    size = sum(path.stat().st_size for path in options.out.rglob("*.jpg"))
    for category, number in counts.most_common():
        print(f"{number:4d}  {category}")
    print(f"{counts.total():4d}  photographs, {size / 1e6:.1f} MB, in {options.out}")


if __name__ == "__main__":
    main()
