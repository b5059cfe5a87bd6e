"""Sync with Nomic's Atlas that can be trusted, both ways: `sync` (`plan_sync`, `apply_sync`) and `pull`.

`plan` says what is to be sent (`compare` what is there and what differs, `columns` makes the rows safe to send);
`apply` sends, confirms, and writes that down in `confirmations`; `maps` orders, awaits and reads maps; `pull` brings a
dataset down, and `restoring` its columns as they were, by what `description` tells. `bulk` goes both ways at once:
pictures up, Atlas's vectors down. `client` holds the official client at arm's length, `answers` judges what Atlas
says, `outcome` holds plans and reports.
"""

from embedstore.atlas.apply import apply_sync, sync
from embedstore.atlas.bulk import BulkReport, add_via_atlas
from embedstore.atlas.outcome import SyncPlan, SyncReport
from embedstore.atlas.plan import plan_sync
from embedstore.atlas.pull import PullReport, pull

__all__ = [
    "BulkReport",
    "PullReport",
    "SyncPlan",
    "SyncReport",
    "add_via_atlas",
    "apply_sync",
    "plan_sync",
    "pull",
    "sync",
]
