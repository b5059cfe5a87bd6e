"""A ``where`` -> which rows match. It is a SQL condition, a pyarrow expression, or a mask that is ready.

A condition is one SQL expression over the metadata columns, as DuckDB understands it::

    label = 'cat' and width > 300
    label in ('cat', 'dog') or label like 'ca%'
    taken is not null and added_at >= '2026-05-01'
    camera_model = 'X100' and not contains(lower(uri), 'draft')

* A comparison with a missing value (NULL) is neither true nor false, and so is its ``not``; only true matches.
* NaN equals itself and is larger than every number; -0.0 equals 0.0.
* Text stands in single quotes. A column whose name is a word of SQL, or has spaces, as other programs may have made
  it, stands in double quotes; A-Z and a-z are the same in names.
* A time that names no zone is in UTC.

A condition looks at one row at a time and calls only `_FUNCTIONS`: no sub-select, no aggregate, no file, no setting.
What would keep the parser busy or the stack deep is refused before it is parsed, and an evaluation that takes too
long is interrupted. Which columns a condition needs is told by `Where.columns`; reading them is left to `rows`.
Nothing else imports DuckDB.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import functools
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embedstore.errors import FilterError, spelt
from embedstore.vectors import Mask

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LIMIT_SECONDS = 60.0
"""After so long the evaluation of a condition is interrupted."""
_MOST_BYTES = 500_000
_MOST_WORDS = 60_000
_MOST_TERMS = 20_000  # words that are no values of a list, which cost more
_LONGEST_WORD = 10_000  # what DuckDB does with a number or a pattern grows faster than its length
_DEEPEST = 100  # with unclosed brackets the parser takes the cube of their number
_EXPECTED = "expected a condition such as \"label = 'cat' and width > 300\""

_NODES = "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE"
_NO_NODES = {
    "SUBQUERY": "a select of its own; for one of several values write label in ('cat', 'dog')",
    "WINDOW": "a window function, which looks at other rows",
    "STAR": "a *; name the columns",
    "PARAMETER": "a parameter; write the value itself",
    "LAMBDA": "-> or a lambda; for a field of JSON write json_extract_string(meta, 'field')",
}
_FUNCTIONS = """
    lower upper lcase ucase length len strlen char_length character_length trim ltrim rtrim left right reverse substr
    substring concat concat_ws contains starts_with ends_with prefix suffix instr strpos position ascii unicode ord
    strip_accents nfc_normalize like_escape not_like_escape ilike_escape not_ilike_escape regexp_matches
    regexp_full_match regexp_extract split string_split str_split levenshtein md5 hash typeof parse_filename
    parse_dirname parse_dirpath parse_path

    abs sign ceil ceiling floor round trunc sqrt cbrt exp ln log log2 log10 pow power mod greatest least isnan isinf
    isfinite pi radians degrees sin cos tan asin acos atan atan2

    year quarter month week day hour minute second weekday dayofweek isodow dayofyear dayname monthname date_part
    datepart date_trunc datetrunc date_diff datediff last_day epoch epoch_ms strptime make_date make_timestamp now today
    age timezone to_years to_quarters to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds
    to_microseconds

    list_value list_contains list_has list_has_any list_has_all list_position list_extract list_element list_min
    list_max list_sum list_avg list_count list_unique array_contains array_has array_has_any array_has_all
    array_position array_length array_extract element_at row struct_pack struct_extract map map_extract
    map_extract_value map_keys map_values map_contains cardinality json_valid json_array_length json_extract
    json_extract_string
