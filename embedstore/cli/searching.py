"""Commands that ask: search, classify, count, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedstore.cli.options import example, store_argument, threshold_type, version_option, where_option
from embedstore.cli.output import Output, rows_output, value_output

if TYPE_CHECKING:
    import pyarrow as pa

F = TypeVar("F", bound=Callable[..., Any])


def _query_options(function: F) -> F:
    for option in (
        click.option("--id", "identity", metavar="ID", help="Ask with a record of the store."),
        click.option("--image", type=click.Path(path_type=Path), metavar="FILE", help="Ask with a picture."),
        click.argument("text", required=False, metavar="[TEXT]"),
    ):
        function = option(function)
    return function


def _query(text: str | None, image: Path | None, identity: str | None) -> Any:
    given = [value for value in (text, image, identity) if value is not None]
    if len(given) != 1:
        raise click.UsageError("ask with one of: a text, --image FILE, --id ID")
    from embedstore.searching.queries import Query

    if identity is not None:
        return Query.id(identity)
    return Query.image(image) if image is not None else Query.text(text or "")


@click.command(
    epilog=example('embedstore search photos.store "a tiny white ball" -n 5 --where "width >= 200"')
)
@store_argument
@_query_options
@click.option(
    "-n", "k", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many rows."
)
@click.option("--threshold", type=threshold_type, help="Only rows with a score larger than this.")
@click.option("--approximate", is_flag=True, help="Use an index of the kind ivf or rabitq; it may miss rows.")
@where_option
@version_option
@rows_output
def search(
    store: Path,
    text: str | None,
    image: Path | None,
    identity: str | None,
    k: int,
    threshold: float | None,
    where: str | None,
    version: int | None,
    approximate: bool,
    output: Output,
) -> None:
    """Print the pictures nearest to a query, nearest first."""
    query = _query(text, image, identity)
    from embedstore.store import EmbedStore

    matches = EmbedStore.open(store, version).search(query, k, threshold, where, approximate=approximate)
    output.table(matches.table, _lines)


@click.command(
    epilog=example(
        'embedstore classify photos.store "bird" --threshold 0.3 -f',
        "embedstore classify photos.store --classifier bird -o birds.csv",
    )
)
@store_argument
@_query_options
@click.option("--threshold", type=threshold_type, help="A match is a score larger than this.")
@click.option(
    "--classifier", "name", metavar="NAME", help="Decide by a saved classifier; NAME or a JSON file."
)
@where_option
@version_option
@rows_output
def classify(
    store: Path,
    text: str | None,
    image: Path | None,
    identity: str | None,
    threshold: float | None,
    name: str | None,
    where: str | None,
    version: int | None,
    output: Output,
) -> None:
    """Print every picture whose score is larger than the threshold, or that a saved classifier matches."""
    from embedstore.store import EmbedStore

    if name is None:
        query = _query(text, image, identity)
        if threshold is None:
            raise click.UsageError("decide by --threshold or by --classifier; `calibrate` finds a threshold")
        opened = EmbedStore.open(store, version)
        matches = opened.classify(query, threshold, where)
    else:
        if text or image or identity:
            raise click.UsageError("a classifier has its own query; leave the query out")
        from embedstore.cli.deciding import find_classifier
        from embedstore.deciding import decide

        opened = EmbedStore.open(store, version)
        kept = find_classifier(opened, name)
        if len(kept.targets) > 1:
            if threshold is not None:
                raise click.UsageError(f"{name!r} has a threshold for each class; leave --threshold out")
            output.table(decide.predict(opened, kept, where), _predicted_lines)
            return
        matches = decide.matches(opened, kept, threshold, where)
    output.table(matches.table, _lines)
    above = "" if matches.threshold is None else f" above {matches.threshold:.4f}"
    output.say(f"{len(matches):,} of {len(opened):,} images match {matches.query}{above}")


@click.command(epilog=example('embedstore count photos.store "bird" --threshold 0.3'))
@store_argument
@_query_options
@click.option("--threshold", type=threshold_type, required=True, help="A match is a score larger than this.")
@where_option
@version_option
@value_output
def count(
    store: Path,
    text: str | None,
    image: Path | None,
    identity: str | None,
    threshold: float,
    where: str | None,
    version: int | None,
    output: Output,
) -> None:
    """Print how many pictures have a score larger than the threshold."""
    query = _query(text, image, identity)
    from embedstore.store import EmbedStore

    number = EmbedStore.open(store, version).count(query, threshold, where)
    output.value({"query": query.label, "threshold": threshold, "count": number}, str(number))


@click.command(epilog=example("embedstore export photos.store -o photos.parquet --embeddings"))
@store_argument
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--embeddings", is_flag=True, help="The vectors too.")
@where_option
@version_option
@rows_output
def export(
    store: Path, columns: str | None, embeddings: bool, where: str | None, version: int | None, output: Output
) -> None:
    """Print or write the rows of a store."""
    from embedstore.store import EmbedStore

    opened = EmbedStore.open(store, version)
    names = columns.split(",") if columns else opened.columns
    output.table(opened.to_table([*names, *(["embedding"] if embeddings else [])], where), _plain_lines)


def _lines(rows: pa.Table) -> Iterator[str]:
    """Yield a line for each match: score, labels, where it is."""
    fixed = {"id", "score", "uri", "content_hash", "width", "height", "added_at"}
    shown = [name for name in rows.schema.names if name not in fixed][:2]
    values = rows.select(["score", "uri", *shown]).to_pylist()
    widths = {name: min(24, max((len(str(row[name] or "")) for row in values), default=0)) for name in shown}
    for row in values:
        labels = "  ".join(f"{str(row[name] or '')[:24]:<{widths[name]}}" for name in shown)
        yield "  ".join(part for part in (f"{row['score']:.4f}", labels, row["uri"]) if part)


def _predicted_lines(rows: pa.Table) -> Iterator[str]:
    """Yield a line for each match: score, class, where it is."""
    width = max((len(name) for name in rows.column("predicted").to_pylist()), default=0)
    for row in rows.to_pylist():
        yield f"{row['score']:.4f}  {row['predicted']:<{width}}  {row['uri']}"


def _plain_lines(rows: pa.Table) -> Iterator[str]:
    """Yield the rows as tab-separated text under a head."""
    yield "\t".join(rows.schema.names)
    for row in rows.to_pylist():
        yield "\t".join("" if value is None else str(value) for value in row.values())


COMMANDS = (search, classify, count, export)
