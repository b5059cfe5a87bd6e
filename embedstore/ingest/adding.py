"""Adding to a store: what is new in a source is embedded once and stored.

The two public functions, `add` and `plan_add`. Reading is done by `incoming`, embedding and storing by `pipeline`,
foreign vectors by `given`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedstore.errors import InputError
from embedstore.ingest.incoming import open_chosen
from embedstore.ingest.pipeline import Run
from embedstore.ingest.planning import plan
from embedstore.ingest.reports import AddPlan, AddReport
from embedstore.sources import Source, open_source
from embedstore.store import EmbedStore


def add(
    store: EmbedStore,
    source: Any = None,
    *,
    label_from_folder: bool = False,
    embedding_column: str | None = None,
    image_column: str | None = None,
    split: str | None = None,
    normalise: bool = False,
    reuse: Sequence[Any] = (),
    only: Sequence[str] | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> AddReport:
    """Embed what is new in `source` and store it.

    Parameters
    ----------
    store : EmbedStore
    source : path, glob, list, datasets.Dataset, PIL.Image.Image, ndarray or bytes
        See `sources.open_source`. May be left out when `only` names files and addresses.
    label_from_folder : bool
        Keep the name of a file's folder as its ``label``.
    embedding_column : str, optional
        The source holds vectors in this column; they are stored and nothing is embedded.
    image_column, split : str, optional
        For data sets: which column and which split.
    normalise : bool
        Scale given vectors to unit length, rather than refuse those that are not.
    reuse : sequence of EmbedStore or path
        Stores of the same space; a vector of a known picture is copied from them.
    only : sequence of str, optional
        Take only the records with these uris, such as `reports.read_failures` returns.
    workers, batch_size : int, optional
        Requests under way at once, and pictures in each; the embedder knows good values.
    progress : bool, optional
        Show a bar on stderr; by default when that is a terminal.

    Returns
    -------
    AddReport
        Pictures that cannot be read are in ``failures``, there and in the store's ``failures.csv``. When the
        embedder's budget of requests is spent, ``stopped`` says so.

    Raises
    ------
    SourceError, EmbedderError, SpaceMismatchError
        What was embedded before is in the store; the same call goes on from there.
    InputError
        A metadata value does not fit its column. It is found before the picture is embedded.

    Notes
    -----
    Each batch is on the disk before more than `workers` further ones are under way: if the process is killed, at
    most ``workers * batch_size`` pictures are embedded a second time. Rows become visible to readers when a part's
    worth has gathered, every ten minutes, and at the end. Two calls at once on one store are safe, each row is
    there once; pictures that are new to both may be embedded by each.
    """
    if embedding_column is not None:
        from embedstore.ingest.given import add_vectors  # it builds upon this module's row of the design

        if only is not None:
            raise InputError("`only` chooses pictures; a source of given vectors is taken whole")
        return add_vectors(store, source, embedding_column, normalise=normalise, progress=progress)
    opened = _open(source, only, label_from_folder, image_column, split)
    return Run(store, _lenders(store, reuse), workers, batch_size).run(opened, progress)


def plan_add(
    store: EmbedStore,
    source: Any = None,
    *,
    label_from_folder: bool = False,
    image_column: str | None = None,
    split: str | None = None,
    reuse: Sequence[Any] = (),
    only: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> AddPlan:
    """Say what `add` would do, whose parameters these are: nothing is embedded, sent or written.

    Every file is read and hashed, to recognise pictures that are here under another name; none is decoded, so a
    damaged one counts as one to embed. Neither a key nor the weights of a
    model are needed; without them some figures are missing.

    Returns
    -------
    AddPlan
    """
    opened = _open(source, only, label_from_folder, image_column, split)
    return plan(store, opened, _lenders(store, reuse), batch_size, progress)


def _open(
    source: Any,
    only: Sequence[str] | None,
    label_from_folder: bool,
    image_column: str | None,
    split: str | None,
) -> Source:
    options: dict[str, Any] = {
        "label_from_folder": label_from_folder,
        "image_column": image_column,
        "split": split,
    }
    if only is not None:
        return open_chosen(source, only, **options)
    if source is None:
        raise InputError("say what to add: a folder, files, a data set, or pictures")
    return open_source(source, **options)


def _lenders(store: EmbedStore, reuse: Sequence[Any]) -> list[EmbedStore]:
    lenders = []
    for other in reuse:
        lender = other if isinstance(other, EmbedStore) else EmbedStore.open(other)
        store.space.require(lender.space, f"the store {lender.path} named by reuse")
        lenders.append(lender)
    return lenders