"""
"""What a condition may call. None makes much of little, or writes its argument down twice (as nullif does)."""
_OF_TODAY = ("now", "today", "age", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
_SPELLINGS = {
    "None": "is null",
    "startswith": "starts_with(label, 'ca')",
    "endswith": "ends_with(label, 'at')",
    "col": '"column name"',
    "&&": "and",
    "&": "and",
    "|": "or",
    "~": "not",
    "!": "not",
}
"""What other languages write, and SQL for it."""


@dataclass(frozen=True, eq=False)
class Where:
    """A condition on the metadata of a row.

    Attributes
    ----------
    columns : tuple of str
        The columns that `mask` needs, in order of appearance; one of the store's when it needs none, so that a table
        of them has as many rows as the store.
    lasting : bool
        Whether it keeps the same rows tomorrow: a SQL condition that does not ask for the time.
    """

    columns: tuple[str, ...]
    _condition: Any
    lasting: bool = False

    def mask(self, table: pa.Table, seconds: float = LIMIT_SECONDS) -> Mask:
        """Return which rows match.

        Parameters
        ----------
        table : pyarrow.Table of n rows
            With at least `columns`.
        seconds : float
            How long a SQL condition may take.

        Returns
        -------
        ndarray of shape (n,), bool
            In the order of the rows.

        Raises
        ------
        FilterError
            A value cannot be converted as the condition demands, it takes too long, or a mask has another length.
        """
        if isinstance(self._condition, str):
            return _by_duckdb(self._condition, table, seconds)
        if isinstance(self._condition, np.ndarray):
            if len(self._condition) != len(table):
                raise FilterError(
                    f"the mask says {len(self._condition)} times whether a row matches, and there are "
                    f"{len(table)} rows; make it of as many"
                )
            return self._condition.copy()
        return _by_arrow(self._condition, table)


def parse_where(where: Any, schema: pa.Schema) -> Where | None:
    """Understand a condition.

    Parameters
    ----------
    where : str, pyarrow.compute.Expression, array_like of bool, Where or None
        SQL, as told at the head of this module; or an expression of pyarrow, as pyarrow understands it; or for each
        row whether it matches.
    schema : pyarrow.Schema
        The columns that there are.

    Returns
    -------
    Where or None
        None for no condition.

    Raises
    ------
    FilterError
        It is not one condition, names no such column, does not fit the types of its columns, or is too long.

    Examples
    --------
    >>> table = pa.table({"label": ["cat", "dog", None], "width": [300, 100, 300], "year": [1, 2, 3]})
    >>> where = parse_where("label in ('cat', 'dog') and width > 200", table.schema)
    >>> where.columns
    ('label', 'width')
    >>> where.mask(table).tolist()
    [True, False, False]
    """
    if where is None or isinstance(where, Where):
        return where
    if isinstance(where, str):
        columns, lasting = _columns_of_sql(where, schema)
        return Where(columns or _any_column(schema), where, lasting)
    import pyarrow.compute as pc  # late: only filters need it

    if isinstance(where, pc.Expression):
        return Where(_columns_of_expression(where, schema) or _any_column(schema), where)
    return Where(_any_column(schema), _as_mask(where))


def _any_column(schema: pa.Schema) -> tuple[str, ...]:
    """Return the name of a column that is cheap to read."""
    short = [field.name for field in schema if pa.types.is_primitive(field.type)]
    return tuple((short or schema.names)[:1])


@functools.lru_cache(maxsize=64)
def _columns_of_sql(text: str, schema: pa.Schema) -> tuple[tuple[str, ...], bool]:
    """Return the columns that a condition names, after all has been checked that can be without rows.

    And whether it asks for nothing that changes by itself.
    """
    _require_bounded(text)
    with _cursor(text) as cursor:
        query = "SELECT json_serialize_sql($1::VARCHAR)"  # says what the parser understood, and binds nothing
        parsed = cursor.execute(query, [f"SELECT {text}\n"]).fetchall()[0][0]
        tree = json.loads(parsed)
        if tree["error"]:
            raise _refused(text, tree["error_message"])
        selected = [item for statement in tree["statements"] for item in statement["node"].get("select_list", ())]
        if len(selected) != 1 or selected[0]["alias"]:
            raise FilterError(f"the condition {_shown(text)} is not one expression; {_EXPECTED}")
        columns = _columns_of_tree(text, selected[0], schema)
        cursor.register("rows", schema.empty_table())
        kind = str(cursor.execute(f"DESCRIBE SELECT ({text}\n) FROM rows").fetchall()[0][1])
    if kind != "BOOLEAN":
        raise FilterError(
            f"the condition {_shown(text)} is a value ({kind}), not true or false; compare it, as in label = 'cat'"
        )
    return columns, not any(f'"{name}"' in parsed.lower() for name in _OF_TODAY)


def _require_bounded(text: str) -> None:
    """Refuse a condition that would keep the parser busy for long."""
    import duckdb

    data = text.encode(errors="replace")
    if not text.strip():
        raise FilterError(f"the condition is empty; {_EXPECTED}")
    if "\0" in text or data.decode() != text:
        raise FilterError(f"the condition {_shown(text)} holds characters that no text has; {_EXPECTED}")
    if len(data) > _MOST_BYTES:
        raise _too_much(text, f"{len(data):,} bytes long, and may have {_MOST_BYTES:,}")
    if data.count(b"/*") > 10 * _DEEPEST:  # DuckDB 1 looks for the end of each one in all of the text
        raise _too_much(text, "full of comments")
    found = duckdb.tokenize(text)
    if len(found) > _MOST_WORDS:
        raise _too_much(text, f"made of {len(found):,} words and signs, and may have {_MOST_WORDS:,}")
    before = ""
    depth = signs = terms = 0
    for (start, kind), end in zip(found, [*(place for place, _ in found[1:]), len(data)], strict=False):
        word = data[start:end].strip().decode(errors="replace")
        if len(word) > _LONGEST_WORD:
            raise _too_much(text, f"made with a word of {len(word):,} letters, and may have {_LONGEST_WORD:,}")
        is_sign = kind == duckdb.token_type.operator
        signs = signs + 1 if is_sign and word not in ")]}" else 0
        depth += is_sign * ((word in "([{") - (word in ")]}"))
        if max(depth, signs) > _DEEPEST:
            raise _too_much(text, f"nested more than {_DEEPEST} deep")
        terms += word != "," and kind not in (duckdb.token_type.string_const, duckdb.token_type.numeric_const)
        if terms > _MOST_TERMS:
            raise _too_much(text, f"made of more than {_MOST_TERMS:,} names and signs")
        if kind == duckdb.token_type.comment:
            raise FilterError(f"the condition {_shown(text)} holds a comment; leave it out")
        if word == ";":
            raise FilterError(f"the condition {_shown(text)} is not one expression; {_EXPECTED}")
        if before.lower() == "case" and word.lower() != "when":
            # What stands here is copied for each `when`, and again at every level of nesting.
            raise FilterError(f"in the condition {_shown(text)}, write case when label = 'cat' for case label")
        before = word


def _columns_of_tree(text: str, expression: dict[str, Any], schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that a parsed condition names; refuse what looks further than at one row."""
    names = {_folded(name): name for name in schema.names}
    functions = _FUNCTIONS.split()
    used: dict[str, None] = {}
    todo: list[tuple[Any, int]] = [(expression, 0)]
    while todo:
        node, depth = todo.pop()
        kind = node.get("class") if isinstance(node, dict) else None
        if kind is not None:
            path = node.get("column_names", [])
            depth += 1
            if kind not in _NODES.split():
                what = _NO_NODES.get(kind, kind.lower().replace("_", " "))
                raise FilterError(f"the condition {_shown(text)} holds {what}")
            if max(depth, len(path)) > _DEEPEST:
                raise _too_much(text, f"nested more than {_DEEPEST} deep")
            if kind == "FUNCTION":
                name = node["function_name"]
                if name.lower() not in functions and re.search(r"\w", name):  # the others are operators
                    raise _not_callable(text, name, functions)
                path = [node["catalog"], node["schema"]]  # so the parser takes the column in ``label.lower()``
            used.update(dict.fromkeys([names[_folded(part)] for part in path if _folded(part) in names][:1]))
        values = node.values() if isinstance(node, dict) else node
        todo.extend((value, depth) for value in reversed(list(values)) if isinstance(value, dict | list))
    return tuple(used)


