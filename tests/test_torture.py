"""scripts/torture: each kind of torture runs, and none of them would overlook what it looks for."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedstore import images
from embedstore.storage import where
from embedstore.store import EmbedStore

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import torturing.__main__ as torture  # noqa: E402
from torturing import call_order, cuts, disk, faults, feeding, flips, inputs, kills, races  # noqa: E402
from torturing.commands import COMMANDS, Bench, prepare  # noqa: E402
from torturing.figures import Figures, grouped, table  # noqa: E402
from torturing.forks import Ended, forking  # noqa: E402
from torturing.judge import judge  # noqa: E402
from torturing.stepping import Steps, run_steps  # noqa: E402
from torturing.work import Work, can_mount  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starting many processes quickly takes fork")
BY_NAME = {command.name: command for command in COMMANDS}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all kinds, so that they make their templates once."""
    return tmp_path_factory.mktemp("torture")


def work_of(kind: str, folder: Path, most: int, seconds: float = 60.0) -> Work:
    own = folder / f"{kind}-{time.monotonic_ns()}"
    own.mkdir()
    return Work(kind, own, 0, seconds, most=most)


@pytest.fixture(scope="module")
def bench(shared: Path) -> Iterator[Bench]:
    with prepare(work_of("bench", shared, 1)) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> EmbedStore:
    """The store whose files are flipped."""
    flips.make_template(str(tmp_path / "s.store"))
    return EmbedStore.open(tmp_path / "s.store")


# Each kind, a few times.


@pytest.mark.parametrize(("kind", "most"), [(kills, 3), (faults, 3), (inputs, 3)])
def test_a_kind_takes_so_many_steps(kind: Any, most: int, shared: Path) -> None:
    """It counts what it has tried, and no process took too much memory."""
    figures = kind.run(work_of(kind.__name__.split(".")[-1], shared, most, seconds=20.0))
    assert 1 <= figures.tried == figures.details.total()
    assert 0 < figures.peak < 1.5e9
    assert figures.findings == []


def test_every_kind_of_file_is_flipped(shared: Path) -> None:
    """Ten steps damage a file of each of the ten kinds."""
    figures = flips.run(work_of("flips", shared, len(flips.KINDS)))
    assert figures.details == dict.fromkeys(flips.KINDS, 1)
    assert figures.findings == []


def test_power_cuts(shared: Path) -> None:
    """The order of calls is looked at, and where file systems may be mounted the power goes."""
    work = work_of("cuts", shared, 2)
    figures = cuts.run(work)
    assert figures.details["orders of calls"] == 1
    assert figures.tried == (2 if can_mount(work.folder) else 0)
    assert figures.findings == []


def test_races_have_all_four_kinds_of_process(shared: Path) -> None:
    """Adders, searchers, a compacter and a vacuumer get on with it at once, and readers see more than one version."""
    figures = races.run(work_of("races", shared, 1, seconds=8.0))
    assert {f"by {who}" for who in ("adders", "searchers", "compacters", "vacuumers")} <= set(figures.details)
    assert figures.details["versions seen"] > 1
    assert figures.findings == []


def test_the_same_step_throws_the_same_dice(tmp_path: Path) -> None:
    """A finding names its step, and that step can be taken again alone."""
    all_of_them = [(step, dice.random()) for step, dice in Work("kills", tmp_path, 7, 9.0, most=5).steps()]
    assert [(step, dice.random()) for step, dice in Work("kills", tmp_path, 7, 9.0, only=3).steps()] == all_of_them[3:4]
    assert Work("kills", tmp_path, 8, 9.0).dice(3).random() != all_of_them[3][1]


# What is planted is found.


def test_a_row_that_is_lost_is_found(bench: Bench) -> None:
    """After an add that ended well a row goes: it is lost, and paid for again."""
    command = BY_NAME["add"]
    path = bench.start(command)
    assert bench.forks.run(bench.words(command, path)).exit == 0
    sound = Figures("kills")
    judge(sound, 1, bench, command, path, acknowledged=True, how="undisturbed")
    assert sound.findings == []
    opened = EmbedStore.open(path)
    opened.remove([opened.to_table(["id"], where="ends_with(uri, 'c/dog/00.png')").column("id")[0].as_py()])
    figures = Figures("kills")
    judge(figures, 2, bench, command, path, acknowledged=True, how="with a planted loss")
    assert figures.found["lost"] >= 2
    assert "kills 2 (lost): add, with a planted loss: rows: " in figures.findings[0]


