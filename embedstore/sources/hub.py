"""Hugging Face data sets, as objects, saved on disk or by name -> records, one source for each split.

The only module that imports `datasets`, and only when it is asked for such a data set. Which column holds the pictures
and how rows become records is left to `table_files`, which also reads plain Parquet and Arrow files.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from embedstore.errors import OfflineError, SourceError, SourceNotFoundError
from embedstore.files import open_regular
from embedstore.settings import OFFLINE, apply_switches, is_offline
from embedstore.sources.record import Chain, Source
from embedstore.sources.table_files import TableSource, Tabular

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
    return library is not None and isinstance(
        source, (library.Dataset, library.IterableDataset, library.DatasetDict, library.IterableDatasetDict)
    )


def is_column_of_pictures(value: Any) -> bool:
    """Return whether this is a column of a data set, such as ``dataset["image"]``, which yields pictures one by one."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(value, library.Column) and isinstance(value.features, library.Image)


def from_object(dataset: Any, image_column: str | None, split: str | None, name: str | None = None) -> Source:
    """Return the records of a data set object; of a dictionary of them one split, or all with a column ``split``.

    `name` is as of `tabular_of`. Raises SourceError where there is no such split, or no column of pictures.
    """
    if not isinstance(dataset, Mapping):
        from_hub = name is not None and name.startswith(PREFIX)  # where the split has been chosen already
        if split is not None and not from_hub and str(dataset.split) != split:
            own = "one without a name" if dataset.split is None else repr(str(dataset.split))
            raise SourceError(f"there is no split {split!r}; this data set is a single one, {own}")
        place = f"{name}:{split}" if from_hub and split else name
        return TableSource(tabular_of(dataset, place), image_column)
    if split is not None and split not in dataset:
        raise SourceError(f"there is no split {split!r}; found {', '.join(map(str, dataset))}")
    parts: list[Source] = []
    for key, rows in dataset.items():
        if split is None or key == split:
            tabular = tabular_of(rows, f"{name}:{key}" if name else None)
            parts.append(TableSource(tabular, image_column, str(key)))
    return parts[0] if len(parts) == 1 else Chain(parts)


def from_disk(path: str, image_column: str | None, split: str | None) -> Source:
    """Return the records of a folder written by ``save_to_disk``; raises SourceError where it cannot be loaded."""
    apply_switches()
    import datasets  # late: a second to import, and needed only here

    path = os.path.abspath(path)
    try:
        for folder, _, names in os.walk(path):
            for name in names:
                open_regular(os.path.join(folder, name)).close()  # a pipe would be waited for
        loaded = datasets.load_from_disk(path)
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path} cannot be loaded as a saved data set: {error}") from error
    return from_object(loaded, image_column, split, path)


def from_name(text: str, image_column: str | None, split: str | None) -> Source:
    """Load a data set from the hub, or from the cache of an earlier load.

    The text is ``org/name``, ``org/name:split`` or ``org/name/config:split``, with or without ``hf://`` before it.
    Of a data set with a script the Parquet copy is taken that the hub has made. Raises OfflineError where the network
    is switched off and the data set is not in the cache, SourceNotFoundError where the hub knows no such data set,
    SourceError where it cannot be loaded for another reason.
    """
    name, _, wanted = text.removeprefix(PREFIX).partition(":")
    parts = name.split("/")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    apply_switches()
    import datasets  # late, as above

    chosen = split or wanted or None
    try:
        loaded = _load(datasets, repository, config, chosen)
    except Exception as error:  # the loaders of others raise anything; all of it means "not loaded"
        if is_offline():
            raise OfflineError(
                f"the data set {text!r} is not in the cache of this machine, and the network is switched off "
                f"(--offline, or {OFFLINE}=1): {error}"
            ) from error
        if isinstance(error, FileNotFoundError):  # the library's own "not found" is one
            raise SourceNotFoundError(
                f"{text!r} is no path here and no data set on the Hugging Face hub that you may read: {error}"
            ) from error
        raise SourceError(f"the data set {text!r} cannot be loaded: {error}") from error
    return from_object(loaded, image_column, chosen, PREFIX + name)


def _load(datasets: Any, repository: str, config: str | None, split: str | None) -> Any:
    """Load a data set; of one with a script, which the library refuses since its version 4, the hub's Parquet copy."""
    try:
        return datasets.load_dataset(repository, config, split=split)
    except (RuntimeError, ValueError) as error:
        # The second text is what the library says instead, once it has loaded a copy before.
        if not any(text in str(error) for text in ("scripts are no longer supported", "Couldn't find cache for")):
            raise
        refused = error
    try:
        # The copy has a folder for each config, and no card that would name them.
        return datasets.load_dataset(repository, data_dir=config, revision="refs/convert/parquet", split=split)
    except Exception as error:
        raise refused from error


def tabular_of(dataset: Any, name: str | None = None) -> Tabular:
    """Return a data set as a stream of tables, its pictures undecoded: as their stored bytes.

    `name` is where its rows have a lasting place; without it the rows are known by their content.
    """
    library = sys.modules["datasets"]
    rows = None if isinstance(dataset, library.IterableDataset) else len(dataset)
    label = name or f"a data set of {'' if rows is None else f'{rows:,} '}rows in memory"
    if dataset.features is None:
        first: pa.Table = next(iter(dataset.with_format("arrow").iter(1)), None)
        if first is None:
            raise SourceError(f"{label} is empty")
        schema = first.schema
    else:
        for column, feature in dataset.features.items():
            if isinstance(feature, library.Image) and feature.decode:
                dataset = dataset.cast_column(column, library.Image(decode=False))
        schema = dataset.features.arrow_schema

    def stream(size: int, columns: list[str] | None) -> Iterator[pa.Table]:
        chosen = dataset if columns is None else dataset.select_columns(columns)
        yield from chosen.with_format("arrow").iter(batch_size=size)

    downloads = _download_folders() if _is_downloaded(dataset, name) else None
    return Tabular(label, schema, rows, stream, stable_rows=name is not None, downloads=downloads)


def _is_downloaded(dataset: Any, name: str | None) -> bool:
    """Return whether a data set came from the hub: by its name, or by the addresses that it remembers."""
    if name is not None and name.startswith(PREFIX):
        return True
    known = getattr(dataset.info, "download_checksums", None) or {}
    return any("://" in str(address) for address in known)


def _download_folders() -> list[str]:
    """Return where the library keeps files that it has downloaded, which the tables beside them name."""
    from datasets import config
    from huggingface_hub import constants

    places = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH)
    return [str(place) for place in (*places, constants.HF_HUB_CACHE)]
