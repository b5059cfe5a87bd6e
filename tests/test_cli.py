"""The command line: the library's answers in every format, errors as one line, and help that can be pasted."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from embedstore.cli import main
from embedstore.store import EmbedStore


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def commands(group: click.Group = main, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[f"{prefix}{name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


def test_json_rows_are_the_librarys_rows_unrounded(photo_store: EmbedStore) -> None:
    """Every float32 score reads back as the same float32."""
    found = photo_store.search("bird", k=7)
    rows = json.loads(run("search", photo_store.path, "bird", "-n", 7, "--json").stdout)
    assert [row["id"] for row in rows] == found.id
    assert np.array_equal(np.array([row["score"] for row in rows], np.float32), found.score)


def test_every_format_tells_the_same(photo_store: EmbedStore, tmp_path: Path) -> None:
    """JSON, JSON lines, CSV, TSV, Parquet, Arrow and bare paths hold the same rows in the same order."""
    found = photo_store.search("bird", k=5)
    ask = ("search", photo_store.path, "bird", "-n", 5)
    lines = [json.loads(line) for line in run(*ask, "--nl").stdout.splitlines()]
    assert [row["uri"] for row in lines] == found.uri
    for flag, delimiter in (("--csv", ","), ("--tsv", "\t")):
        table = list(csv.DictReader(io.StringIO(run(*ask, flag).stdout), delimiter=delimiter))
        assert [row["id"] for row in table] == found.id
        assert [np.float32(row["score"]) for row in table] == list(found.score)
    assert run(*ask, "-f").stdout.splitlines() == found.uri
    assert run(*ask, "-f", "-0").stdout == "".join(f"{uri}\0" for uri in found.uri)
    for suffix in (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".json"):
        file = tmp_path / f"out{suffix}"
        assert run(*ask, "-o", file).exit_code == 0
        assert _ids(file) == found.id
    assert _ids(tmp_path / "out.parquet") == found.id


def _ids(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return pq.read_table(file).column("id").to_pylist()
    if file.suffix == ".arrow":
        return pa.ipc.open_file(file).read_all().column("id").to_pylist()
    text = file.read_text()
    if file.suffix == ".json":
        return [row["id"] for row in json.loads(text)]
    if file.suffix == ".jsonl":
        return [json.loads(line)["id"] for line in text.splitlines()]
    return [
        row["id"]
        for row in csv.DictReader(io.StringIO(text), delimiter="\t" if file.suffix == ".tsv" else ",")
    ]


def test_classify_count_and_search_agree_with_the_library(photo_store: EmbedStore) -> None:
    """The command's number is the method's number, also for pictures, ids, filters and versions."""
    path = photo_store.path
    every = photo_store.classify("bird", 0.4)
    result = run("classify", path, "bird", "--threshold", 0.4, "-f")
    assert result.stdout.splitlines() == every.uri
    assert f"{len(every)} of {len(photo_store)} images match" in result.stderr
    assert run("count", path, "bird", "--threshold", 0.4).stdout == f"{len(every)}\n"
    row = photo_store.to_table().to_pylist()[5]
    for option, value in (("--id", row["id"]), ("--image", row["uri"])):
        assert run("search", path, option, value, "-n", 1, "-f").stdout.strip() == row["uri"]
    where = "category == 'flower'"
    assert (
        run("search", path, "bird", "--where", where, "-f").stdout.splitlines()
        == photo_store.search("bird", where=where).uri
    )
    assert run("search", path, "bird", "--at", photo_store.version, "-f").exit_code == 0


def test_no_match_is_no_error(photo_store: EmbedStore) -> None:
    """Exit status 0 and nothing on stdout."""
    result = run("classify", photo_store.path, "bird", "--threshold", 2, "-f", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("search", "STORE", ""), 1, "the query is empty"),
        (("search", "STORE"), 2, "ask with one of"),
        (("search", "STORE", "a", "--id", "b"), 2, "ask with one of"),
        (("search", "STORE", "a", "-n", "0"), 2, "0 is not in the range"),
        (("search", "STORE", "a", "--threshold", "high"), 2, "'high' is no number"),
        (("search", "STORE", "a", "--threshold", "nan"), 2, "'nan' is no number"),
        (("search", "STORE", "a", "--where", "lable == 'x'"), 1, "lable"),
        (("search", "STORE", "a", "-o", "x.xls"), 2, "should end in one of"),
        (("search", "nowhere", "a"), 1, "nowhere is no store: it does not exist"),
        (("search", "STORE", "--image", "nowhere.jpg"), 1, "nowhere.jpg"),
        (("remove", "STORE"), 2, "ids, or --where"),
        (("remove", "STORE", "nobody"), 1, "'nobody'"),
        (("info", "STORE", "--at", "99"), 1, "no version 99"),
        (("add", "STORE", "nowhere/at/all"), 1, "nowhere/at/all"),
        (("add", "new.store", "STORE", "--model", "obects"), 1, "objects"),
    ],
)
def test_a_wrong_command_ends_with_one_clear_line(
    store: EmbedStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    """1 for an error, 2 for wrong usage, the sentence on stderr, nothing on stdout, no traceback."""
    monkeypatch.chdir(tmp_path)
    result = run(*(store.path if word == "STORE" else word for word in words))
    assert result.exit_code == status
    assert says in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new.store").exists()


def test_a_store_is_looked_after_from_the_command_line(store: EmbedStore, pictures: Path) -> None:
    """info, versions, remove, compact, vacuum and verify do what their methods do."""
    assert "12 images" in run("info", store.path).stdout
    assert json.loads(run("info", store.path, "--json").stdout)["images"] == 12
    assert json.loads(run("remove", store.path, "--where", "label == 'cat'", "--json").stdout) == {
        "removed": 4,
        "images": 8,
    }
    assert len(run("versions", store.path, "--nl").stdout.splitlines()) == store.version + 2
    assert "2 parts" not in run("compact", store.path).stdout
    assert "would be deleted" in run("vacuum", store.path, "--keep-hours", 0, "--dry-run").stdout
    assert run("vacuum", store.path, "--keep-hours", 0).exit_code == 0
    result = run("verify", store.path, "--deep")
    assert result.exit_code == 0
    assert "the store is sound" in result.stdout
    (pictures / "dog" / "01.png").unlink()
    assert json.loads(run("verify", store.path, "--json").stdout)["missing_files"] == [
        str(pictures / "dog" / "01.png")
    ]


def test_verify_of_a_damaged_store_exits_with_1(store: EmbedStore) -> None:
    """A script can tell."""
    part = store.snapshot.parts[0]
    data = bytearray(part.path.read_bytes())
    data[(part.blocks or ())[0].offset + 3] ^= 0x7F
    part.path.write_bytes(data)
    result = run("verify", store.path)
    assert result.exit_code == 1
    assert "damaged" in result.stdout


def test_export_writes_rows_and_vectors(store: EmbedStore, tmp_path: Path) -> None:
    """What comes out is what is in, vectors to the bit."""
    file = tmp_path / "out.parquet"
    assert run("export", store.path, "--columns", "id,label", "--embeddings", "-o", file).exit_code == 0
    out = pq.read_table(file)
    assert out.column_names == ["id", "label", "embedding"]
    assert out.to_pylist() == store.to_table(["id", "label", "embedding"]).to_pylist()


def test_the_demo_ends_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job from nothing, with measures that are those of scikit-learn."""
    from sklearn.metrics import average_precision_score

    monkeypatch.chdir(tmp_path)
    result = run("demo")
    assert result.exit_code == 0
    store = EmbedStore.open(tmp_path / "demo.store")
    labels = [value == "bird" for value in store.to_table(["category"]).column("category").to_pylist()]
    expected = average_precision_score(labels, store.scores("bird")[0])
    assert expected >= 0.95
    assert f"average precision {expected:.3f}" in result.stdout
    assert (tmp_path / "demo-bird.png").stat().st_size > 100_000


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_ends_with_an_example_that_parses(name: str) -> None:
    """Each command says what it does and shows a line to paste; the line's options exist."""
    command = commands()[name]
    assert command.help
    if isinstance(command, click.Group):
        return
    examples = [
        line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("embedstore ")
    ]
    assert examples, f"the help of {name} has no example"
    for example in examples:
        words = shlex.split(example.split(" && ")[0].split(" | ")[0], comments=True)
        assert " ".join(words[1:]).startswith(name)
        try:
            command.make_context(name, words[1 + len(name.split()) :], resilient_parsing=False)
        except click.BadParameter as error:
            # The example's files are not here; all else about it is right.
            assert re.search("No such file|does not exist", error.message)  # noqa: PT017