def test_a_change_that_is_acknowledged_and_gone_is_found(bench: Bench) -> None:
    """A remove that left the store as it was may only be one that did not end well."""
    for acknowledged, found in ((True, ["lost"]), (False, [])):
        figures = Figures("cuts")
        path = bench.start(BY_NAME["remove"])
        judge(figures, 1, bench, BY_NAME["remove"], path, acknowledged=acknowledged, how="not run at all")
        assert list(figures.found) == found


def test_pictures_that_are_paid_for_and_not_kept_are_found(bench: Bench) -> None:
    """An add's store is thrown away: all that it has paid for is lost."""
    command = BY_NAME["first add"]
    path = bench.start(command)
    assert bench.forks.run(bench.words(command, path)).exit == 0
    path.rename(path.with_name("elsewhere.store"))
    figures = Figures("kills")
    judge(figures, 1, bench, command, path, acknowledged=False, how="with its store gone")
    assert figures.found["lost"] == 1
    assert "26 pictures were paid for and are not kept" in figures.findings[0]


def test_a_traceback_of_a_command_is_found(bench: Bench) -> None:
    """So are a signal and a status 1 that says nothing."""
    command = BY_NAME["search"]
    for ended in (
        Ended(1, False, 0, "Traceback (most recent call last):\n  boom\nOSError: no", "", None),
        Ended(-signal.SIGSEGV, False, 0, "", "", None),
        Ended(1, False, 0, "", "", None),
    ):
        figures = Figures("faults")
        faults._judge(figures, 1, bench, command, bench.start(command), ended, "a fault", "open")
        assert figures.found["other"] == 1
    figures = Figures("faults")
    faults._judge(
        figures, 1, bench, command, bench.start(command), Ended(0, False, 0, "", "[]", None), "a fault", "open"
    )
    assert figures.found["wrong"] == 1


def test_failing_calls_reach_a_command(shared: Path) -> None:
    """An order to fail the first fsync of a store makes an add fail that would not, and names the reason."""
    work = work_of("faults", shared, 1)
    library = faults.failing_calls.library(work.folder)
    if library is None:
        pytest.skip("there is no compiler")
    with prepare(work, preload=library) as bench:
        command = BY_NAME["vectors"]
        path = bench.start(command)
        assert bench.calls["vectors"]["fsync"] > 0
        fault = {"call": "fsync", "error": "EIO", "n": 1, "forever": True, "folder": str(path)}
        ended = bench.forks.run(bench.words(command, path), fault=fault)
        assert (ended.exit, ended.value["fsync"] > 0) == (1, True)
        assert "Input/output error" in ended.said
        assert bench.forks.run(bench.words(command, path)).exit == 0


def test_an_answer_that_changes_under_a_sound_store_is_found(store: EmbedStore) -> None:
    """A vector is replaced in a way that verify cannot know of: the comparison does."""
    truth = flips._answers(store)
    assert flips._compare(flips._answers(store), truth, sound=True) == []
    changed = store.vectors(["row-1"])
    table = store.to_table(["id", "uri", "number", "name"], where="id = 'row-0'")
    store.add(
        table.append_column("vector", pa.array(changed.tolist(), pa.list_(pa.float32()))), embedding_column="vector"
    )
    assert store.verify(deep=True).problems == []
    [(sort, what)] = flips._compare(flips._answers(EmbedStore.open(store.path)), truth, sound=True)
    assert sort == "wrong"
    assert "other rows" in what
    assert "1 others ['row-0']" in what


def test_damage_is_what_it_says(store: EmbedStore) -> None:
    """Damaged bytes are others than before, of the same length but where they were cut."""
    content = (store.path / "store.json").read_bytes()
    for number in range(50):
        broken, how = flips.damaged(content, random.Random(number))
        assert broken != content or "zeroed" in how or "swapped" in how
        assert len(broken) == len(content) or "cut off" in how or how == "all"


def test_races_find_what_is_not_one_committed_version() -> None:
    """A lost batch, a part of one, one from the future, and two pictures of one version."""
    base = {"who": "searcher 0", "operations": 1, "whole": True, "wrong": [], "version": 3, "from": 0.0, "to": 9.0}
    commits = [
        {"who": "adder 0", "added": 1, "operations": 1, "from": 1.0, "to": 2.0},
        {"who": "adder 0", "added": 2, "operations": 1, "from": 7.0, "to": 8.0},
    ]
    for reader, sort in (
        ({"batches": [1]}, None),
        ({"batches": []}, "lost"),
        ({"batches": [1], "whole": False}, "wrong"),
        ({"batches": [1, 2]}, "wrong"),
    ):
        figures = Figures("races")
        races._check(figures, [*commits, {**base, "began": 3.0, "opened": 4.0, **reader}])
        assert list(figures.found) == ([] if sort is None else [sort])
    figures = Figures("races")
    early = {**base, "began": 0.0, "opened": 5.0}
    races._check(figures, [*commits, {**early, "batches": [1]}, {**early, "batches": []}])
    assert figures.found["wrong"] == 1


