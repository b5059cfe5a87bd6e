"""A result is written where a person said, over nothing but what embedstore has written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.errors import InputError, NotOursError, PathError
from embedstore.result_files import ROWS as ENDINGS
from embedstore.result_files import to_write, write_rows, written_for_people

ROWS = (".csv", ".parquet")


def test_a_file_to_write_has_a_known_ending_and_a_folder(tmp_path: Path) -> None:
    """What can be written comes back as a path, whatever its capitals, also over a file or a device."""
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "device.csv").symlink_to(os.devnull)
    for name in ("new.csv", "NEW.CSV", "old.csv", "device.csv", "a.b.parquet"):
        assert to_write(str(tmp_path / name), ROWS) == tmp_path / name
    assert (tmp_path / "old.csv").read_text() == "old"
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("s.xlsx", InputError, "'s.xlsx' should end in one of .csv .parquet"),
        ("csv", InputError, "'csv' should end in one of .csv .parquet"),
        ("a\nb", InputError, r"'a\nb' should end in"),
        ("no/such/e.csv", PathError, "no/such is not there; make it first, or choose another path"),
        ("file/e.csv", PathError, "file is a file and no folder; choose another path"),
        ("folder.csv", PathError, "it is a folder, not a file to write; choose another path"),
        ("pipe.csv", PathError, "it is a pipe, not a file to write; choose another path"),
    ],
)
def test_a_file_that_cannot_be_written_is_said_at_once(
    tmp_path: Path, name: str, error: type[Exception], says: str
) -> None:
    """Before anything is done for it; PathError is an OSError too, and names the path."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(error) as caught:
        to_write(tmp_path / name, ROWS)
    assert says in str(caught.value)
    assert isinstance(caught.value, OSError) == (error is PathError)
    assert error is not PathError or str(caught.value).startswith(f"{tmp_path / name}: ")


def test_what_is_not_ours_is_not_written_over(tmp_path: Path) -> None:
    """Only a file that lies there as it was last written is replaced; empty ones are, and any by force."""
    file = tmp_path / "out.csv"
    file.touch()
    for _ in range(2):
        with written_for_people(file):
            file.write_text("ours")
    os.utime(file, ns=(1, 1))
    for content in ("ours", "edited"):
        file.write_text(content)
        with pytest.raises(NotOursError, match="is there already"), written_for_people(file):
            file.write_text("lost")
        assert file.read_text() == content
    with written_for_people(file, force=True):
        file.write_text("ours again")
    with written_for_people(tmp_path / "." / "out.csv"):
        file.write_text("ours by another path")

    def fail_half_way() -> None:
        with written_for_people(file):
            file.write_text("half of ours")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with written_for_people(file):
        file.write_text("ours")
    (tmp_path / "foreign").write_text("theirs")
    with pytest.raises(ZeroDivisionError), written_for_people(tmp_path / "foreign", force=True):
        raise ZeroDivisionError
    with pytest.raises(NotOursError), written_for_people(tmp_path / "foreign"):
        pass


def test_a_home_that_takes_no_notes_does_not_hinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written; what was never noted is asked for the next time."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMBEDSTORE_STATE_DIR", str(tmp_path / "file" / "state"))
    with written_for_people(tmp_path / "out"):
        (tmp_path / "out").write_text("ours")
    with pytest.raises(NotOursError), written_for_people(tmp_path / "out"):
        pass
    with written_for_people(Path(os.devnull)):
        pass


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_of_rows_is_written_as_the_table_is(tmp_path: Path, ending: str) -> None:
    """Byte for byte as text; in Arrow's formats the same rows; also a stream of nothing."""
    table = pa.table({"id": ["a", "b", "c"], "score": pa.array([0.1, None, 0.3], pa.float32())})
    for rows in (table, table.slice(0, 0)):
        write_rows(rows, tmp_path / f"table{ending}")
        write_rows(rows.to_reader(max_chunksize=2), tmp_path / f"stream{ending}")
        whole, streamed = (tmp_path / f"{name}{ending}" for name in ("table", "stream"))
        if ending == ".parquet":
            assert pq.read_table(streamed).equals(pq.read_table(whole))
        elif ending == ".arrow":
            assert pa.ipc.open_file(streamed.read_bytes()).read_all().equals(rows)
        else:
            assert streamed.read_bytes() == whole.read_bytes()


def test_rows_become_dictionaries_without_pandas() -> None:
    """The same as Arrow makes of them, times in UTC with all their microseconds and before 1970 too."""
    code = """
import sys
from array import array
import pyarrow as pa
from embedstore.result_files import to_dicts
counts = pa.py_buffer(array("q", [1_767_323_045_678_901, 0, -28_516_665_600_000_001]))
times = pa.Array.from_buffers(pa.timestamp("us", tz="UTC"), 3, [pa.py_buffer(bytes([0b101])), counts])
table = pa.table({"at": times, "again": times})
found = [to_dicts(table), *(to_dicts(batch) for batch in table.to_batches())]
assert to_dicts(table.slice(0, 0)) == []
assert "pandas" not in sys.modules
assert found == [table.to_pylist()] * 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