def _by_duckdb(text: str, table: pa.Table, seconds: float) -> Mask:
    import duckdb

    # The rows are numbered because DuckDB does not keep their order everywhere: a list after `in` becomes a join.
    name = "row number"
    while name in table.column_names:
        name += "_"
    numbers = np.arange(len(table), dtype=np.min_scalar_type(len(table)))
    column = pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(table), [None, pa.py_buffer(numbers)])
    with _cursor(text) as cursor:
        cursor.register("rows", table.append_column(name, column))
        alarm = threading.Timer(seconds, cursor.interrupt)
        alarm.daemon = True
        alarm.start()
        try:
            found = cursor.execute(f'SELECT "{name}", ({text}\n) IS TRUE AS "{name}?" FROM rows').fetchnumpy()
        except duckdb.InterruptException as error:
            raise FilterError(
                f"the condition {_shown(text)} was stopped after {seconds:g} seconds; ask for less"
                + spelt(", or give a mask", "")
            ) from error
        finally:
            alarm.cancel()
            alarm.join()
    matches = np.asarray(found[f"{name}?"], np.bool_)
    if np.array_equal(found[name], numbers):
        return matches
    mask = np.zeros(len(table), np.bool_)
    mask[found[name]] = matches
    return mask


@contextlib.contextmanager
def _cursor(text: str) -> Iterator[DuckDBPyConnection]:
    """Give a cursor of its own to whoever asks about `text`; its errors become `FilterError`."""
    import duckdb

    cursor = _database(os.getpid()).cursor()
    try:
        yield cursor
    except RecursionError as error:
        raise _too_much(text, f"nested more than {_DEEPEST} deep") from error
    except (duckdb.Error, RuntimeError, MemoryError, UnicodeError) as error:
        if str(error) == "Query interrupted" or str(error).rstrip().endswith("failed: KeyboardInterrupt:"):  # Ctrl-C
            raise KeyboardInterrupt from error
        if isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
            _database.cache_clear()  # it answers nothing any more
        raise _refused(text, str(error)) from error
    finally:
        cursor.close()


