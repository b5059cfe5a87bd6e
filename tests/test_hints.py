"""Every command line and every name of Python that embedstore prints, or README shows: it is real, and it works."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from conftest import PHOTOS
from hints import (
    Hint,
    blocks_of_page,
    hints_in,
    hints_of_help,
    hints_of_page,
    hints_of_source,
    is_stand_in,
    texts_of,
    unknown_names,
    unknown_options,
    what_is_wrong,
    words_of,
)
from s3_server import S3Server

from embedstore.deciding.review import ScoredRows
from embedstore.embedders.registry import MODELS
from embedstore.errors import InputError, StoreNotFoundError
from embedstore.store import EmbedStore

ROOT = Path(__file__).parents[1]
SOURCE, README = ROOT / "embedstore", ROOT / "README.md"

PAGES = (README, ROOT / ".github" / "SECURITY.md")

HINTS = [*hints_of_source(SOURCE), *hints_of_help(), *(hint for page in PAGES for hint in hints_of_page(page))]
MESSAGES = [(text, place) for path in sorted(SOURCE.rglob("*.py")) for text, place, said in texts_of(path) if said]

FOR_STAND_INS = {"STORE": "photos.store", "TEXT": "bird", "NAME": "bird", "LABELS": "category=bird", "FOLDER": "photos"}
FOR_STAND_INS |= {"SOURCE": "photos", "KIND": "ivf", "QUERY": "bird", "EXPR": "width > 10", "FOLDER_NAME": "photos"}
NEEDS_THE_NETWORK = {"compare-backends", "atlas", "atlas://my-org/photos", "--via-atlas", *MODELS} - {
    "nomic",
    "objects",
}
README_BUCKET = "s3://my-bucket"
TRIED_ELSEWHERE = {"demo", "serve"}  # in cli/test_demo.py: it takes a second; in cli/test_serve.py: it never ends


def test_every_command_line_is_understood() -> None:
    """No message, help or page names a command, an option or a value that there is not, or leaves an argument out."""
    assert len(HINTS) > 150
    wrong = [f"{hint.place}: `{hint}`: {problem}" for hint in HINTS if (problem := what_is_wrong(hint))]
    assert wrong == []


def test_every_option_and_name_in_a_message_is_there() -> None:
    """What messages say of options and of Python's names and keywords can be typed."""
    assert len(MESSAGES) > 2000
    wrong = [f"{place}: {word}" for text, place in MESSAGES for word in unknown_options(text) + unknown_names(text)]
    assert wrong == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with everything that examples name: photos with metadata, stores of them, files of words and vectors."""
    home = tmp_path_factory.mktemp("world")
    with (PHOTOS / "metadata.csv").open(newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["category"] in ("bird", "vehicle", "musical instrument")]
    for number, row in enumerate(chosen):
        (home / "photos" / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOS / row["file_name"], home / "photos" / row["file_name"])
        row |= {"label": ("cat", "dog", "blurred", "draft 1")[number % 4], "kind": row["category"]}
        row |= {"split": ("train", "test")[number % 2]}
    with (home / "photos" / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    (home / "photos" / "bird" / "broken.jpg").write_bytes(b"no picture")
    store = EmbedStore.create(home / "photos.store", model="objects")
    store.add(home / "photos", progress=False)
    store.save_classifier(store.calibrate("bird", "category=bird", name="bird"))
    ScoredRows.of(store.reader, store.classifier("bird"), "category=bird").around(12).save_csv(home / "review.csv")
    lines = (home / "review.csv").read_text().splitlines()
    (home / "review.csv").write_text("\n".join([lines[0], *(f"{line}yes" for line in lines[1:])]))
    store.add_labels("category=bird", "bird", picked="random")
    assert (home / "photos.store" / "failures.csv").exists()
    first = store.to_table(["id"]).column("id")[0].as_py()
    (home / "ids.txt").write_text(first)
    store.remove([first])
    store.restore(2)
    shutil.copy(next((home / "photos" / "bird").glob("[!b]*.jpg")), home / "pool.jpg")
    for name in ("other.store", "demo.store", "my.store"):
        shutil.copytree(home / "photos.store", home / name)
    (home / "words.txt").write_text("dog\ncat\n")
    rows = store.to_table(["id", "category"]).to_pylist()[::3]
    answers = [f"{row['id']},{'yes' if row['category'] == 'bird' else 'no'}\n" for row in rows]
    (home / "random.csv").write_text("".join(["id,label\n", *answers]))
    unit = np.eye(4, dtype=np.float32)
    pq.write_table(pa.table({"vector": pa.FixedSizeListArray.from_arrays(unit.ravel(), 4)}), home / "vectors.parquet")
    yield home
    shutil.rmtree(home)


@pytest.fixture
def place(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to work in, at home, without a network."""
    home = tmp_path / "home"
    shutil.copytree(world, home, ignore=shutil.ignore_patterns("photos"))
    (home / "photos").symlink_to(world / "photos")
    (home / "data").symlink_to(world)  # README's first screen is of a clone
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    return home


