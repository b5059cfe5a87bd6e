"""The bundled model `objects`: the promises of an embedder, its formulas written out, and how well it names things."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embedder_contract import EmbedderContract, drawn_pictures
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from embedstore.embedders.objects import MODEL_DIR, ObjectsEmbedder, TextTable, words_of
from embedstore.errors import InputError, ModelNotFoundError, QueryError

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "data" / "photos"


@pytest.fixture(scope="module")
def model() -> ObjectsEmbedder:
    return ObjectsEmbedder()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (PHOTOS / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def prepared(model: ObjectsEmbedder, rows: list[dict[str, str]]) -> list[NDArray[np.uint8]]:
    pictures = []
    for row in rows:
        with Image.open(PHOTOS / row["file_name"]) as photo:
            pictures.append(model.prepare(photo))
    return pictures


@pytest.fixture(scope="module")
def vectors(model: ObjectsEmbedder, prepared: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return model.embed_prepared(prepared)


class TestContract(EmbedderContract):
    @pytest.fixture
    def embedder(self, model: ObjectsEmbedder) -> ObjectsEmbedder:
        return model


class TestPictures:
    def test_batches_of_1_and_16_give_the_same_bits(
        self, model: ObjectsEmbedder, prepared: list[NDArray[np.uint8]], vectors: NDArray[np.float32]
    ) -> None:
        """Real photographs have the same vectors, bit for bit, alone, by 16 and all at once."""
        one_by_one = np.concatenate([model.embed_prepared([picture]) for picture in prepared[:64]])
        by_16 = np.concatenate([model.embed_prepared(prepared[at : at + 16]) for at in range(0, 64, 16)])
        assert one_by_one.tobytes() == by_16.tobytes() == vectors[:64].tobytes()

    def test_kernels_that_are_exact_everywhere_give_the_same_bits(self, prepared: list[NDArray[np.uint8]]) -> None:
        """What is chosen for this CPU computes no other vectors than the kernels that are exact on every CPU."""
        chosen = ObjectsEmbedder().embed_prepared(prepared[:16])
        exact = ObjectsEmbedder(exact_kernels=True).embed_prepared(prepared[:16])
        assert chosen.tobytes() == exact.tobytes()

    def test_a_vector_is_the_weighted_mean_of_ten_classes(
        self, prepared: list[NDArray[np.uint8]], vectors: NDArray[np.float32]
    ) -> None:
        """A vector is the mean of the ten likeliest classes' vectors, weighted by softmax, at unit length."""
        import onnxruntime  # the network alone, beside the embedder that wraps it

        options = onnxruntime.SessionOptions()
        # As in the embedder: without it, int8 sums overflow on processors that lack VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(MODEL_DIR / "vision.onnx", options, providers=["CPUExecutionProvider"])
        classes = np.load(MODEL_DIR / "classes.npy").astype(np.float64)
        for picture, vector in zip(prepared[::40], vectors[::40], strict=True):
            logits, numbers = session.run(["logits", "classes"], {"image": picture[np.newaxis]})
            assert logits.shape == (1, 10)
            assert (np.diff(logits[0]) <= 0).all()
            likelihoods = np.exp(logits[0].astype(np.float64)) / np.exp(logits[0].astype(np.float64)).sum()
            expected = sum(p * classes[k] for p, k in zip(likelihoods, numbers[0], strict=True))
            np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)

    def test_prepare_keeps_the_centre(self, model: ObjectsEmbedder) -> None:
        """A square of 256 pixels is prepared to its inner 224, pixel by pixel; a wide picture to its middle."""
        pixels = np.random.default_rng(3).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
        inner = pixels[16:240, 16:240].transpose(2, 0, 1)
        np.testing.assert_array_equal(model.prepare(Image.fromarray(pixels)), inner)
        wide = np.pad(pixels, ((0, 0), (50, 50), (0, 0)))
        np.testing.assert_array_equal(model.prepare(Image.fromarray(wide)), inner)

    def test_a_large_photograph_is_resized_as_bicubic_would(self, model: ObjectsEmbedder) -> None:
        """The shortcut for large photographs differs from plain bicubic by a level or two of 255."""
        large = drawn_pictures(6)[5].resize((1600, 1600))
        plain = large.resize((224, 224), Image.Resampling.BICUBIC, box=(100, 100, 1500, 1500))
        difference = model.prepare(large).astype(int) - np.asarray(plain).transpose(2, 0, 1)
        assert abs(difference).max() <= 2

    @pytest.mark.parametrize("wrong", [np.zeros((224, 224, 3), np.uint8), np.zeros((3, 224, 224)), "dog.jpg"])
    def test_what_prepare_did_not_make_is_refused(self, model: ObjectsEmbedder, wrong: object) -> None:
        """Arrays of another shape or type, and other things, are refused with what was expected."""
        with pytest.raises(InputError, match=r"uint8 pictures of shape \(3, 224, 224\)"):
            model.embed_prepared([wrong])  # type: ignore[list-item]


