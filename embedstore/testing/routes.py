"""The endpoints of Nomic's service, as the official client calls them: from a `Request` to a `Reply`, in its words.

Two embed: their vectors come from `features`. The others are Atlas's, each under the path that stands above it; what is
remembered, and why something is refused, is left to `atlas_state`.
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
from numpy.typing import NDArray
from pyarrow import feather

from embedstore.testing import features
from embedstore.testing.atlas_state import ORGANISATION, Atlas, Index, topics_of
from embedstore.testing.faults import Faults
from embedstore.testing.wire import Refused, Reply, Request, invalid

TEXT_MODELS = ("nomic-embed-text-v1", "nomic-embed-text-v1.5")
IMAGE_MODELS = ("nomic-embed-vision-v1", "nomic-embed-vision-v1.5")
TASKS = ("search_query", "search_document", "classification", "clustering")
LARGEST_BODY = 64_000_000
"""Bytes of an upload at most; more is answered by a proxy's page with status 413."""
BINARY = "application/octet-stream"

Route = Callable[..., Reply]
_ROUTES: list[tuple[str, str, Route]] = []
_ID = r"([0-9a-f-]{36})"


def embed_texts(request: Request) -> Reply:
    """Answer POST /v1/embedding/text."""
    fields = _fields(request)
    texts = fields.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(422, [invalid("texts", "value is not a valid list of strings", "type_error.list")])
    model = _chosen(fields.get("model", TEXT_MODELS[0]), "model", TEXT_MODELS)
    _chosen(fields.get("task_type", "search_document"), "task_type", TASKS)
    vectors = np.array([features.text_vector(text) for text in texts]).reshape(-1, features.DIM)
    dim = fields.get("dimensionality")
    if dim is not None:
        vectors = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
    return Reply(_embeddings(vectors, model, tokens=sum(len(text.split()) for text in texts)), texts=texts)


def embed_images(request: Request, pictures: dict[str, bytes], faults: Faults) -> Reply:
    """Answer POST /v1/embedding/image, with files or with URLs that are among `pictures`."""
    fields = _form(request)
    named = [value.decode() for name, value in fields if name == "model"]
    model = _chosen(named[0] if named else IMAGE_MODELS[0], "model", IMAGE_MODELS)
    files = [value for name, value in fields if name == "images"]
    for url in (value.decode() for name, value in fields if name == "urls"):
        if url not in pictures:
            raise Refused(400, f"Could not fetch image: {url}")
        files.append(pictures[url])
    if not files:
        raise Refused(422, [invalid("images", "field required", "value_error.missing")])
    contents, vectors = zip(*(_embed_image(file, faults) for file in files), strict=True)
    return Reply(_embeddings(np.array(vectors), model, tokens=len(files)), images=contents)


def _embed_image(file: bytes, faults: Faults) -> tuple[str, NDArray[np.float32]]:
    """Return a picture's name in the counts, and its vector."""
    try:
        pixels = features.decode_pixels(file)
    except ValueError as error:
        raise Refused(400, f"Invalid image: {error}") from error
    status = faults.refusal(pixels)
    if status is not None:
        raise Refused(status, "Invalid image")
    return features.content_of(pixels), features.image_vector(pixels)


