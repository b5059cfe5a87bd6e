"""Commands that ask: search, classify, count, export; and index, which makes files that searching is faster with.

A query, its threshold and a condition become one call of the store, and the answer rows in columns or in a file; how
they are printed and drawn is left to `output`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedstore.cli import completion
from embedstore.cli.options import (
    PATH,
    Count,
    Location,
    command,
    concept_of,
    executor_options,
    number,
    open_store,
    query_options,
    store_argument,
    version_option,
    where_option,
)
from embedstore.cli.output import (
    Column,
    Output,
    columns,
    force_option,
    look_options,
    pictures_option,
    rows_output,
    sheet_option,
    value_output,
)
from embedstore.cli.scored import find_classifier, from_option, warn_of_shift
from embedstore.wording import counted, quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.searching.matches import Matches
    from embedstore.store import EmbedStore

_OWN = {"id", "score", "uri", "content_hash", "width", "height", "added_at"}
_WIDEST = 24


@command(
    'embedstore search photos.store "a tiny white ball" -n 5 --where "width >= 200"',
    'embedstore search photos.store "2:golden retriever" + ./pool.jpg - snow --open',
    'embedstore search photos.store "bird" --against "aeroplane" --sheet birds.png',
)
@store_argument
@query_options
@click.option("-n", "k", type=Count(min=1), default=10, show_default=True, help="At most so many rows.")
@click.option("--threshold", type=number, help="Only rows with a score larger than this.")
@click.option("--approximate", is_flag=True, help="Use an index of the kind ivf or rabitq; it may miss rows.")
@where_option
@version_option
@executor_options
@look_options
@rows_output
def search(store: Location, version: int | None, executor: str | None, output: Output, **options: Any) -> None:
    """Print the pictures nearest to a query, nearest first.

    A QUERY is words or the path of a picture, or a mix of several with + and - between them, each a word of its own.
    A number and a colon before one is its weight.
    """
    concept = concept_of(options)
    opened = open_store(store, version, executor)
    matches = opened.search(concept, **options)
    _print(opened, matches.table, output)
    output.say(_how_many(matches, opened, options["k"]))
    output.copy(matches.table)
    output.draw(matches.table, _title(matches), _labels(matches.table), opened.rows)


@command(
    'embedstore classify photos.store "bird" --threshold 0.3 -f',
    "embedstore classify photos.store --classifier bird -o birds.csv --sheet birds.jpg",
    "embedstore classify photos.store --classifier bird --output-folder birds",
)
@store_argument
@query_options
@click.option("--threshold", type=number, help="A match is a score larger than this.")
@click.option(
    "--classifier",
    "name",
    metavar="NAME",
    shell_complete=completion.classifiers,
    help="Decide by a saved classifier; NAME or a JSON file.",
)
@from_option
@where_option
@version_option
@executor_options
@look_options
@click.option(
    "--output-folder",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="Write the matches into FOLDER as Parquet files, however many there are, and print how many; on a cluster its "
    "workers do.",
)
@rows_output
def classify(
    store: Location,
    folder: Path | None,
    threshold: float | None,
    name: str | None,
    origin: Location | None,
    where: str | None,
    version: int | None,
    executor: str | None,
    output: Output,
    **query: Any,
) -> None:
    """Print every picture whose score is larger than the threshold, or that a saved classifier matches.

    A QUERY is the same as in `search`.
    """
    decider: Any = concept_of(query) if name is None else None
    if name is None and threshold is None:
        raise click.UsageError(
            "decide by --threshold or by --classifier; "
            "`embedstore calibrate STORE TEXT --label LABELS` finds a threshold"
        )
    if name is not None and any(query.values()):
        raise click.UsageError("a classifier has its own query and prompts; leave those out")
    if folder is not None:
        _require_only_a_folder(output)
    opened = open_store(store, version, executor)
    if name is not None:
        decider = find_classifier(opened, name, origin)
        warn_of_shift(opened, decider, where, output, origin)
        if len(decider.targets) > 1 and threshold is not None:
            raise click.UsageError(f"{name!r} has a threshold for each class; leave --threshold out")
    if folder is not None:
        written = opened.write_matches(folder, decider, threshold, where)
        output.value(written.to_dict(), str(written))
        return
    if name is not None and len(decider.targets) > 1:
        from embedstore.deciding import evaluation

        predicted = evaluation.predict(opened.reader, decider, where)
        _print(opened, predicted, output, widest=None, heads=True)
        output.copy(predicted)
        output.draw(predicted, decider.name, ["predicted"], opened.rows)
        return
    matches = opened.classify(decider, threshold, where)
    _print(opened, matches.table, output)
    output.say(_how_many(matches, opened))
    output.copy(matches.table)
    output.draw(matches.table, _title(matches), _labels(matches.table), opened.rows)


@command(
    'embedstore count photos.store "bird" --threshold 0.3',
    'embedstore count photos.store "dog" --template "a photo of a {}" --also puppy --threshold 0.3',
)
@store_argument
@query_options
@click.option("--threshold", type=number, required=True, help="A match is a score larger than this.")
@where_option
@version_option
@executor_options
@sheet_option
@force_option
@value_output
def count(
    store: Location,
    threshold: float,
    where: str | None,
    version: int | None,
    executor: str | None,
    output: Output,
    **query: Any,
) -> None:
    """Print how many pictures have a score larger than the threshold.

    A QUERY is the same as in `search`.
    """
    concept = concept_of(query)
    opened = open_store(store, version, executor)
    images = opened.count(concept, threshold, where)
    output.value({"query": concept.label, "threshold": threshold, "count": images}, str(images))
    if output.sheet is not None:
        matches = opened.classify(concept, threshold, where)
        output.draw(matches.table, _title(matches), _labels(matches.table), opened.rows)


@command(
    "embedstore export photos.store -o photos.parquet --embeddings",
    "embedstore export photos.store --where \"label = 'cat'\" --pictures cats -q",
)
@store_argument
@click.option("--columns", "names", metavar="A,B", shell_complete=completion.columns, help="Only these columns.")
@click.option("--embeddings", is_flag=True, help="The vectors too.")
@where_option
@version_option
@pictures_option
@rows_output
def export(
    store: Location, names: str | None, embeddings: bool, where: str | None, version: int | None, output: Output
) -> None:
    """Print or write the rows of a store."""
    opened = open_store(store, version)
    chosen = [*(names.split(",") if names else opened.columns), *(["embedding"] if embeddings else [])]
    rows = opened.to_table(chosen, where)
    output.table(rows, _tab_separated(rows))
    if output.pictures is not None:
        output.copy(opened.to_table(["uri"], where))


@command("embedstore index photos.store")
@store_argument
@click.option(
    "--kind",
    type=click.Choice(["int8", "fp16", "ivf", "rabitq"]),
    default="int8",
    show_default=True,
    help="int8: exact answers from a quarter of the bytes; fp16: from half, also where very many rows lie as near as "
    "each other. ivf, rabitq: for stores larger than memory; rows may be missed, "
    "how many is measured and printed, and they serve only who asks for approximate answers.",
)
@executor_options
@value_output
def index(store: Location, kind: str, executor: str | None, output: Output) -> None:
    """Make index files for new parts; search is then several times as fast, with the same answers."""
    report = open_store(store, executor=executor).index(kind)
    output.value(report.to_dict(), str(report))


def _require_only_a_folder(output: Output) -> None:
    """Refuse what needs the rows here, where they are written elsewhere."""
    here = {
        "-o": output.file,
        "--force": output.force,
        "--sheet": output.sheet,
        "--open": output.look,
        "--pictures": output.pictures,
    }
    named = [word for word, given in here.items() if given]
    named += [] if output.form in (None, "json", "nl") else ["--csv, --tsv or -f"]
    if named:
        raise click.UsageError(f"--output-folder writes the matches and prints how many; leave out {', '.join(named)}")


def shorter(uri: str, store: Path) -> str:
    """Return the shortest way to say where a picture is: as it is, or from this folder, or from the store's.

    Only pictures below the folder that the store lies in are named from there; from here the way may lead up first.
    """
    if not os.path.isabs(uri):
        return uri
    ways = [uri, os.path.relpath(uri)]
    from_store = os.path.relpath(uri, store.absolute().parent)
    if not from_store.startswith(os.pardir + os.sep):
        ways.append(from_store)
    return min(ways, key=len)


def _print(
    store: EmbedStore, rows: pa.Table, output: Output, widest: int | None = _WIDEST, heads: bool = False
) -> None:
    """Print matches: for people score, first labels cut to `widest`, and where they are; perhaps under heads."""

    def where(uri: str) -> str:
        return shorter(uri, store.path) if output.on_terminal else uri

    def label(value: Any) -> str:
        return "" if value is None else str(value)[:widest]

    labels = [Column(name, ".4f" if heads and name == "probability" else label) for name in _labels(rows)]
    shown = [Column("score", ".4f"), *labels, Column("uri", where)]
    output.table(rows, columns(rows, [column._replace(head=column.field) for column in shown] if heads else shown))


def _how_many(matches: Matches, store: EmbedStore, most: int | None = None) -> str:
    """Say how many of the store's images were found, and whether `most` has kept others back."""
    found = f"{len(matches):,} of {counted(len(store), 'image')}"
    if matches.threshold is None:
        return f"{found}, nearest to {matches.query!r} first"
    more = f"; -n {most} shows no more" if len(matches) == most else ""
    return (
        f"{found} {'matches' if len(matches) == 1 else 'match'} {matches.query!r} above {matches.threshold:.4f}{more}"
    )


def _title(matches: Matches) -> str:
    return matches.query + ("" if matches.threshold is None else f": score > {matches.threshold:.4f}")


def _labels(rows: pa.Table) -> list[str]:
    """Return the first two columns that are the user's, or the predicted class."""
    return [name for name in rows.schema.names if name not in _OWN][:2]


def _tab_separated(rows: pa.Table) -> Iterator[str]:
    """Yield the rows as tab-separated text under a head."""
    yield "\t".join(rows.schema.names)
    for row in rows.to_pylist():
        yield "\t".join("" if value is None else quoted(str(value)) for value in row.values())


COMMANDS = (search, classify, count, export, index)