class TestTexts:
    def test_unknown_texts_hold_no_whole_word(self) -> None:
        """Words of the vocabulary and of class names are known, plurals too; pieces of words are not."""
        names = (ROOT / "scripts" / "imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()[1:]
        assert ObjectsEmbedder.unknown([line.split("\t")[1] for line in names]) == []
        assert ObjectsEmbedder.unknown(["a bird", "wombats", "quux", "quux dog", "Zebrax!", "..."]) == [
            "quux",
            "Zebrax!",
        ]

    def test_a_text_is_the_mean_of_its_word_pieces(self, model: ObjectsEmbedder) -> None:
        """A text is the plain mean of its pieces' rows, each times its scale, at unit length."""
        pieces = (MODEL_DIR / "vocab.txt").read_text(encoding="utf-8").split("\n")
        table = np.load(MODEL_DIR / "tokens.npy").astype(np.float64)
        scales = np.load(MODEL_DIR / "token_scales.npy").astype(np.float64)
        numbers = [pieces.index(piece) for piece in ("em", "##bed", "##ding", "cello")]
        expected = np.mean([table[number] * scales[number] for number in numbers], axis=0)
        found = model.embed_texts(["Embedding, the cello!"])[0]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)

    @pytest.mark.parametrize(
        "text",
        [
            "A photo of a red car",
            "The picture  of red car",
            "RED   CAR.",
            "réd cär",
            "Images of the red car",
        ],
    )
    def test_what_does_not_name_anything_does_not_count(self, model: ObjectsEmbedder, text: str) -> None:
        """A leading "photo of", articles, case, accents, spaces and punctuation do not change a query."""
        assert model.embed_texts([text]).tobytes() == model.embed_texts(["red car"]).tobytes()

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a picture frame", ["picture", "frame"]),
            ("photo of", ["photo"]),
            ("photography of", ["photography"]),
            ("the", ["the"]),
            ("snake_case-word's", ["snake", "case", "word", "s"]),
            ("x" * 101, []),
        ],
    )
    def test_only_function_words_are_left_out(self, text: str, words: list[str]) -> None:
        """Words that name things stay where they look like a lead-in, and function words where nothing else is."""
        assert words_of(text) == words

    def test_a_long_text_counts_by_its_first_words(self, model: ObjectsEmbedder) -> None:
        """Of a text of 5,000 words the first 256 that name something count."""
        words = ["the", "dog", "of", "cello"] * 128 + ["volcano"] * 4_744
        assert len(words) > 5_000
        short = " ".join(["dog", "cello"] * 128)
        assert model.embed_texts([" ".join(words)]).tobytes() == model.embed_texts([short]).tobytes()

    @pytest.mark.parametrize("text", ["", "   ", "☃", "!?", "_", "ߐߐߐ"])
    def test_a_text_with_no_known_word_is_refused(self, model: ObjectsEmbedder, text: str) -> None:
        """A text that holds no known word has no vector; the error says so, also when others have one."""
        with pytest.raises(QueryError, match="no word that the model `objects` knows"):
            model.embed_texts(["dog", text])

    def test_one_text_is_not_a_list_of_letters(self, model: ObjectsEmbedder) -> None:
        """A bare string is refused, not taken for its letters."""
        with pytest.raises(QueryError, match="pass \\[text\\]"):
            model.embed_texts("dog")

    @given(st.text(max_size=60))
    def test_any_text_has_a_unit_vector_or_is_refused(self, text: str) -> None:
        """Whatever the characters, the outcome is a vector of length one or a QueryError."""
        try:
            vector = TABLE.vectors([text])[0]
        except QueryError:
            return
        assert abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) < 1e-6


