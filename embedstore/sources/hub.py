"""Hugging Face data sets, as objects, saved on disk or by name -> records, one source for each split.

The only module that imports `datasets`, and only when it is asked for such a data set. Plain Parquet and
Arrow files are read without it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from embedstore.errors import OfflineError, SourceError, SourceNotFoundError
from embedstore.offline import SWITCH, apply_switches, is_offline
from embedstore.sources.record import Chain, Source
from embedstore.sources.table import TableSource
from embedstore.sources.tabular import Tabular

PREFIX = "hf://"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")


def looks_like_name(text: str) -> bool:
    """Return whether a text has the form ``org/name`` or ``org/name:split``, and no folder ``org`` is here."""
    return bool(_NAME.fullmatch(text)) and not os.path.isdir(text.partition("/")[0])


def is_saved(path: str) -> bool:
    """Return whether a folder was written by ``save_to_disk``."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ("state.json", "dataset_dict.json"))


def is_dataset(source: Any) -> bool:
    """Return whether this is an object of `datasets`; it is not imported for the question."""
    library = sys.modules.get("datasets")
    if library is None:
        return False
    kinds = (library.Dataset, library.IterableDataset, library.DatasetDict, library.IterableDatasetDict)
    return isinstance(source, kinds)


def from_object(source: Any, *, image_column: str | None = None, split: str | None = None) -> Source:
    """Return the records of a data set object, or of all splits of a dictionary of them."""
    return _of_splits(source, None, image_column, split)


def from_disk(path: str, *, image_column: str | None = None, split: str | None = None) -> Source:
    """Return the records of a folder written by ``save_to_disk``.

    Raises
    ------
    SourceError
        The folder cannot be loaded.
    """
    apply_switches()
    import datasets  # late: a second to import, and needed only here

    path = os.path.abspath(path)
    try:
        loaded = datasets.load_from_disk(path)
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path} cannot be loaded as a saved data set: {error}") from error
    return _of_splits(loaded, path, image_column, split)


def from_name(text: str, *, image_column: str | None = None, split: str | None = None) -> Source:
    """Load a data set from the hub, or from the cache of an earlier load.

    Parameters
    ----------
    text : str
        ``org/name``, ``org/name:split``, ``org/name/config:split``, with or without ``hf://`` before it.

    Raises
    ------
    OfflineError
        The network is switched off, and the data set is not in the cache.
    SourceNotFoundError
        The hub knows no such data set.
    SourceError
        It cannot be loaded for another reason.
    """
    name, _, wanted = text.removeprefix(PREFIX).partition(":")
    parts = name.split("/")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    apply_switches()
    import datasets  # late: a second to import, and needed only here

    try:
        loaded = datasets.load_dataset(repository, config, split=split or wanted or None)
    except Exception as error:  # the loaders of others raise anything; all of it means "not loaded"
        raise _not_loaded(text, error) from error
    return _of_splits(loaded, PREFIX + name, image_column, split or wanted or None)


def tabular_of(dataset: Any, name: str | None = None) -> Tabular:
    """Return a data set as a stream of tables, its pictures undecoded.

    Parameters
    ----------
    name : str, optional
        Where its rows have a lasting place; without it the rows are known by their content.
    """
    rows = None if _is_iterable(dataset) else len(dataset)
    label = name or f"a data set of {'' if rows is None else f'{rows:,} '}rows in memory"
    if dataset.features is None:
        first: pa.Table = next(iter(dataset.with_format("arrow").iter(1)), None)
        if first is None:
            raise SourceError(f"{label} is empty")
        schema = first.schema
    else:
        dataset = _undecoded(dataset)
        schema = dataset.features.arrow_schema

    def stream(size: int, columns: list[str] | None) -> Iterator[pa.Table]:
        chosen = dataset if columns is None else dataset.select_columns(columns)
        yield from chosen.with_format("arrow").iter(batch_size=size)

    return Tabular(label, schema, rows, stream, stable_rows=name is not None)


def _is_iterable(dataset: Any) -> bool:
    """Return whether this is a stream without a length."""
    return isinstance(dataset, sys.modules["datasets"].IterableDataset)


def _undecoded(dataset: Any) -> Any:
    """Ask for the stored bytes of the pictures instead of pixels."""
    datasets = sys.modules["datasets"]
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image) and feature.decode:
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def _of_splits(loaded: Any, name: str | None, image_column: str | None, split: str | None) -> Source:
    """Return one source, or one for each split with a column ``split``."""
    if not isinstance(loaded, Mapping):
        place = f"{name}:{split}" if name and split and name.startswith(PREFIX) else name
        return TableSource(tabular_of(loaded, place), image_column=image_column)
    if split is not None and split not in loaded:
        raise SourceError(f"there is no split {split!r}; found {', '.join(map(str, loaded))}")
    parts: list[Source] = []
    for key, dataset in loaded.items():
        if split is None or key == split:
            tabular = tabular_of(dataset, f"{name}:{key}" if name else None)
            parts.append(TableSource(tabular, image_column=image_column, extra={"split": str(key)}))
    return parts[0] if len(parts) == 1 else Chain(parts)


def _not_loaded(text: str, error: Exception) -> SourceError | OfflineError:
    """Turn whatever the loader raised into what the user can do about it."""
    if is_offline():
        return OfflineError(
            f"the data set {text!r} is not in the cache of this machine, and the network is switched off "
            f"(--offline, or {SWITCH}=1): {error}"
        )
    if isinstance(error, FileNotFoundError):  # the library's own "not found" is one
        return SourceNotFoundError(
            f"{text!r} is no path here and no data set on the Hugging Face hub that you may read: {error}"
        )
    return SourceError(f"the data set {text!r} cannot be loaded: {error}")
