"""Feeds hostile inputs to the parts of embedstore that read them, in this process.

Only errors of embedstore's own may come out, or a right answer: a picture that is one, a mask that is DuckDB's own.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from torturing import mutations
from torturing.commands import vectors
from torturing.look import asking
from torturing.stepping import Steps
from torturing.work import fresh, short

Findings = Iterator[tuple[str, str]]
AT_ONCE = 50
"""Inputs of one step."""
_WEIGHTS = {"images": 84, "conditions": 5, "tables": 3, "archives": 3, "JSON": 5}


def feed(about: dict[str, Any], folder: str) -> None:
    """Take steps of `AT_ONCE` inputs of one kind each."""
    warnings.simplefilter("ignore")
    kinds: dict[str, Callable[[random.Random], Findings]] = {
        "images": Pictures().feed,
        "conditions": Conditions().feed,
        "tables": Tables(Path(folder)).feed,
        "archives": Archives(Path(folder)).feed,
        "JSON": Values(Path(folder)).feed,
    }
    steps = Steps(about)
    for _, dice in steps:
        kind = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        found = [finding for _ in range(AT_ONCE) for finding in kinds[kind](dice)]
        steps.done(AT_ONCE, kind, *found)


def pictures() -> list[tuple[str, bytes]]:
    """Return small pictures of every format that this Pillow writes, and their format."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    rgba, rgb = Image.fromarray(pixels), Image.fromarray(pixels[:, :, :3])
    grey16 = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {"quality": 80, "exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgba, "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (grey16, "PNG", {}),
        (rgb.quantize(32), "GIF", {}),
        (rgb.quantize(32), "GIF", {"save_all": True, "append_images": [rgba.quantize(8)]}),
        (rgba, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {}),
        *((rgba, "TIFF", {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (grey16, "TIFF", {}),
        (rgb, "BMP", {}),
        (rgb.quantize(16), "BMP", {}),
        (rgb, "PPM", {}),
        (rgba, "ICO", {}),
        (rgb, "JPEG2000", {}),
        (rgb, "AVIF", {}),
    ]
    made = []
    for image, name, options in wanted:
        sink = io.BytesIO()
        try:
            image.save(sink, name, **options)
        except (OSError, KeyError):
            continue  # this Pillow was built without it
        made.append((name, sink.getvalue()))
    return made


class Pictures:
    """Feeds `images.read`."""

    def __init__(self) -> None:
        self._sound = pictures()

    def feed(self, dice: random.Random) -> Findings:
        """Decode one broken picture."""
        from embedstore import images

        name, content = dice.choice(self._sound)
        broken = mutations.of_bytes(content, dice, [other for _, other in self._sound])
        read = asking(lambda: images.read(broken))
        if isinstance(read, str):
            if read.startswith("crash: "):
                yield "other", f"a broken {name} of {len(broken)} bytes: {short(read)}"
            return
        whole = read.image.size == (read.width, read.height)
        huge = read.width * read.height > 20_000_000  # decoded at a part of its size
        right = (read.image.mode, whole or huge, read.content_hash) == (
            *("RGB", True),
            hashlib.sha256(broken).hexdigest(),
        )
        if not right:
            yield "wrong", f"a broken {name} became a {read.image.mode} picture of {read.image.size}"


class Conditions:
    """Feeds `where.parse_where`, and compares with a DuckDB of its own."""

    def __init__(self) -> None:
        import duckdb

        generator = np.random.default_rng(0)
        score = generator.standard_normal(40)
        score[:4] = [np.nan, np.inf, -0.0, 0.0]
        self._rows = pa.table(
            {
                "label": [None if row % 7 == 0 else ("cat", "dog", "", "Ä")[row % 4] for row in range(40)],
                "uri": [f"/pictures/{row}.png" for row in range(40)],
                "order": [str(row % 3) for row in range(40)],
                "width": pa.array([None if row % 9 == 0 else row * 37 for row in range(40)], pa.int64()),
                "score": score,
                "taken": pa.array([row * 10**15 for row in range(40)], pa.timestamp("us", tz="UTC")),
                "flag": [None if row % 5 == 0 else row % 2 == 0 for row in range(40)],
            }
        )
        self._own = duckdb.connect(config={"enable_external_access": "false", "python_enable_replacements": "false"})
        self._own.execute("SET TimeZone = 'UTC'")
        self._own.register("rows", self._rows.append_column("row number", pa.array(range(40))))

    def feed(self, dice: random.Random) -> Findings:
        """Ask one condition."""
        import duckdb

        from embedstore.storage.where import parse_where

        text = mutations.condition(dice)
        mask = asking(lambda: self._mask(parse_where(text, self._rows.schema)))
        if isinstance(mask, str):
            if mask.startswith("crash: "):
                yield "other", f"the condition {text!r}: {short(mask)}"
            return
        try:
            found = self._own.execute(f'SELECT "row number", ({text}\n) IS TRUE FROM rows').fetchall()
        except (duckdb.Error, RuntimeError) as error:
            yield "wrong", f"the condition {text!r} is taken, and DuckDB says {short(str(error))}"
            return
        if [kept for _, kept in sorted(found)] != mask:
            yield "wrong", f"the condition {text!r} keeps other rows than DuckDB"

    def _mask(self, where: Any) -> list[bool]:
        return [bool(kept) for kept in where.mask(self._rows.select(list(where.columns)))]


class _Files:
    """Feeds files that were broken to whatever opens them as sources."""

    def __init__(self, folder: Path) -> None:
        self._folder = fresh(folder / type(self).__name__, None)
        self._folder.mkdir()
        self._sound = self.sound()

    def sound(self) -> list[tuple[str, bytes]]:
        """Return file endings, and the content of a sound file of each kind."""
        raise NotImplementedError

    def feed(self, dice: random.Random) -> Findings:
        """Read one broken file to its end."""
        ending, content = dice.choice(self._sound)
        file = self._folder / f"broken{ending}"
        file.write_bytes(mutations.of_bytes(content, dice, [other for _, other in self._sound]))
        for what, reading in self.readings(str(file)).items():
            outcome = asking(reading)
            if isinstance(outcome, str) and outcome.startswith("crash: "):
                yield "other", f"{what} of a broken {ending} file of {file.stat().st_size} bytes: {short(outcome)}"

    def readings(self, path: str) -> dict[str, Callable[[], Any]]:
        """Return the ways in which a file is read."""
        return {"the pictures": lambda: _read_pictures(path)}


def _read_pictures(path: str) -> None:
    """Read a source as an add does; a picture that cannot be loaded is a row of failures.csv."""
    from embedstore.errors import ImageError
    from embedstore.sources import open_source

    for number, record in enumerate(open_source(path)):
        if number > 20:
            return
        try:
            record.load()
        except (ImageError, OSError):
            continue


class Archives(_Files):
    """Feeds archives."""

    def sound(self) -> list[tuple[str, bytes]]:  # noqa: D102
        members = [(f"folder/{number}.png", content) for number, (_, content) in enumerate(pictures()[:6])]
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        made = [(".zip", zipped.getvalue())]
        for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")):
            sink = io.BytesIO()
            with tarfile.open(fileobj=sink, mode=mode) as tar:  # type: ignore[call-overload]
                for name, content in members:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
            made.append((ending, sink.getvalue()))
        return made


class Tables(_Files):
    """Feeds tables of pictures, and of vectors."""

    def sound(self) -> list[tuple[str, bytes]]:  # noqa: D102
        (self._folder / "there.png").write_bytes(pictures()[3][1])
        rows = [{"file_name": "there.png", "label": f'say "{row}"', "size": row} for row in range(8)]
        inside = [{"image": {"bytes": content, "path": None}, "label": name} for name, content in pictures()[:6]]
        lines = "\n".join(json.dumps(row) for row in rows)
        csv = "\n".join(["file_name,label,size", *(f'there.png,"a ""{row}""",{row}' for row in range(8))])
        made = [(".jsonl", lines.encode()), (".csv", csv.encode()), (".tsv", csv.replace(",", "\t").encode())]
        for table in (pa.Table.from_pylist(inside), vectors(range(6), 0)):
            sink = io.BytesIO()
            pq.write_table(table, sink)
            made.append((".parquet", sink.getvalue()))
            sink = io.BytesIO()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            made.append((".arrow", sink.getvalue()))
        return made

    def readings(self, path: str) -> dict[str, Callable[[], Any]]:  # noqa: D102
        from embedstore.sources import vector_batches

        return {
            "the pictures": lambda: _read_pictures(path),
            "the vectors": lambda: [len(batch.vectors) for batch in vector_batches(path, "vector")],
        }


class Values:
    """Feeds JSON: classifiers, the manifest and the layout note of a store, and answers of the service."""

    def __init__(self, folder: Path) -> None:
        from embedstore.store import EmbedStore

        self._store = fresh(folder / "values.store", None)
        store = EmbedStore.create(self._store, space="values", dim=16)
        store.add(vectors(range(20), 0), embedding_column="vector", progress=False)
        even = np.array([row % 2 == 0 for row in range(20)])
        query = np.eye(16, dtype=np.float32)[0]
        self._classifier = store.calibrate(query, even, name="even", validation="none").to_dict()
        self._manifest = json.loads((self._store / "store.json").read_bytes())
        note = self._store / "index" / "images.json"
        self._note = json.loads(note.read_bytes()) if note.exists() else {}
        answer = np.random.default_rng(0).standard_normal((2, 768)).tolist()
        self._answer = {"embeddings": answer, "model": "a-model", "usage": {"total_tokens": 3}}

    def feed(self, dice: random.Random) -> Findings:
        """Read one broken value."""
        ways = {"a classifier": self._a_classifier, "store.json": self._a_manifest, "a layout note": self._a_note}
        what, way = dice.choice([*ways.items(), ("an answer", self._an_answer)])
        outcome = asking(lambda: way(dice))
        if isinstance(outcome, str) and outcome.startswith("crash: "):
            yield "other", f"{what}: {short(outcome)}"
        elif outcome is False:
            yield "wrong", f"{what} that was broken led to another answer"

    def _a_classifier(self, dice: random.Random) -> None:
        from embedstore.deciding.classifier import Classifier

        if dice.random() < 0.5:
            Classifier.from_dict(mutations.of_json(self._classifier, dice))
            return
        file = self._store / "classifiers" / "broken.json"
        file.write_bytes(mutations.of_bytes(json.dumps(self._classifier).encode(), dice, [b'{"a": [1]}']))
        Classifier.load(file)

    def _a_manifest(self, dice: random.Random) -> None:
        self._open_with("store.json", self._manifest, dice)

    def _a_note(self, dice: random.Random) -> bool:
        """The layout note is a cache: whatever stands in it, the answer is that of the log, or an error."""
        return self._open_with("index/images.json", self._note, dice) in (20, None)

    def _open_with(self, name: str, sound: Any, dice: random.Random) -> int | None:
        from embedstore.errors import EmbedStoreError
        from embedstore.store import EmbedStore

        file = self._store / name
        file.write_text(json.dumps(mutations.of_json(sound, dice)), errors="surrogatepass")
        try:
            store = EmbedStore.open(self._store)
            return int(store.scores(np.ones(16, np.float32)).shape[1])
        except EmbedStoreError:
            return None
        finally:
            file.write_text(json.dumps(sound))

    def _an_answer(self, dice: random.Random) -> None:
        from embedstore.embedders import nomic_api, remote, transport

        if dice.random() < 0.2:
            transport.retry_after(mutations.of_bytes(b"Wed, 21 Oct 2026 07:28:00 GMT", dice, [b"12"]).decode("latin-1"))
            return
        answer = mutations.of_json(self._answer, dice)
        remote.sound_vectors(nomic_api.rows_of(answer, "a-model"), 2, nomic_api.DIM)