@functools.cache
def _database(process: int) -> DuckDBPyConnection:
    """Return this process's database, which holds nothing, reaches nothing, and cannot be told otherwise.

    Cursors of it serve any number of threads at once. After a fork there are none of its threads: the child makes its
    own, and leaves that of its parent as it is.
    """
    import duckdb

    closed: dict[str, Any] = {
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",  # variables of Python are no tables
        "temp_directory": "",
    }
    database = duckdb.connect(":memory:", config=closed)
    with contextlib.suppress(duckdb.Error):  # a build that knows no time zones has UTC only
        database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute("SET GLOBAL lock_configuration = true")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))  # closing it in a child would wait for threads for ever
    return database


def _columns_of_expression(expression: pa.compute.Expression, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns without which an expression cannot be bound."""
    empty = schema.empty_table()
    _by_arrow(expression, empty)
    if "FieldPath(" in str(expression):  # columns by their numbers: all must stand where they do
        return tuple(schema.names)
    used = []
    for name in schema.names:
        try:
            _by_arrow(expression, empty.drop_columns([name]))
        except FilterError:
            used.append(name)
    return tuple(used)


def _by_arrow(expression: pa.compute.Expression, table: pa.Table) -> Mask:
    from pyarrow import acero

    try:
        plan = [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
            acero.Declaration("project", acero.ProjectNodeOptions([expression], ["matches"])),
        ]
        matches = acero.Declaration.from_sequence(plan).to_table(use_threads=False).column(0)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FilterError(f"the expression {_shown(str(expression))} does not fit the columns: {error}") from error
    if not pa.types.is_boolean(matches.type):
        raise FilterError(
            f"the expression {_shown(str(expression))} is a value ({matches.type}), not true or false; compare it"
        )
    return np.asarray(matches.fill_null(False).to_numpy(), np.bool_)


def _as_mask(where: Any) -> Mask:
    """Return what was given as a mask; null is False."""
    if isinstance(where, (pa.Array, pa.ChunkedArray)) and pa.types.is_boolean(where.type):
        where = where.fill_null(False)
    try:
        mask = np.array(where)
    except ValueError:  # lists of several lengths
        mask = np.array(None)
    if mask.ndim != 1 or not (mask.dtype == np.bool_ or mask.size == 0):
        raise FilterError(
            "a where is SQL such as \"label = 'cat'\", a pyarrow expression, or True or False for each row, not "
            f"{type(where).__name__} of {mask.dtype}"
        )
    return mask.astype(np.bool_)


def _refused(text: str, message: str) -> FilterError:
    """Return the error for what DuckDB refuses, with its own words and SQL for what other languages write."""
    told = " ".join(re.split(r"\n+LINE \d+:", message)[0].split())
    known = told.replace("Chained", '"&&"') if "&&" in text else told  # of this sign DuckDB says something else
    hints = [
        f"for {word} write {sql}"
        for word, sql in _SPELLINGS.items()
        if any(named in known for named in (f'"{word}"', f"'{word}(", f"name {word} "))
    ]
    if "not found in FROM" in told:
        hints.append("text stands in 'single quotes', a name with spaces in \"double quotes\"")
    hints += ["for one of several values write label in ('cat', 'dog')"] * ("to BOOL" in told)
    return FilterError("; ".join([f"the condition {_shown(text)} does not work: {told[:500]}", *hints]))


def _not_callable(text: str, name: str, functions: list[str]) -> FilterError:
    near = [_SPELLINGS[name]] if name in _SPELLINGS else difflib.get_close_matches(name, functions, 1, 0.75)
    hint = f"did you mean {near[0]}?" if near else "it looks at one row, and calls such as lower, abs, year"
    return FilterError(f"the condition {_shown(text)} calls {name}, which it may not; {hint}")


def _too_much(text: str, what: str) -> FilterError:
    return FilterError(
        f"the condition {_shown(text)} is {what}; write label in ('cat', 'dog') for many values"
        + spelt(", or give a mask", "")
    )


def _folded(name: str) -> bytes:
    """Return a name as DuckDB compares it: A to Z are a to z, and no other letter is another."""
    return name.encode(errors="replace").lower()


def _shown(text: str, length: int = 120) -> str:
    return repr(text) if len(text) <= length else repr(text[:length]) + "..."
