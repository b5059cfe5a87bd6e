"""The Atlas endpoints of Nomic's service, as the official client calls them: from a `Request` to a `Reply`.

What is remembered, and why something is refused, is `atlas_state`'s.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather

from embedstore.testing.atlas_dataset import Dataset
from embedstore.testing.atlas_state import Atlas
from embedstore.testing.refusals import Refused, invalid
from embedstore.testing.wire import Reply, Request

BINARY = "application/octet-stream"
LARGEST_BODY = 64_000_000
"""Bytes of an upload at most; more is answered by a proxy's page with status 413."""

Route = Callable[["AtlasRoutes", Request, tuple[str, ...]], Reply]


class AtlasRoutes:
    """Answers requests for one `Atlas`."""

    def __init__(self, atlas: Atlas, organisation: dict[str, str]) -> None:
        self.atlas = atlas
        self._organisation = organisation

    def answer(self, request: Request) -> Reply:
        """Answer a request; refuse it with 404 if there is no such route."""
        for method, pattern, route in ROUTES:
            match = re.fullmatch(pattern, request.path)
            if method == request.method and match:
                with self.atlas.lock:
                    return route(self, request, match.groups())
        raise Refused(404, "Not Found")

    def organisation(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/organization/{slug}."""
        if names[0] != self._organisation["slug"]:
            raise Refused(404, f"Organization {names[0]} not found")
        return Reply({"id": self._organisation["organization_id"], "slug": names[0]})

    def create(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/create."""
        fields = _fields(request, "organization_id", "project_name")
        if fields["organization_id"] != self._organisation["organization_id"]:
            raise Refused(403, "You are not a member of this organization")
        dataset = self.atlas.create(fields)
        return Reply({"project_id": dataset.id, "slug": dataset.slug}, 201)

    def by_slug(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/{organisation}/{slug}."""
        organisation, slug = names
        if organisation != self._organisation["slug"]:
            raise Refused(403, f"You do not have access to {organisation}")
        if slug not in self.atlas.datasets():
            raise Refused(404, "Project not found")
        return self._described(self.atlas.dataset(slug))

    def by_id(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/{id}."""
        return self._described(self.atlas.find(names[0]))

    def remove(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/remove."""
        self.atlas.remove(_fields(request, "project_id")["project_id"])
        return Reply({})

    def add_arrow(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/add/arrow."""
        if len(request.body) > LARGEST_BODY:
            return Reply(b"<html><h1>413 Request Entity Too Large</h1></html>", 413, content_type="text/html")
        try:
            table = feather.read_table(io.BytesIO(request.body))
            metadata = table.schema.metadata or {}
            dataset_id = metadata[b"project_id"].decode()
        except (pa.ArrowInvalid, KeyError) as error:
            raise Refused(
                422, [invalid("body", f"no Feather file of a project: {error}", "value_error")]
            ) from error
        ignore = metadata.get(b"on_id_conflict_ignore") == b"true"
        dataset = self.atlas.find(dataset_id)
        try:
            self.atlas.add_rows(dataset, table.replace_schema_metadata(None), ignore_conflicts=ignore)
        except Refused as refused:
            if self.atlas.string_bodies:
                return Reply(refused.detail, refused.reply.status)
            raise
        return Reply(
            {"result": "ok", "checkpoint": None, "latest_addition_timestamp": datetime.now(UTC).isoformat()}
        )

    def add_blobs(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/add/blobs."""
        try:
            fields = request.form()
        except ValueError as error:
            raise Refused(422, [invalid("body", str(error), "value_error")]) from error
        dataset = self.atlas.find(
            next((value.decode() for name, value in fields if name == "dataset_id"), None)
        )
        hashes = [self.atlas.add_blob(dataset, value) for name, value in fields if name == "blobs"]
        return Reply({"hashes": hashes})

    def get_rows(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/get."""
        fields = _fields(request, "project_id", "datum_ids")
        return Reply(
            {"datums": self.atlas.rows_of(self.atlas.find(fields["project_id"]), fields["datum_ids"])}
        )

    def delete_rows(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/delete."""
        fields = _fields(request, "project_id", "datum_ids")
        self.atlas.delete_rows(self.atlas.find(fields["project_id"]), fields["datum_ids"])
        return Reply({})

    def create_index(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/index/create."""
        fields = _fields(request, "project_id", "index_name")
        return Reply({"job_id": self.atlas.create_index(self.atlas.find(fields["project_id"]), fields)})

    def job(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/index/job/{id}."""
        return Reply({"id": names[0], "index_id": self.atlas.job(names[0])})

    def progress(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/index/job/progress/{index id}."""
        dataset, index = self.atlas.index(names[0])
        return Reply(
            {"index_id": index.id, "index_build_stage": "Embedding" if dataset.locked else "Completed"}
        )

    def schema(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/projection/{id}/schema."""
        return Reply(self.atlas.index(names[0])[1].tiles.schema(), content_type=BINARY)

    def tile(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/{id}/index/projection/{id}/quadtree/{file}."""
        self.atlas.find(names[0])
        file = self.atlas.index(names[1])[1].tiles.file(names[2])
        if file is None:
            raise Refused(404, f"No such tile: {names[2]}")
        return Reply(file, content_type=BINARY)

    def nearest_by_vector(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/get/nearest_neighbors/by_embedding."""
        fields = _fields(request, "atlas_index_id", "queries", "k")
        queries = np.load(io.BytesIO(base64.b64decode(fields["queries"])), allow_pickle=False)
        index = self.atlas.index(fields["atlas_index_id"])[1]
        if queries.shape[1] != index.vectors.shape[1]:
            raise Refused(
                422, f"Queries have {queries.shape[1]} dimensions, the map {index.vectors.shape[1]}"
            )
        return Reply(self.atlas.nearest(index, queries, fields["k"]))

    def nearest_by_id(self, request: Request, names: tuple[str, ...]) -> Reply:
        """POST /v1/project/data/get/nearest_neighbors/by_id."""
        fields = _fields(request, "atlas_index_id", "datum_ids", "k")
        index = self.atlas.index(fields["atlas_index_id"])[1]
        place = {i: row for row, i in enumerate(index.ids)}
        unknown = [i for i in fields["datum_ids"] if str(i) not in place]
        if unknown:
            raise Refused(404, f"Datums not found: {unknown}")
        queries = index.vectors[[place[str(i)] for i in fields["datum_ids"]]]
        return Reply(self.atlas.nearest(index, queries, fields["k"]))

    def tags(self, request: Request, names: tuple[str, ...]) -> Reply:
        """GET /v1/project/projection/tags/get/all: nobody has tagged anything."""
        return Reply([])

    def _described(self, dataset: Dataset) -> Reply:
        return Reply(dataset.described(self._organisation["slug"]))


def _fields(request: Request, *required: str) -> dict[str, Any]:
    """Return the JSON object of a request; refuse it with 422 if a field is missing."""
    try:
        fields = request.json()
    except ValueError as error:
        raise Refused(422, [invalid("body", str(error), "value_error.jsondecode")]) from error
    missing = [name for name in required if name not in fields]
    if missing:
        raise Refused(422, [invalid(name, "field required", "value_error.missing") for name in missing])
    return dict(fields)


_ID = r"([0-9a-f-]{36})"
ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", r"/v1/organization/([^/]+)", AtlasRoutes.organisation),
    ("POST", r"/v1/project/create", AtlasRoutes.create),
    ("POST", r"/v1/project/remove", AtlasRoutes.remove),
    ("POST", r"/v1/project/data/add/arrow", AtlasRoutes.add_arrow),
    ("POST", r"/v1/project/data/add/blobs", AtlasRoutes.add_blobs),
    ("POST", r"/v1/project/data/get", AtlasRoutes.get_rows),
    ("POST", r"/v1/project/data/delete", AtlasRoutes.delete_rows),
    ("POST", r"/v1/project/data/get/nearest_neighbors/by_embedding", AtlasRoutes.nearest_by_vector),
    ("POST", r"/v1/project/data/get/nearest_neighbors/by_id", AtlasRoutes.nearest_by_id),
    ("POST", r"/v1/project/index/create", AtlasRoutes.create_index),
    ("GET", rf"/v1/project/index/job/progress/{_ID}", AtlasRoutes.progress),
    ("GET", rf"/v1/project/index/job/{_ID}", AtlasRoutes.job),
    ("GET", r"/v1/project/projection/tags/get/all", AtlasRoutes.tags),
    ("GET", rf"/v1/project/projection/{_ID}/schema", AtlasRoutes.schema),
    ("GET", rf"/v1/project/{_ID}/index/projection/{_ID}/quadtree/(.+)", AtlasRoutes.tile),
    ("GET", rf"/v1/project/{_ID}", AtlasRoutes.by_id),
    ("GET", r"/v1/project/([^/]+)/([^/]+)", AtlasRoutes.by_slug),
)
"""Method, pattern of the path, and who answers; the first that fits."""