def _embeddings(vectors: NDArray[np.float32], model: str, tokens: int) -> dict[str, Any]:
    """Return the JSON of an embedding route."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"embeddings": vectors.tolist(), "usage": usage, "model": model}


def _chosen(value: Any, name: str, permitted: tuple[str, ...]) -> str:
    """Return `value` if it is permitted; refuse it as the real server does if not."""
    if value in permitted:
        return str(value)
    among = ", ".join(f"'{choice}'" for choice in permitted)
    text = f"value is not a valid enumeration member; permitted: {among}"
    raise Refused(422, [{**invalid(name, text, "type_error.enum"), "ctx": {"enum_values": list(permitted)}}])


def _form(request: Request) -> list[tuple[str, bytes]]:
    """Return the fields of a form; refuse what is none with 422."""
    try:
        return request.form()
    except ValueError as error:
        raise Refused(422, [invalid("body", str(error), "value_error")]) from error


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


def _route(method: str, path: str) -> Callable[[Route], Route]:
    """Let a function answer a path, a pattern whose groups are its further arguments; the first that fits answers."""

    def register(route: Route) -> Route:
        _ROUTES.append((method, path, route))
        return route

    return register


class AtlasRoutes:
    """Answers requests for one `Atlas`, each by the method that stands below its path."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    def answer(self, request: Request) -> Reply:
        """Answer a request; refuse it with 404 if there is no such route."""
        for method, path, route in _ROUTES:
            match = re.fullmatch(path, request.path)
            if method == request.method and match:
                with self.atlas.lock:
                    return route(self, request, *match.groups())
        raise Refused(404, "Not Found")

    @_route("GET", "/v1/user")
    def _user(self, request: Request) -> Reply:
        user, home = ORGANISATION["user_id"], ORGANISATION["organization_id"]
        return Reply({"sub": user, "organizations": [ORGANISATION], "default_organization": home})

    @_route("GET", "/v1/organization/([^/]+)")
    def _organisation(self, request: Request, slug: str) -> Reply:
        if slug != ORGANISATION["slug"]:
            raise Refused(404, f"Organization {slug} not found")
        return Reply({"id": ORGANISATION["organization_id"], "slug": slug})

    @_route("POST", "/v1/project/create")
    def _create(self, request: Request) -> Reply:
        fields = _fields(request, "organization_id", "project_name")
        if fields["organization_id"] != ORGANISATION["organization_id"]:
            raise Refused(403, "You are not a member of this organization")
        dataset = self.atlas.create(fields)
        return Reply({"project_id": dataset.id, "slug": dataset.slug}, 201)

    @_route("POST", "/v1/project/remove")
    def _remove(self, request: Request) -> Reply:
        self.atlas.remove(_fields(request, "project_id")["project_id"])
        return Reply({})

    @_route("POST", "/v1/project/data/add/arrow")
    def _add_rows(self, request: Request) -> Reply:
        if len(request.body) > LARGEST_BODY:
            return Reply(b"<html><h1>413 Request Entity Too Large</h1></html>", 413, content_type="text/html")
        try:
            table = feather.read_table(io.BytesIO(request.body))
            metadata = table.schema.metadata or {}
            dataset_id = metadata[b"project_id"].decode()
        except (pa.ArrowInvalid, KeyError) as error:
            raise Refused(422, [invalid("body", f"no Feather file of a project: {error}", "value_error")]) from error
        ignore = metadata.get(b"on_id_conflict_ignore") == b"true"
        dataset = self.atlas.find(dataset_id)
        try:
            self.atlas.add_rows(dataset, table.replace_schema_metadata(None), ignore_conflicts=ignore)
        except Refused as refused:
            if self.atlas.string_bodies:
                return Reply(refused.detail, refused.reply.status)
            raise
        return Reply({"result": "ok", "checkpoint": None, "latest_addition_timestamp": datetime.now(UTC).isoformat()})

    @_route("POST", "/v1/project/data/add/blobs")
    def _add_blobs(self, request: Request) -> Reply:
        fields = _form(request)
        dataset = self.atlas.find(next((value.decode() for name, value in fields if name == "dataset_id"), None))
        return Reply({"hashes": [self.atlas.add_blob(dataset, value) for name, value in fields if name == "blobs"]})

    @_route("POST", "/v1/project/data/get")
    def _get_rows(self, request: Request) -> Reply:
        fields = _fields(request, "project_id", "datum_ids")
        return Reply({"datums": self.atlas.rows_of(self.atlas.find(fields["project_id"]), fields["datum_ids"])})

    @_route("POST", "/v1/project/data/delete")
    def _delete_rows(self, request: Request) -> Reply:
        fields = _fields(request, "project_id", "datum_ids")
        self.atlas.delete_rows(self.atlas.find(fields["project_id"]), fields["datum_ids"])
        return Reply({})

    @_route("POST", "/v1/project/data/get/nearest_neighbors/by_embedding")
    def _nearest_to_vectors(self, request: Request) -> Reply:
        fields = _fields(request, "atlas_index_id", "queries", "k")
        queries = np.load(io.BytesIO(base64.b64decode(fields["queries"])), allow_pickle=False)
        index = self.atlas.index(fields["atlas_index_id"])[1]
        if queries.shape[1] != index.vectors.shape[1]:
            raise Refused(422, f"Queries have {queries.shape[1]} dimensions, the map {index.vectors.shape[1]}")
        return Reply(self.atlas.nearest(index, queries, fields["k"]))

    @_route("POST", "/v1/project/data/get/nearest_neighbors/by_id")
    def _nearest_to_rows(self, request: Request) -> Reply:
        fields = _fields(request, "atlas_index_id", "datum_ids", "k")
        index = self.atlas.index(fields["atlas_index_id"])[1]
        place = {i: row for row, i in enumerate(index.ids)}
        unknown = [i for i in fields["datum_ids"] if str(i) not in place]
        if unknown:
            raise Refused(404, f"Datums not found: {unknown}")
        return Reply(
            self.atlas.nearest(index, index.vectors[[place[str(i)] for i in fields["datum_ids"]]], fields["k"])
        )

    @_route("POST", "/v1/project/index/create")
    def _create_index(self, request: Request) -> Reply:
        fields = _fields(request, "project_id", "index_name")
        return Reply({"job_id": self.atlas.create_index(self.atlas.find(fields["project_id"]), fields)})

    @_route("GET", f"/v1/project/index/job/progress/{_ID}")
    def _progress(self, request: Request, index_id: str) -> Reply:
        dataset, index = self.atlas.index(index_id)
        stage = "Completed" if dataset.has_built(index) else "Embedding"
        return Reply({"index_id": index.id, "index_build_stage": stage})

    @_route("GET", f"/v1/project/index/job/{_ID}")
    def _job(self, request: Request, job_id: str) -> Reply:
        return Reply({"id": job_id, "index_id": self.atlas.job(job_id)})

    @_route("GET", "/v1/project/projection/tags/get/all")
    def _tags(self, request: Request) -> Reply:
        return Reply([])  # nobody has tagged anything

    @_route("GET", f"/v1/project/projection/{_ID}/schema")
    def _schema(self, request: Request, projection_id: str) -> Reply:
        return Reply(self._finished(projection_id).tiles.schema(), content_type=BINARY)

    @_route("GET", f"/v1/project/{_ID}/index/projection/{_ID}/quadtree/(.+)")
    def _tile(self, request: Request, dataset_id: str, projection_id: str, name: str) -> Reply:
        self.atlas.find(dataset_id)
        file = self._finished(projection_id).tiles.file(name)
        if file is None:
            raise Refused(404, f"No such tile: {name}")
        return Reply(file, content_type=BINARY)

    @_route("GET", f"/v1/project/{_ID}/index/projection/{_ID}")
    def _projection(self, request: Request, dataset_id: str, projection_id: str) -> Reply:
        self.atlas.find(dataset_id)
        features = [{"properties": topic} for topic in topics_of(self._finished(projection_id))]
        return Reply({"id": projection_id, "topic_models": [{"features": features}]})

    def _finished(self, projection_id: str) -> Index:
        """Return a map that can be read; refuse with 404 while it is being made (the real answer is not known)."""
        dataset, index = self.atlas.index(projection_id)
        if not dataset.has_built(index):
            raise Refused(404, "The projection is not built yet")
        return index

    @_route("GET", f"/v1/project/{_ID}")
    def _dataset_by_id(self, request: Request, dataset_id: str) -> Reply:
        return Reply(self.atlas.find(dataset_id).described())

    @_route("GET", "/v1/project/([^/]+)/([^/]+)")
    def _dataset_by_slug(self, request: Request, organisation: str, slug: str) -> Reply:
        if organisation != ORGANISATION["slug"]:
            raise Refused(403, f"You do not have access to {organisation}")
        if slug not in self.atlas.datasets():
            raise Refused(404, "Project not found")
        return Reply(self.atlas.dataset(slug).described())