def test_the_readme_names_every_command_and_no_other() -> None:
    """A command that is not in the README, or a README that names one that is not there, fails."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    top = {name.split()[0] for name in commands()}
    named = set(re.findall(r"(?<!from )\bembedstore ([a-z][a-z-]+)", readme))
    assert named <= top
    assert top <= named


def test_help_lists_every_command_once() -> None:
    """No command is left out of the sections of `embedstore --help`."""
    text = run("--help").stdout
    for name in main.commands:
        assert len(re.findall(rf"^  {name}  ", text, re.MULTILINE)) == 1, name


def test_import_and_help_load_nothing_heavy() -> None:
    """`import embedstore` loads no third-party package; `--help` only click."""
    heavy = "{'numpy', 'pyarrow', 'PIL', 'sklearn', 'datasets', 'nomic', 'faiss', 'deltalake', 'onnxruntime'}"
    for code in ("import embedstore", "from embedstore.cli import main"):
        check = f"import sys; {code}; print(sorted(set(sys.modules) & {heavy}))"
        assert (
            subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
            == "[]\n"
        )


def test_the_public_names_are_there() -> None:
    """What `embedstore` lists can be taken from it."""
    import embedstore

    for name in embedstore.__all__:
        assert getattr(embedstore, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'EmbedStroe'"):
        _ = embedstore.EmbedStroe  # type: ignore[attr-defined]
