"""The cookbook's page, pasted with only the import changed: it runs, and a second run of the script pays nothing.

The data sets are small ones with the page's names and layout, beside the script, where `load_dataset` finds them as it
would find those on the hub. The stand-in of Nomic's service gives each picture the score that its grey says.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score

from embedstore.testing import NomicServer, features

FIVE = {7450: True, 6828: True, 7464: True, 2343: False, 3356: False}
THRESHOLDS = {"Bingsu/Cat_and_Dog": (0.0544, 0.0564), "uoft-cs/cifar10": (0.0544, 0.0564, 0.0584)}
SCRIPTS = Path(__file__).parents[1] / "scripts"

CLASS_OF_THE_PAGE = """
from embedstore import embed


class ImageClassifierFromTextQuery:
    def __init__(self, text_query, threshold):
        self.threshold = threshold
        answer = embed.text([text_query], task_type="search_query", model="nomic-embed-text-v1.5")
        self.text_emb = np.array(answer["embeddings"])

    def predict(self, image):
        image_emb = np.array(embed.image(image)["embeddings"])
        return np.squeeze(np.dot(self.text_emb, image_emb.T) > self.threshold).tolist()
"""
CLASS_OF_OURS = "from embedstore import ImageClassifierFromTextQuery"

PASTED = """
import numpy as np
from datasets import load_dataset
from sklearn.metrics import f1_score, precision_score, recall_score
{classifier}

catsdogs = load_dataset("Bingsu/Cat_and_Dog")
dog_labels = [x == 1 for x in catsdogs["test"]["labels"]]
for threshold in (0.0564, 0.0544):
    predictions = ImageClassifierFromTextQuery("dog", threshold).predict(catsdogs["test"]["image"])
    print("Bingsu/Cat_and_Dog", threshold, precision_score(dog_labels, predictions),
          recall_score(dog_labels, predictions), f1_score(dog_labels, predictions))

cifar = load_dataset("uoft-cs/cifar10")
dog_labels = [x == 5 for x in cifar["test"]["label"]]
for threshold in (0.0544, 0.0564, 0.0584):
    predictions = ImageClassifierFromTextQuery("dog", threshold).predict(cifar["test"]["img"])
    print("uoft-cs/cifar10", threshold, precision_score(dog_labels, predictions),
          recall_score(dog_labels, predictions), f1_score(dog_labels, predictions))

classifier = ImageClassifierFromTextQuery(text_query="a tiny white ball", threshold=0.058)
dataset = load_dataset("frgfm/imagenette", "160px")["train"]
ids = [7450, 6828, 7464, 2343, 3356]
predictions = classifier.predict([dataset[i]["image"] for i in ids])
assert predictions == [True, True, True, False, False], predictions

sport_dataset = load_dataset("nihaludeen/sports_classification", split="train")
predictions = classifier.predict(sport_dataset["image"])
print("sports", [i for i, positive in enumerate(predictions) if positive])
"""


def score_of(level: int) -> float:
    """The score of a picture of one grey, of 256: 0.0500 to 0.0628."""
    return 0.05 + level * 0.00005


def told_image(pixels: np.ndarray) -> np.ndarray:
    """A unit vector whose product with each text's is the score that the picture's grey says."""
    vector = np.zeros(features.DIM)
    vector[0] = score_of(round(float(pixels.mean())))
    vector[1] = np.sqrt(1 - vector[0] ** 2)
    return vector.astype(np.float32)


def told_text(text: str) -> np.ndarray:
    vector = np.zeros(features.DIM, np.float32)
    vector[0] = 1
    return vector


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NomicServer]:
    """The stand-in, whose vectors are told, and no hub."""
    monkeypatch.setattr(features, "image_vector", told_image)
    monkeypatch.setattr(features, "text_vector", told_text)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "0")
    with NomicServer() as running:
        for name, value in running.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield running


def grey(level: int, width: int = 8) -> bytes:
    """The file of a picture of one grey; other widths make other pictures."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, 8), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NETTE = ["tench", "springer", "cassette", "saw", "church", "horn", "garbage", "pump", "golf ball", "parachute"]