def test_an_error_of_another_kind_and_a_wrong_mask_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broken picture raises, and which rows a condition keeps, is compared with what may be."""
    warnings.simplefilter("ignore")  # Pillow's, on what is broken
    fed, dice = feeding.Pictures(), random.Random(0)
    assert [found for _ in range(20) for found in fed.feed(dice)] == []
    with monkeypatch.context() as patched:
        patched.setattr(images, "read", lambda source: int("no number"))
        assert next(fed.feed(dice))[0] == "other"
    conditions = feeding.Conditions()
    assert [found for _ in range(20) for found in conditions.feed(dice)] == []
    right = where.Where.mask
    monkeypatch.setattr(where.Where, "mask", lambda self, table: ~right(self, table))
    assert "wrong" in [sort for _ in range(20) for sort, _ in conditions.feed(dice)]


def steps_that_end_badly(about: dict[str, Any]) -> None:
    """Sleep for ever in step 1 and die in step 3."""
    steps = Steps(about)
    for step, _ in steps:
        if step == 1:
            time.sleep(60)
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.done(1, "steps")


def test_a_step_that_hangs_or_dies_is_found_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six steps four are done, one hangs and one dies; each is named."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    figures, work = Figures("flips"), Work("flips", tmp_path, 0, 60.0, most=6)
    with forking(tmp_path / "jobs", {}) as forks:
        until = time.monotonic() + 60
        run_steps(work, figures, forks, "test_torture:steps_that_end_badly", until=until, longest=2.0)
    assert (figures.tried, figures.found) == (4, {"hangs": 1, "other": 1})
    assert figures.findings[0].startswith("flips 1 (hangs)")
    assert figures.findings[1].startswith("flips 3 (other): the process died: exit -9")


TRACE = """\
10 openat(3</s>, "/s/images/part-1.parquet", O_WRONLY|O_CREAT|O_EXCL, 0666) = 4</s/images/part-1.parquet>
10 fsync(4</s/images/part-1.parquet>) = 0
11 linkat(AT_FDCWD, "/s/images/_delta_log/x", AT_FDCWD, "/s/images/_delta_log/00000000000000000002.json", 0) = 0
10 fsync(5</s/images/_delta_log/00000000000000000002.json> <unfinished ...>
11 unlink("/s/images/_delta_log/x") = 0
10 <... fsync resumed>) = 0
10 fsync(6</s/images/_delta_log>) = 0
10 fsync(7</s/images>) = 0
10 unlink("/s/images/part-0.parquet") = 0
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (1, "/s/images/part-1.parquet is committed before it is synced"),
        (6, "/s/images/part-0.parquet is deleted before /s/images/_delta_log is synced"),
        (7, "/s/images/part-0.parquet is deleted before /s/images is synced"),
    ],
)
def test_a_sync_that_is_left_out_is_found(line: int, said: str) -> None:
    """The trace keeps the order of durability; without one of its syncs it does not."""
    assert list(call_order.broken(call_order.calls(TRACE), "/s")) == []
    lines = TRACE.splitlines()
    left = "\n".join([*lines[:line], *lines[line + 1 :]])
    assert said in list(call_order.broken(call_order.calls(left), "/s"))


# What is printed.


def test_findings_make_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that may hold one file only is a finding; one that may hold sixty is none."""
    assert torture.main(["--only", "disk", "--minutes", "0.02", "--seed", "5"]) == 0
    assert "| disk | 10 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out
    monkeypatch.setattr(disk, "MOST_FILES", 1)
    assert torture.main(["--only", "disk", "--minutes", "0.02", "--seed", "5"]) == 1
    printed = capsys.readouterr().out
    assert "| disk | 10 | 0 | 0 | 0 | 1 |" in printed
    assert "FOUND disk all (other): " in printed
    assert "1 findings; again: scripts/torture --seed 5" in printed


def test_findings_that_are_alike_are_told_once() -> None:
    """Numbers and quoted names do not make a finding another one; memory beyond the bound is one."""
    figures = Figures("inputs")
    for step in range(3):
        figures.add("other", step, f"the file 'x{step}.tar' of {step * 7} bytes breaks")
    figures.saw_memory(2 * 10**9, 9, "adding")
    lines = list(grouped(figures.findings))
    assert len(lines) == 2
    assert lines[0].endswith("breaks (and 2 like it)")
    assert "| inputs | 0 | 0 | 0 | 0 | 4 |" in table([figures])
