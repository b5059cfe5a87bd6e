"""What many small adds leave on the disk: after compact and vacuum little more than the live data, in few files."""

from __future__ import annotations

from pathlib import Path

from torturing.commands import vectors
from torturing.figures import Figures
from torturing.forks import forking
from torturing.work import Work, short

ADDS = 500
ROWS, DIM = 4, 768
MOST_FILES, MOST_RATIO = 60, 1.3


def run(work: Work) -> Figures:
    """Add many times, then tidy up once; a short run adds fewer times."""
    figures = Figures("disk")
    adds = work.most or max(20, min(ADDS, int(work.seconds * 6)))
    with forking(work.folder / "jobs", {"EMBEDSTORE_OFFLINE": "1", "HOME": str(work.folder)}) as forks:
        done = forks.call("disk:fill", str(work.folder / "s.store"), adds, seconds=60 + 10 * work.seconds)
    figures.saw_memory(done.peak, "all", "filling")
    if done.value is None:
        figures.add("hangs" if done.hung else "other", "all", f"it failed: {short(done.said)}")
        return figures
    figures.tried = figures.details["small adds"] = adds
    files, size, live = done.value["files"], done.value["bytes"], done.value["live"]
    figures.notes.append(f"after compact and vacuum {files} files, {size / live:.2f} x the live data")
    if files > MOST_FILES:
        figures.add("other", "all", f"{files} files are left after {adds} small adds, compact and vacuum")
    if size > MOST_RATIO * live:
        figures.add("other", "all", f"{size:,} bytes are left for {live:,} bytes of live data")
    if not done.value["sound"]:
        figures.add("wrong", "all", "the store is not sound after it")
    return figures


def fill(path: str, adds: int) -> dict[str, float]:
    """Fill a store by small adds, tidy it up, and return what is on the disk."""
    from embedstore.store import EmbedStore

    store = EmbedStore.create(path, space="disk", dim=DIM)
    for number in range(adds):
        rows = vectors(range(number * ROWS, number * ROWS + ROWS), 0, DIM)
        store.add(rows, embedding_column="vector", progress=False)
    store.compact()
    store.vacuum(0)
    files = [file for file in Path(path).rglob("*") if file.is_file()]
    return {
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "live": sum(part.path.stat().st_size for part in store.snapshot.parts),
        "sound": store.verify(deep=True).ok and len(store) == adds * ROWS,
    }
