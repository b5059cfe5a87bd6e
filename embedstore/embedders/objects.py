"""The bundled model `objects`: pictures and texts to 256-d unit vectors with no network and no key.

A picture goes through EfficientNet-Lite0 (int8); the vectors of its ten likeliest ImageNet classes, weighted by their
probabilities, make its vector: ConSE, Norouzi et al., arXiv 1312.5650. A text is the mean of the vectors of its word
pieces, from a static table distilled from all-MiniLM-L6-v2. The model names things; it does not understand scenes,
relations or counts. How the files in `objects_model` are made is in scripts/build_objects_model.py; decoding pictures,
their orientation and colour are left to `images`.
"""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore.embedders.protocol import Lazy, State, require_texts
from embedstore.errors import InputError, ModelNotFoundError, QueryError
from embedstore.settings import cores
from embedstore.space import Space
from embedstore.vectors import Vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

MODEL_DIR = Path(__file__).parent / "objects_model"
DIM = 256
SIDE = 224  # pixels of the model's square input
CROP = 0.875  # share of the short side that the centre crop keeps, as in the network's training
MAX_WORDS = 256  # words of a text that are read; the rest changes a mean of so many by little
MAX_LETTERS = 100  # a longer run of letters is no word, as in BERT's own tokenizer
CHUNK = 4  # pictures for one run of the network: more do not fit the CPU's cache and are slower

FUNCTION_WORD = re.compile("an?|and|are|at|by|for|from|in|is|its?|of|on|or|some|that|the|there|this|to|with")
LEAD_IN = re.compile(r"\s*(?:(?:a|an|the|some)\s+)?(?:photo|photograph|picture|image|pic)s?\s+of\b(?=.*\w)", re.S)
WORD = re.compile(r"[^\W_]+")


