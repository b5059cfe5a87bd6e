"""What a commit of the Delta log holds, and the path by which `deltalake` is told where to write it.

Turns the parts that appear and disappear into the actions of the log. When they are published, and who may read them,
is left to `table` and `log_files`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedstore.errors import InputError
from embedstore.storage.arrow_columns import pa
from embedstore.storage.parts import Part

_MISREAD = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\ud800-\udfff]" + (r"|\\" if os.name == "posix" else ""))
"""What deltalake decodes or refuses in a path, also in one that is quoted: escapes, backslashes, control characters."""


def location(path: Path) -> str:
    """Return a path as deltalake is given it: absolute, because it and pyarrow take ``s3:x`` for a bucket.

    Raises
    ------
    InputError
        deltalake would read and write elsewhere, however it is given this path.
    """
    there = os.path.abspath(path)
    if found := _MISREAD.search(there):
        raise InputError(
            f"no store can be at {there!r}: the library that keeps its log takes {found[0]!r} in a path for "
            "something else and would use another folder; rename the folder, or choose another path"
        )
    return there


def write_commit(
    table: Any,
    folder: Path,
    add: Sequence[Part],
    remove: Sequence[Part],
    operation: str,
    new_fields: Sequence[pa.Field],
    transaction: tuple[str, int] | None,
    data_change: bool,
) -> Any:
    """Write the commits of a change to the log of `table`, in `folder`, and return the table with them."""
    from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
    from deltalake.schema import Schema
    from deltalake.transaction import AddAction, RemoveAction

    hooks = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
    known = {field.name for field in table.schema().fields}
    nullable = [field.with_nullable(True) for field in new_fields if field.name not in known]
    if nullable:
        fields = Schema.from_arrow(pa.schema(nullable)).fields
        table.alter.add_columns(fields, post_commithook_properties=hooks)
        table = DeltaTable(str(folder))
    now = int(time.time() * 1000)
    actions: list[Any] = [
        RemoveAction(
            path=part.name, deletion_timestamp=now, data_change=data_change, partition_values={}, size=part.size
        )
        for part in remove
    ]
    actions += [
        AddAction(
            path=part.name,
            size=part.size,
            partition_values={},
            modification_time=now,
            data_change=data_change,
            stats=json.dumps({"numRecords": part.rows}),
        )
        for part in add
    ]
    applied = [Transaction(app_id=transaction[0], version=transaction[1])] if transaction else None
    properties = CommitProperties(custom_metadata={"embedstore": operation}, app_transactions=applied)
    table.create_write_transaction(
        actions, "append", table.schema(), commit_properties=properties, post_commithook_properties=hooks
    )
    table.update_incremental()
    return table