def write_split(
    folder: Path, split: str, files: list[bytes], image: str, label: str, labels: list[int], names: list[str]
) -> None:
    """Write a split as `push_to_hub` lays it out."""
    import datasets

    shape = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=names)})
    rows = {image: [{"bytes": file, "path": None} for file in files], label: labels}
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=shape).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def data(tmp_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The four data sets in `tmp_path`; scores and labels of the two with figures, by name."""
    rng = np.random.default_rng(0)
    found = {}
    kinds = [("Bingsu/Cat_and_Dog", "image", "labels", 1), ("uoft-cs/cifar10", "img", "label", 5)]
    for place, (name, image, label, dog) in enumerate(kinds):
        names = CIFAR if dog == 5 else ["cat", "dog"]
        levels = rng.permutation(220)[:60]
        is_dog = levels + rng.integers(-80, 80, 60) > 110
        files = [grey(int(level), 8 + place) for level in levels]
        labels = [dog if one else 0 for one in is_dog]
        write_split(tmp_path / name / "data", "test", files, image, label, labels, names)
        write_split(tmp_path / name / "data", "train", [grey(3, 30)], image, label, [0], names)
        found[name] = np.array([score_of(int(level)) for level in levels]), is_dog
    five = {row: grey(200 + n if yes else 20 + n, 11) for n, (row, yes) in enumerate(FIVE.items())}
    plain = grey(7, 12)
    imagenette = tmp_path / "frgfm/imagenette"
    files = [five.get(row, plain) for row in range(7470)]
    labels = [8 if FIVE.get(row) else 0 for row in range(7470)]
    write_split(imagenette / "160px", "train", files, "image", "label", labels, NETTE)
    configs = "configs:\n- config_name: 160px\n  data_files:\n  - split: train\n    path: 160px/train-*\n"
    (imagenette / "README.md").write_text(f"---\n{configs}---\n")
    sports = tmp_path / "nihaludeen/sports_classification/SportsClassification/train"
    for number, kind in enumerate(["baseball", "cricket", "hockey"] * 3):
        (sports / kind).mkdir(parents=True, exist_ok=True)
        (sports / kind / f"{number}.png").write_bytes(grey(250 - 20 * number, 13))
    return found


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def expected_lines(data: dict[str, tuple[np.ndarray, np.ndarray]]) -> set[tuple[Any, ...]]:
    """By scikit-learn, from the scores that the greys say."""
    return {
        (name, threshold, *(float(f(data[name][1], data[name][0] > threshold)) for f in METRICS))
        for name, thresholds in THRESHOLDS.items()
        for threshold in thresholds
    }


METRICS = (precision_score, recall_score, f1_score)


@pytest.mark.parametrize("classifier", [CLASS_OF_OURS, CLASS_OF_THE_PAGE], ids=["the class", "embed"])
def test_the_page_pasted_with_only_the_import_changed(
    server: NomicServer, tmp_path: Path, data: dict[str, tuple[np.ndarray, np.ndarray]], classifier: str
) -> None:
    """All of the page's thresholds, its assertion, each picture embedded once; a second run makes no request."""
    script = tmp_path / "pasted_cookbook.py"
    script.write_text(PASTED.replace("{classifier}", classifier))
    first = run(tmp_path, script)
    assert first.returncode == 0, first.stderr
    lines = [line.split() for line in first.stdout.splitlines() if line.startswith(("Bingsu", "uoft"))]
    assert {(name, *map(float, figures)) for name, *figures in lines} == expected_lines(data)
    assert len({tuple(line[2:]) for line in lines}) == 5  # each threshold decides otherwise
    [sports] = [line for line in first.stdout.splitlines() if line.startswith("sports")]
    assert 0 < len(ast.literal_eval(sports.removeprefix("sports "))) < 9
    assert server.images == len(server.image_counts) == 60 + 60 + 5 + 9
    assert set(server.image_counts.values()) == {1}
    assert server.texts == 2
    paid = server.requests
    second = run(tmp_path, script)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert server.requests == paid


def test_the_script_prints_the_pages_figures_beside_ours(
    server: NomicServer, tmp_path: Path, data: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Figures at the page's thresholds, its five pictures, its own counts; the second time nothing is paid."""
    words = (SCRIPTS / "reproduce_cookbook.py", "--data-dir", tmp_path, "--model", "nomic", "--stores", "stores")
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    for _, threshold, *figures in expected_lines(data):
        assert re.search(rf"{threshold:.4f} .*" + r" +".join(f"{figure:.3f}" for figure in figures), done.stdout)
    assert "page: 0.63 0.89 0.74" in done.stdout
    assert re.search(r"7450: True {4}page: True .*\n.*6828: True.*\n.*7464: True.*\n.*2343: False.*\n", done.stdout)
    assert "its assertion holds" in done.stdout
    assert re.search(r"'a tiny white ball' on sports \(train\): 9 pictures\n  score > 0.0580   \d match: ", done.stdout)
    assert re.search(r"in all +34,110 +17,469 +7,599 +135", done.stdout)
    assert server.images == 60 + 60 + 6 + 9  # one of imagenette's is there 7,465 times
    paid = server.requests
    again = run(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert server.requests == paid
    assert again.stdout.partition("pictures embedded")[0] == done.stdout.partition("pictures embedded")[0]
    assert re.search(r"in all +34,110 +17,469 +7,599 +0\n", again.stdout)


def test_the_script_ends_with_1_where_the_assertion_fails(
    server: NomicServer, tmp_path: Path, data: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """With Nomic's models and other scores than the page's it says what was decided, and which data sets are absent."""
    for name in ("Bingsu", "uoft-cs", "nihaludeen"):
        (tmp_path / name).rename(tmp_path / f"not {name}")
    files = [grey(200 if row == 2343 else 20) for row in range(7470)]
    labels = [row % 10 for row in range(7470)]
    write_split(tmp_path / "frgfm/imagenette/160px", "train", files, "image", "label", labels, NETTE)
    words = (SCRIPTS / "reproduce_cookbook.py", "--data-dir", tmp_path, "--model", "nomic", "--stores", "stores")
    done = run(tmp_path, *words)
    assert done.returncode == 1, done.stderr
    assert "its assertion FAILS: [False, False, False, True, False], expected [True, True, True, False" in done.stdout
    assert done.stdout.count("left out") == 3