TABLE = TextTable(MODEL_DIR)


class TestQuality:
    @pytest.fixture
    def figures(
        self, model: ObjectsEmbedder, vectors: NDArray[np.float32], rows: list[dict[str, str]]
    ) -> dict[str, float]:
        sys.path.insert(0, str(ROOT / "scripts"))
        from measure_objects import average_precisions  # a script, so not on the path before

        sys.path.remove(str(ROOT / "scripts"))
        return average_precisions(model, vectors, [row["category"] for row in rows])

    @pytest.mark.parametrize(
        ("category", "floor"),
        [("bird", 0.95), ("musical instrument", 0.90), ("vehicle", 0.95), ("mammal", 0.85), ("insect", 0.85)],
    )
    def test_names_find_their_photographs(self, figures: dict[str, float], category: str, floor: float) -> None:
        """The name of a category, as a query, ranks the category's photographs first, to this average precision."""
        assert figures[category] >= floor

    def test_average_precision_is_the_mean_precision_at_each_match(
        self,
        model: ObjectsEmbedder,
        figures: dict[str, float],
        vectors: NDArray[np.float32],
        rows: list[dict[str, str]],
    ) -> None:
        """The figure is the mean, over the photographs of a category, of the precision at their ranks."""
        scores = vectors @ model.embed_texts(["bird"])[0]
        truth = np.array([row["category"] == "bird" for row in rows])[np.argsort(-scores, kind="stable")]
        ranks = np.flatnonzero(truth) + 1
        assert figures["bird"] == pytest.approx(np.mean(np.arange(1, len(ranks) + 1) / ranks), abs=1e-6)


class TestFiles:
    def test_the_sample_photographs_are_those_listed(self, rows: list[dict[str, str]]) -> None:
        """metadata.csv lists each photograph once; all are RGB squares of 256 pixels in their category's folder."""
        listed = sorted(row["file_name"] for row in rows)
        assert listed == sorted(path.relative_to(PHOTOS).as_posix() for path in PHOTOS.rglob("*.jpg"))
        for row in rows:
            assert row["file_name"].split("/")[0] == row["category"].replace(" ", "_")
            assert row["description"]
            with Image.open(PHOTOS / row["file_name"]) as photo:
                assert (photo.mode, photo.size) == ("RGB", (256, 256))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """Without its files the model says which is missing and what to do; making it opens none yet."""
        model = ObjectsEmbedder(tmp_path)
        with pytest.raises(ModelNotFoundError, match=r"vision\.onnx"):
            model.embed_prepared([np.zeros((3, 224, 224), dtype=np.uint8)])
        with pytest.raises(ModelNotFoundError, match=r"tokens\.npy"):
            model.embed_texts(["dog"])

    def test_running_it_loads_what_it_needs_and_no_more(self) -> None:
        """The module imports nothing heavy; texts need NumPy only, pictures onnxruntime too, nothing torch."""
        code = """
import json, sys
HEAVY = ("PIL", "onnxruntime", "onnx", "torch", "tokenizers", "transformers", "sklearn", "pyarrow")
def loaded(): return [name for name in HEAVY if name in sys.modules]
steps = []
import numpy as np
from embedstore.embedders.objects import ObjectsEmbedder
model = ObjectsEmbedder(); steps.append(loaded())
model.embed_texts(["dog"]); steps.append(loaded())
model.embed_prepared([np.zeros((3, 224, 224), np.uint8)]); steps.append(loaded())
print(json.dumps(steps))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [[], [], ["onnxruntime"]]
