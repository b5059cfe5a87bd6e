"""The first hour of a person, on real photographs: nothing is destroyed, nothing misleads.

Commands run in this process; in one of their own where a signal, a stream or the environment matters.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run, run_process
from conftest import PHOTOS
from PIL import Image

from embedstore.store import EmbedStore

BIRD = PHOTOS / "bird" / "owl.jpg"


@pytest.fixture
def place(photo_store: EmbedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a store of the photographs."""
    shutil.copytree(photo_store.path, tmp_path / "p.store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*words: object, exit_status: int = 0, **environment: str) -> str:
    """Run a command, and return what it printed on both streams."""
    if environment:
        done = run_process(*words, **environment)
        status, printed = done.returncode, done.stdout + done.stderr
    else:
        result = run(*words)
        status, printed = result.exit_code, result.stdout + result.stderr
    assert status == exit_status, printed
    assert "Traceback" not in printed
    return printed


def calibrated(name: str = "bird") -> None:
    """Keep a classifier of birds."""
    said("calibrate", "p.store", "bird", "--label", "category=bird", "--name", name)


def test_labels_of_a_person_outlive_a_second_review(place: Path) -> None:
    """Point 1: they are carried over by id; an ending that is not written is refused."""
    calibrated()
    said("review", "p.store", "bird", "-o", "r.csv", "--near", 2, "--random", 2)
    with open("r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["label"] = "yes"
    with open("r.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    said("review", "p.store", "bird", "-o", "r.csv", "--near", 3, "--random", 2)
    with open("r.csv", newline="") as file:
        assert {row["id"]: row["label"] for row in csv.DictReader(file)}[rows[0]["id"]] == "yes"
    Path("mine.csv").write_text("my own work\n")
    said("search", "p.store", "bird", "-o", "mine.csv", exit_status=1)
    assert Path("mine.csv").read_text() == "my own work\n"
    said("review", "p.store", "bird", "-o", "r.xlsx", exit_status=2)


def test_a_pipe_is_not_waited_for(place: Path) -> None:
    """Point 2: only regular files are opened, whoever names them."""
    os.mkfifo("pipe.csv")
    os.mkfifo("pipe.jpg")
    assert "not a regular file" in said("calibrate", "p.store", "bird", "--label", "pipe.csv", exit_status=1)
    assert "not a regular file" in said("search", "p.store", "--image", "pipe.jpg", exit_status=1)


def test_a_path_is_a_picture(place: Path) -> None:
    """Point 3: typed as a query it is the picture, which is said; words are mixed as rclip does."""
    found = run_process("search", "p.store", BIRD, "-n", 1, "--json")
    assert json.loads(found.stdout)[0]["score"] == pytest.approx(1)
    assert "is a picture here" in found.stderr
    assert "no such" not in said("search", "p.store", "2:bird", "+", BIRD, "-", "flower", "-n", 1, "--json")


def test_pictures_in_memory_are_traced(place: Path) -> None:
    """Point 4: the user's ids are the ids, a record's place is its uri, and a sheet shows the picture."""
    code = (
        "from PIL import Image; from embedstore import EmbedStore\n"
        "store = EmbedStore.create('m.store', model='objects')\n"
        "store.add([{'image': Image.new('RGB', (64, 64), (200, 0, 0)), 'id': 'red-7', 'label': 'red'}])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    row = json.loads(said("export", "m.store", "--columns", "id,uri,label", "--json", "-q"))[0]
    assert (row["id"], row["uri"], row["label"]) == ("red-7", "memory:red-7#0", "red")
    said("search", "m.store", "red", "--sheet", "s.png")
    with Image.open("s.png") as sheet:
        assert any(red > 150 > green + 110 for _, (red, green, _) in sheet.convert("RGB").getcolors(1 << 22) or [])


def test_a_useless_classifier_is_called_so(place: Path) -> None:
    """Point 5: one that is the wrong way round, and one that is no better than matching every row."""
    rows = EmbedStore.open("p.store").to_table(["id", "category"]).to_pylist()
    others = "".join(f"{row['id']},{'no' if row['category'] == 'bird' else 'yes'}\n" for row in rows)
    Path("others.csv").write_text(f"id,label\n{others}")
    worse = said("calibrate", "p.store", "bird", "--label", "others.csv", "--no-save")
    assert "warning: worse than at random" in worse
    assert "the opposite" in worse
    assert "that of every row" in worse


def test_what_was_removed_is_found_again(place: Path) -> None:
    """Point 6: adding it again embeds nothing, and `restore` brings it back."""
    before = json.loads(said("info", "p.store", "--json"))["version"]
    assert "31" in said("remove", "p.store", "--where", "category = 'bird'", "--dry-run")
    said("remove", "p.store", "--where", "category = 'bird'")
    assert "31 found again in older versions" in said("add", "p.store", PHOTOS)
    said("remove", "p.store", "--where", "category = 'bird'")
    said("restore", "p.store", before)
    assert json.loads(said("info", "p.store", "--json"))["images"] == 242


def test_a_sweep_holds_the_best_f1(place: Path) -> None:
    """Point 7: the threshold of the best F1 is among those that are shown, and marked."""
    rows = json.loads(said("sweep", "p.store", "bird", "--label", "category=bird", "--json", "-q"))
    best = json.loads(said("rank", "p.store", "bird", "--label", "category=bird", "--json"))[0]["best_f1"]
    assert max(row["f1"] for row in rows) == pytest.approx(best)
    assert "<- best F1" in said("sweep", "p.store", "bird", "--label", "category=bird")


def test_a_sheet_says_right_and_wrong(place: Path) -> None:
    """Point 8: in blue and orange, never in the colour of the truth alone."""
    calibrated()
    said("plot", "p.store", "bird", "--label", "category=bird", "--kind", "boundary", "-o", "b.png")
    with Image.open("b.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 22) or []}
    assert {(0, 114, 178), (213, 94, 0)} <= colours


def test_truth_and_prediction_have_heads(place: Path) -> None:
    """Point 9: a column says which it is."""
    words = ("--column", "category", "--class", "bird", "--class", "flower", "--name", "kinds")
    said("calibrate-classes", "p.store", *words)
    assert "predicted" in said("classify", "p.store", "--classifier", "kinds").splitlines()[0]
    assert "truth, predicted" in said("evaluate", "p.store", "kinds", "--label", "category")


def test_no_tracebacks_and_no_two_forms(place: Path) -> None:
    """Point 10: what makes no sense is wrong usage, and a name with a line break is quoted for people."""
    for words in (
        ("versions", "p.store", "-f"),
        ("export", "p.store", "--json", "--csv"),
        ("search", "p.store", "a", "-0"),
    ):
        said(*words, exit_status=2)
    assert "is not there" in said("export", "p.store", "-o", "no/such/e.parquet", exit_status=1)
    Path("odd").mkdir()
    shutil.copy(BIRD, "odd/a\nb.jpg")
    said("add", "o.store", "odd", "--model", "objects")
    assert "a\nb.jpg" not in said("search", "o.store", "bird")


def test_advice_works(place: Path) -> None:
    """Point 11: what `--label` says is taken as it says it, and swapped words are recognised."""
    said("calibrate", "p.store", "bird", "--label", "category == 'bird'", "--no-save")
    assert "Did you mean" in said("calibrate", "p.store", "bird", "--label", "categroy=bird", exit_status=1)
    (place / "pics").mkdir()
    shutil.copy(BIRD, "pics")
    assert "`embedstore add n.store pics" in said("add", "pics", "n.store", "--model", "objects", exit_status=2)


def test_python_shows_what_the_shell_shows(place: Path) -> None:
    """Point 12: sweeps, matches, classifiers and stores show themselves, and go where tables go."""
    code = (
        "import pyarrow as pa; from embedstore import EmbedStore\n"
        "store = EmbedStore.open('p.store'); matches = store.search('bird', k=3)\n"
        "swept = store.sweep('bird', labels='category=bird')\n"
        "print(pa.table(matches).num_rows, matches[0]['uri'][-4:], len(matches[:2]), len(swept.to_pandas()))\n"
        "print('svg' in swept._repr_html_(), 'best F1' in repr(swept), store._repr_html_()[:1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["3", ".jpg", "2", "20", "True", "True", "<"], done.stderr


def test_the_small_things(place: Path) -> None:
    """Point 13: status 130, sums that add up, a JSON query as it was typed, a count of all on stderr, splits."""
    assert json.loads(said("count", "p.store", "dog", "--threshold", 0.5, "--json"))["query"] == "dog"
    assert "of 242 images" in run_process("search", "p.store", "dog").stderr
    for number, name in enumerate(("train/cat/a.jpg", "test/cat/b.jpg", "train/cat/.c.jpg", "train/cat/d.heic")):
        (place / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sorted((PHOTOS / "bird").glob("*.jpg"))[number], place / "s" / name)
    added = said("add", "s.store", "s", "--model", "objects")
    assert "2 found: 2 embedded" in added
    assert "1 .heic" in added
    assert "1 hidden" in added
    rows = json.loads(said("export", "s.store", "--columns", "split", "--json", "-q"))
    assert sorted(row["split"] for row in rows) == ["test", "train"]
    many = place / "many"
    for number in range(600):
        (many / f"{number:04}.png").parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number % 256, number // 256, 7)).save(many / f"{number:04}.png")
    words = [sys.executable, "-m", "embedstore", "add", "many.store", "many", "--model", "objects"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        while not (place / "many.store" / "store.json").exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert "interrupted" in running.communicate(timeout=60)[1]
        assert running.returncode == 130


def test_looking_and_completing(place: Path) -> None:
    """Point 14: a shell's completion is printed, and `--open` says where the drawing lies when nothing opens it."""
    for shell in ("bash", "zsh", "fish"):
        assert "_EMBEDSTORE_COMPLETE" in said("completion", shell)
    completed = said(COMP_WORDS="embedstore sea", COMP_CWORD="1", _EMBEDSTORE_COMPLETE="bash_complete")
    assert "search" in completed
    opened = said("search", "p.store", "bird", "--open", DISPLAY="", WAYLAND_DISPLAY="")
    drawn = Path(opened.rsplit("the file stays: ", 1)[1].strip())
    assert drawn.stat().st_size > 10_000
    drawn.unlink()
