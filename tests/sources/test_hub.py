"""Data sets of Hugging Face become records, as objects, from the disk and by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_hub import DatasetHub
from small_pictures import hf_dataset, png, put

from embedstore.errors import SourceError, SourceNotFoundError
from embedstore.sources import open_source


def test_hugging_face_dataset_object() -> None:
    """A Dataset gives its stored bytes, also where a format is set, and as a stream without a known length."""
    dataset = hf_dataset()
    rows = [{"label": "cat" if row % 2 == 0 else "dog", "n": row, "tags": '["x"]'} for row in range(4)]
    expected = [(row, png(row["n"])) for row in rows]
    stream = dataset.to_iterable_dataset()
    for form in (dataset, dataset.with_format("numpy"), stream):
        source = open_source(form)
        assert [(record.metadata, record.load()) for record in source] == expected
        assert source.count() == (None if form is stream else 4)
    chosen = open_source(dataset.select([2, 0]))
    assert [record.metadata["n"] for record in chosen] == [2, 0]
    assert {record.key for record in chosen} < {record.key for record in open_source(dataset)}


def test_a_single_data_set_has_its_own_split_only(tmp_path: Path) -> None:
    """Asked for another, it says which it is, as an object and saved, and gives no rows of the wrong one."""
    import datasets

    nameless = hf_dataset(3)
    named = datasets.Dataset.from_dict(nameless.to_dict(), features=nameless.features, split=datasets.Split.TEST)
    named.save_to_disk(str(tmp_path / "saved"))
    for source in (named, tmp_path / "saved"):
        assert len(list(open_source(source, split="test"))) == 3
        with pytest.raises(SourceError, match="no split 'train'; this data set is a single one, 'test'"):
            open_source(source, split="train")
    with pytest.raises(SourceError, match="one without a name"):
        open_source(nameless, split="train")


def test_hugging_face_splits_and_disk(tmp_path: Path) -> None:
    """All splits come with a column ``split``, or one of them; a saved data set gives lasting keys."""
    import datasets

    both = datasets.DatasetDict({"train": hf_dataset(3), "test": hf_dataset(2)})
    assert [record.metadata["split"] for record in open_source(both)] == ["train"] * 3 + ["test"] * 2
    assert open_source(both).count() == 5
    assert len(list(open_source(both, split="test"))) == 2
    with pytest.raises(SourceError, match="no split 'dev'; found train, test"):
        open_source(both, split="dev")
    both.save_to_disk(tmp_path / "saved")
    records = list(open_source(tmp_path / "saved"))
    assert [record.key for record in records[3:]] == [f"file:{tmp_path}/saved:test#{row}" for row in range(2)]
    assert [record.load() for record in records[3:]] == [png(0), png(1)]
    hf_dataset(1).save_to_disk(tmp_path / "single")
    assert [record.key for record in open_source(tmp_path / "single")] == [f"file:{tmp_path}/single#0"]


def test_hub_name_offline() -> None:
    """With the network switched off, a data set that is not in the cache is an error that names the switch."""
    code = (
        "from embedstore.sources import open_source\n"
        "for name in ('hf://nobody/nothing-here', 'nobody/nothing-here:test'):\n"
        "    try: open_source(name)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = os.environ | {"EMBEDSTORE_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in run.stdout.splitlines() if "Error" in line]
    assert len(lines) >= 2
    assert all("OfflineError" in line and "EMBEDSTORE_OFFLINE" in line for line in lines[:2])


def test_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing path below a folder that exists is a missing path, not the name of a data set."""
    put(tmp_path / "photos/cats/a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFoundError, match="photos/catz"):
        open_source("photos/catz")


def test_a_data_set_with_a_script_comes_from_the_hubs_own_copy(tmp_path: Path) -> None:
    """The library refuses such a data set; the config is then a folder of the hub's Parquet copy, and no other one.

    So it is when a copy was loaded before, which makes the library say something else; and where there is one config.
    """
    script, copy = tmp_path / "main", tmp_path / "copy"
    script.mkdir()
    (script / "README.md").write_text("---\nlicense: mit\n---\n")
    (script / "pictures.py").write_text("raise SystemExit('nobody runs this')")
    for folder, rows in ((copy / "160px", 3), (copy / "320px", 4), (tmp_path / "single" / "plain", 5)):
        for split in ("train", "validation"):
            (folder / split).mkdir(parents=True)
            hf_dataset(rows).to_parquet(folder / split / "0000.parquet")
    code = (
        "import datasets\n"
        "from embedstore.errors import SourceError\n"
        "from embedstore.sources import open_source\n"
        "try: datasets.load_dataset('owner/pictures', '160px')\n"
        "except RuntimeError as error: print(error)\n"
        "for record in open_source('hf://owner/pictures/160px:train'): print(record.uri, record.metadata['n'])\n"
        "for name in ('hf://owner/pictures/160px', 'hf://owner/single:validation', 'hf://owner/single'):\n"
        "    print(name, len(list(open_source(name))))\n"
        "try: open_source('hf://owner/pictures/640px')\n"
        "except SourceError as error: print('640px' in str(error))"
    )
    repositories = {
        "owner/pictures": {"main": script, "refs/convert/parquet": copy},
        "owner/single": {"main": script, "refs/convert/parquet": tmp_path / "single"},
    }
    (script / "single.py").write_text("raise SystemExit('nobody runs this')")
    with DatasetHub(repositories) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "EMBEDSTORE_OFFLINE": "0"}
        run = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
        )
    assert run.stdout.splitlines() == [
        "Dataset scripts are no longer supported, but found pictures.py",
        *(f"hf://owner/pictures/160px:train#{n} {n}" for n in range(3)),
        "hf://owner/pictures/160px 6",
        "hf://owner/single:validation 5",
        "hf://owner/single 10",
        "True",
    ]
    assert not [path for path in hub.requests if "320px" in path]