def to_type(hint: Hint) -> list[str] | None:
    """Return the words of a command with sample data for its stand-ins, or None where there are none."""
    words = []
    for word in words_of(hint):
        sample = FOR_STAND_INS.get(word, "photos.store" if "PATH" in word or "STORE" in word else None)
        if is_stand_in(word) and sample is None:
            return None
        words.append(sample if is_stand_in(word) and sample is not None else os.path.expanduser(word))
    return words


def in_a_bucket(hint: Hint) -> bool:
    """Tell whether a hint names a store in a bucket: these run one after the other, in a test of their own."""
    return any(word.startswith("s3://") for word in words_of(hint))


def runnable() -> dict[str, tuple[Hint, ...]]:
    """Return the hints that sample data serve, each once, by what is typed."""
    found: dict[str, tuple[Hint, ...]] = {}
    for hint in HINTS:
        words = set(words_of(hint))
        if (
            hint.whole
            and not in_a_bucket(hint)
            and not words & (NEEDS_THE_NETWORK | TRIED_ELSEWHERE)
            and to_type(hint) is not None
        ):
            found[str(hint)] = (*found.get(str(hint), ()), hint)
    return found


ADVISED = [
    (("search", "photos", "bird"), "add photos.store photos --model objects"),
    (("search", "./photos/", "bird"), "add photos.store photos --model objects"),
    (("search", "new.store", "bird"), "add new.store FOLDER --model objects"),
    (("add", "photos", "photos.store", "--model", "objects"), "add photos.store photos --model objects"),
    (("add", "photos"), "add photos.store photos"),
    (("add", "photos", "a b.store"), "add 'a b.store' photos"),
    (("classifiers", "my.store", "brid"), "calibrate STORE TEXT --label LABELS --name NAME"),
    (("classify", "my.store", "bird"), "calibrate STORE TEXT --label LABELS"),
    (("search", "my.store", "bird", "--approximate"), "index STORE --kind ivf"),
    (("verify", "damaged.store"), "repair damaged.store"),
    (("info", "damaged.store"), "repair damaged.store"),
]
"""What is typed and goes wrong, and the way on that its message names."""