class ObjectsEmbedder:
    """The bundled model; keeps the `Embedder` protocol.

    The vector of a picture does not depend on which others are in its batch: the network's integer products give
    the same bits for any batch. The files are opened at first use, the network and the text table each on its own.
    `exact_kernels` are exact on every x86 CPU, and 2.5 times slower. Those for CPUs with VNNI instructions are exact
    too; on others the fast ones let 16-bit sums overflow. By default the CPU decides.
    """

    summary = "names things (1,000 classes); no Nomic model"
    needs = "nothing"
    space = Space("objects", "onnxruntime", precision="int8", preprocessing="objects-1", dim=DIM)
    batch_size = 32

    def __init__(self, folder: Path = MODEL_DIR, exact_kernels: bool | None = None) -> None:
        self.workers = cores()
        # More calls at once, as somebody may ask for, are no faster, and each would take its own memory.
        self._at_once = threading.BoundedSemaphore(self.workers)
        self._network = Lazy(lambda: ClassNetwork(folder, exact_kernels))
        self._texts = Lazy(lambda: TextTable(folder))

    @classmethod
    def state(cls) -> State:
        """Ready always: its files are part of the package."""
        size = sum(file.stat().st_size for file in MODEL_DIR.iterdir() if file.is_file())
        return State(True, size, MODEL_DIR)

    @classmethod
    def unknown(cls, texts: Sequence[str]) -> list[str]:
        """Return those texts whose words all stand whole neither in the text table nor in the name of a class.

        Of such words there are only pieces, ``qu ##ux``, and their mean says little. A text with no word at all is
        none of these: `embed_texts` refuses it.
        """
        known = _known_words()

        def is_unknown(words: list[str]) -> bool:
            return bool(words) and not any(word in known or word.removesuffix("s") in known for word in words)

        return [text for text in texts if is_unknown(words_of(text))]

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the centre crop of an RGB picture, resized: uint8 of shape (3, 224, 224), values 0-255."""
        from PIL import Image  # only who has a picture needs Pillow

        side = CROP * min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        square = rgb.resize(
            (SIDE, SIDE),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
            reducing_gap=3.0,  # large photos are halved first: faster, and not to be told apart
        )
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def embed_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embed pictures that `prepare` made (InputError for others): unit vectors of shape (n, 256), in order."""
        for item in prepared:
            if getattr(item, "shape", None) != (3, SIDE, SIDE) or item.dtype != np.uint8:
                kind = f"{getattr(item, 'dtype', type(item).__name__)} {getattr(item, 'shape', '')}".strip()
                raise InputError(f"expected uint8 pictures of shape (3, {SIDE}, {SIDE}), found {kind}; use prepare()")
        vectors = np.empty((len(prepared), DIM), dtype=np.float32)
        for start in range(0, len(prepared), CHUNK):
            chunk = np.stack(prepared[start : start + CHUNK])
            with self._at_once:
                vectors[start : start + CHUNK] = self._network.value.vectors(chunk)
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed English texts as queries: unit vectors, float32 of shape (n, 256), in the order given.

        Function words and a leading "a photo of" carry no weight, case and accents neither; the first 256 words
        count. Raises QueryError for a text with no word that the model knows.
        """
        return self._texts.value.vectors(texts)


class ClassNetwork:
    """The image side: prepared pictures to the weighted mean of their classes' vectors."""

    def __init__(self, folder: Path, exact_kernels: bool | None = None) -> None:
        import onnxruntime  # 0.1 s to import, and not needed for texts

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # threads come from the callers: see `Embedder.workers`
        options.inter_op_num_threads = 1
        if _lacks_vnni() if exact_kernels is None else exact_kernels:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            _file(folder, "vision.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._classes = np.load(_file(folder, "classes.npy")).astype(np.float32)

    def vectors(self, pictures: NDArray[np.uint8]) -> Vectors:
        """Return unit vectors, float32 of shape (n, 256), of uint8 pictures of shape (n, 3, 224, 224)."""
        logits, classes = self._session.run(["logits", "classes"], {"image": pictures})
        # Weights need not sum to one, as the sum is normalised. Added rank by rank, not by a matrix product,
        # whose bits would depend on the number of pictures.
        weights = np.exp(logits - logits[:, :1])
        total = np.zeros((len(pictures), DIM), dtype=np.float32)
        for rank in range(classes.shape[1]):
            total += weights[:, rank, np.newaxis] * self._classes[classes[:, rank]]
        return normalise(total)


class TextTable:
    """The text side: one vector for each of BERT's word pieces, int8 with a scale for each row."""

    def __init__(self, folder: Path) -> None:
        # Mapped, as a query touches a few of the 30,522 rows.
        self._rows = np.load(_file(folder, "tokens.npy"), mmap_mode="r")
        self._scales = np.load(_file(folder, "token_scales.npy"))
        pieces = _file(folder, "vocab.txt").read_text(encoding="utf-8").split("\n")
        self._ids = {piece: number for number, piece in enumerate(pieces)}

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 of shape (n, 256); QueryError for a text with no known word."""
        require_texts(texts)
        means = np.empty((len(texts), self._rows.shape[1]), dtype=np.float32)
        for number, text in enumerate(texts):
            ids = [piece for word in words_of(text) for piece in self._pieces(word)]
            if not ids:
                raise QueryError(
                    f"the text {text[:40]!r} holds no word that the model `objects` knows; "
                    "name the thing looked for in English"
                )
            means[number] = (self._rows[ids] * self._scales[ids, np.newaxis]).mean(axis=0)
        return normalise(means)

    def _pieces(self, word: str) -> list[int]:
        """Return the ids of a word's pieces, longest first from the left (WordPiece); none when one is unknown."""
        ids: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._ids), None)
            if end is None:
                return []
            ids.append(self._ids[mark + word[start:end]])
            start = end
        return ids


@functools.cache
def _known_words() -> frozenset[str]:
    """Return the words that the model knows whole."""
    files = (_file(MODEL_DIR, name).read_text(encoding="utf-8") for name in ("vocab.txt", "class_words.txt"))
    return frozenset(word for text in files for word in text.split("\n"))


def words_of(text: str) -> list[str]:
    """Return the words of a text that carry its meaning: lower case, without accents, at most 256.

    Function words are left out unless there is nothing else: "A photo of a Café" is ``["cafe"]``.
    """
    plain = "".join(char for char in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(char))
    lead_in = LEAD_IN.match(plain)
    words = WORD.findall(plain, lead_in.end() if lead_in else 0)
    words = [word for word in words if len(word) <= MAX_LETTERS]
    return ([word for word in words if not FUNCTION_WORD.fullmatch(word)] or words)[:MAX_WORDS]


def _file(folder: Path, name: str) -> Path:
    """Return the path of one of the model's files, or say that it is missing."""
    path = folder / name
    if not path.is_file():
        raise ModelNotFoundError(
            f"the bundled model `objects` lacks {name} in {folder}; install embedstore again, "
            "or run scripts/build_objects_model.py in its source tree"
        )
    return path


def _lacks_vnni() -> bool:
    """Return whether this CPU is not known to multiply int8 exactly and fast; other CPUs than x86 ignore it."""
    try:
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # not Linux: slow and right
    return not re.search(r"\bavx(512)?_vnni\b", features)