@pytest.mark.parametrize(("typed", "advised"), ADVISED)
def test_advice_can_be_followed(
    typed: tuple[str, ...], advised: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that a message names, typed as it stands there, works; then so does what was wanted."""
    monkeypatch.setenv("EMBEDSTORE_MODEL", "objects")
    shutil.copytree("my.store", "damaged.store")
    (place / "damaged.store" / "store.json").unlink()
    refused = run(*typed)
    assert refused.exit_code in (1, 2)
    found = [hint for hint in hints_in(refused.output, "") if hint.text == advised]
    assert found, refused.output
    words = to_type(found[0])
    assert words is not None
    followed = run(*words, *(["--yes"] if words[0] == "repair" else []))
    assert followed.exit_code == 0, followed.output


SHELL_WORDS = [
    ("calibrate my.store bird --label category=bird --objective recall", "--min-precision 0.9 or --max-matches 100"),
    ("calibrate my.store bird --label category=bird --objective cost", "--cost-fp 1 or --cost-fn 5"),
    ("calibrate my.store bird --label category=bird --objective fbeta", "write f0.5 or f2"),
    ("calibrate my.store bird --label category=bird --min-precision 1", "--no-guarantee"),
    ("calibrate my.store bird --label categroy=bird", "Did you mean 'category'"),
    ("calibrate my.store bird --label bird", "Did you mean category=bird"),
    ("export my.store --columns categroy", "Did you mean 'category'"),
    ("search phtos.store bird", "Did you mean 'photos.store'"),
    ("search . bird", "has a store in it"),
    ("add long.store long.parquet --embedding-column vector --space own", "with --normalise"),
    ("add t.store vectors.parquet --model objects", "--image-column NAME, or give --embedding-column NAME"),
    ("search words.txt bird", "it is a file"),
    ("add new.store my.store --model objects", "let --reuse my.store take the vectors"),
    ("info my.store --offline", "`embedstore --offline info ...`"),
    ("calibrate my.store bird --label bridd", "Say which rows are positive by COLUMN=VALUE"),
]
"""What is typed and refused, and the words of the command line that say the way on."""


@pytest.mark.parametrize(("typed", "says"), SHELL_WORDS)
def test_a_shell_is_told_words_of_its_own(typed: str, says: str, place: Path) -> None:
    """No name of Python stands in what a command says, where Python would be told of an argument."""
    vectors = pa.FixedSizeListArray.from_arrays(np.arange(8, dtype=np.float32) + 1, 4)
    pq.write_table(pa.table({"vector": vectors}), "long.parquet")
    done = run(*typed.split())
    assert done.exit_code in (1, 2)
    assert says in done.output
    assert not re.search(r"\w=(True|False|\.\.\.|')|EmbedStore|\w+_(column|precision|matches)\b", done.output), (
        done.output
    )


def test_python_is_told_words_of_its_own(place: Path) -> None:
    """The same refusals, asked for in Python after a command, name arguments and functions."""
    assert run("info", "photos").exit_code == 1
    with pytest.raises(StoreNotFoundError, match=r"EmbedStore\.create\('photos\.store', model='objects'\) makes one"):
        EmbedStore.open("photos")
    store = EmbedStore.open("my.store")
    with pytest.raises(InputError, match=r"min_precision=0\.9 or max_matches=100"):
        store.calibrate("bird", "category=bird", objective="recall")
    with pytest.raises(InputError, match=r"`store\.index\('ivf'\)` makes one"):
        store.search("bird", approximate=True)


@pytest.mark.parametrize("typed", runnable())
def test_it_runs(typed: str, place: Path, request: pytest.FixtureRequest) -> None:
    """Typed at home, where the sample lies, a hint works; where README shows an error, it is refused."""
    hint = runnable()[typed][0]
    words = to_type(hint)
    assert words is not None
    if README_BUCKET in typed:
        bucket = request.getfixturevalue("s3").bucket()
        words = [word.replace(README_BUCKET, bucket) for word in words]
        if words[0] != "add":
            assert run("add", f"{bucket}/cats.store", "photos", "--model", "objects").exit_code == 0
    stdin = None
    if "<" in words:
        *words, _, file = words
        stdin = Path(file).read_text()
    done = run(*words, stdin=stdin)
    assert done.exit_code == ("refused" in hint.place), done.output


def test_what_is_said_of_a_store_in_a_bucket_runs(place: Path, s3: S3Server) -> None:
    """The lines for s3://my-bucket, in their order, where such a bucket is."""
    s3._send("PUT", "/my-bucket")
    typed = [to_type(hint) for hint in HINTS if hint.whole and in_a_bucket(hint)]
    assert len(typed) >= 2
    for words in typed:
        assert words is not None
        done = run(*words)
        assert done.exit_code == 0, done.output


def test_the_python_of_readme_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's examples for Python, one after the other and after those for a shell, as somebody would paste them."""
    monkeypatch.setenv("EMBEDSTORE_MODEL", "objects")
    images = sorted(Path("photos/bird").glob("a*.jpg"))
    names: dict[str, object] = {"images": images, "picture": images[0]}
    blocks = blocks_of_page(README, "python")
    assert len(blocks) == 8
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


WRONG = """
def f(store, name):
    \"""Ask with `embedstore serach STORE`, or `embedstore search`.\"""
    raise ValueError(f"{name} is none; `embedstore index {store.path} --knid ivf` makes one")
    yield "see `embedstore vacuum`", "use it with: embedstore classify s.store --classifer x"
    yield "embedstore index s.store --kind fp61", "run with --oflfine"
    yield "`store.calibrat(query)`, `EmbedStore.open(path, verison=1)`"
    yield f"`embedstore index {store.path} --kind ivf`", "`embedstore classify STORE TEXT --threshold 0.3`", "--offline"
"""


def test_a_misspelt_hint_is_found(tmp_path: Path) -> None:
    """A wrong command, option, value or name, and a missing argument, in every kind of string; what is right is not."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    wrong = {str(hint): problem for hint in hints_of_source(tmp_path) if (problem := what_is_wrong(hint))}
    assert set(wrong) == {
        "embedstore serach STORE",
        "embedstore index STORE_PATH --knid ivf",
        "embedstore vacuum",
        "embedstore classify s.store --classifer x",
        "embedstore index s.store --kind fp61",
    }
    assert wrong["embedstore serach STORE"] == "there is no command 'serach'"
    assert wrong["embedstore vacuum"] == "missing store"
    messages = [text for text, _, said in texts_of(file) if said]
    assert [word for text in messages for word in unknown_options(text)] == ["--knid", "--classifer", "--oflfine"]
    names = [word for text in messages for word in unknown_names(text)]
    assert names == ["store.calibrat", "EmbedStore.open(verison=)"]


def test_hints_are_found_in_pages_and_help(tmp_path: Path) -> None:
    """Blocks of a page are whole commands, without comments and what is printed; prose may leave arguments out."""
    page = tmp_path / "page.md"
    page.write_text(
        "Say `embedstore vacuum` or `ls`.\n```\n$ embedstore search s.store dog   # a comment\nembedstore is\n```\n"
        "```\nembedstore count s.store\n```\n"
    )
    found = list(hints_of_page(page))
    assert [(str(hint), hint.whole) for hint in found] == [
        ("embedstore vacuum", False),
        ("embedstore search s.store dog", True),
        ("embedstore count s.store", True),
    ]
    assert [what_is_wrong(hint) for hint in found] == [None, None, "missing threshold"]
    assert len({hint.place for hint in hints_of_help()}) > 20
    both = ["embedstore info a", "embedstore verify a"]
    for text in ("embedstore info a && embedstore verify a", "`ls | embedstore info a` or `embedstore verify a | wc`"):
        assert [str(hint) for hint in hints_in(text, "")] == both
