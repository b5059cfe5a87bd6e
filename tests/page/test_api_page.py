"""The file that describes the calls says what there is: each call, its arguments, what it really answers."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.routing import Route

from embedstore.page import api_page
from embedstore.page.app import make_app
from embedstore.page.session import CALLS, Session
from embedstore.store import EmbedStore

BIRD = {"terms": [{"text": "bird"}]}
TRUTH = {"column": "category", "value": "bird"}
KINDS = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Any = api_page.description()
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def faults(value: Any, schema: dict[str, Any], place: str = "") -> list[str]:
    """Return where a value is not as a schema says; fields that it does not name are faults too."""
    schema = resolved(schema)
    if "oneOf" in schema:
        found = [faults(value, one, place) for one in schema["oneOf"]]
        return [] if any(not one for one in found) else [f"{place}: none of several: {found}"]
    if "allOf" in schema:
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for one in map(resolved, schema["allOf"]):
            merged["properties"] |= one["properties"]
            merged["required"] += one["required"]
        return faults(value, merged, place)
    kinds = schema.get("type", list(KINDS))
    kinds = kinds if isinstance(kinds, list) else [kinds]
    fits = any(isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds)
    if not fits:
        return [f"{place}: {value!r} is no {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is not in {schema['enum']}"]
    found_here = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found_here += [f"{place}: {name} is missing" for name in schema.get("required", []) if name not in value]
        others = schema.get("additionalProperties", not properties)
        for name, one in value.items():
            if name in properties:
                found_here += faults(one, properties[name], f"{place}.{name}")
            elif others is False:
                found_here.append(f"{place}: {name} is not described")
            elif isinstance(others, dict):
                found_here += faults(one, others, f"{place}.{name}")
    if isinstance(value, list):
        for number, one in enumerate(value):
            found_here += faults(one, schema.get("items", {}), f"{place}[{number}]")
    return found_here


def described(name: str) -> dict[str, Any]:
    return dict(api_page.description()["paths"][f"/api/v1/{name}"]["post"])


def test_every_call_is_described_and_nothing_else(photo_store: EmbedStore) -> None:
    """By its path, its method and the names of its arguments; the other routes too."""
    told = api_page.description()
    assert told["openapi"] == "3.1.0"
    paths = {path: set(methods) for path, methods in told["paths"].items()}
    others = {"/api/v1/openapi.json": {"get"}, "/api/v1/thumbnail/{scored}/{row}": {"get"}}
    assert paths == {f"/api/v1/{name}": {"post"} for name in CALLS} | others
    for name, arguments in CALLS.items():
        content = described(name)["requestBody"]["content"]
        if name == "picture":
            assert list(content) == ["application/octet-stream"]
            continue
        schema = content["application/json"]["schema"]
        assert set(schema["properties"]) == set(arguments), name
        assert set(schema["required"]) <= set(arguments)
    routes = {route.path for route in make_app(Session(photo_store)).routes if isinstance(route, Route)}
    served = {path for path in routes if path.startswith("/api/v1")}
    assert served == {"/api/v1/{call}", "/api/v1/openapi.json", "/api/v1/thumbnail/{scored}/{row}"}


def test_every_reference_leads_somewhere() -> None:
    """Also those of answers that no test has seen."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert resolved(value)
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(api_page.description())


@pytest.fixture(scope="module")
def answers(photo_store: EmbedStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Real answers of each call, with and without labels."""
    folder = tmp_path_factory.mktemp("api")
    session = Session(EmbedStore.open(shutil.copytree(photo_store.path, folder / "p.store")))
    file = Path(photo_store.to_table(["uri"]).column("uri")[0].as_py())
    found: dict[str, list[Any]] = {}

    def ask(name: str, buffers: Any = (), /, **args: Any) -> Any:
        result, arrays = session.answer(name, args, buffers)
        if name != "picture":
            schema = described(name)["requestBody"]["content"]["application/json"]["schema"]
            assert faults(args, schema) == []
        found.setdefault(name, []).append((result, arrays))
        return result

    ask("info")
    first = ask("score", query=BIRD, where="width > 10")
    number = first["scored"]
    ask("suggest", scored=number)
    ask("rows", scored=number, rows=[1, 2])
    ask("thumbnail", scored=number, row=1)
    ask("picture", [file.read_bytes()])
    for _ in range(2):
        ask("measure", scored=number)
        ask("interval", scored=number, threshold=0.4)
        ask("labels", scored=number)
        ask("plan", scored=number, min_recall=0.5)
        rows = ask("next", scored=number, threshold=0.4, near=2, random=8)["rows"]
        for row in rows:
            ask("label", scored=number, row=row["row"], answer="yes" if row["score"] > 0.5 else "no")
    ask("measure", scored=number, labels=TRUTH)
    ask("interval", scored=number, labels=TRUTH, threshold=0.4)
    ask("labels", scored=number, labels=TRUTH)
    ask("undo", scored=number)
    ask("undo", scored=ask("score", query={"terms": [{"text": "fish"}]})["scored"])
    made = ask("calibrate", scored=number, labels=TRUTH, min_precision=0.5, cost={"fp": 1, "fn": 2})
    ask("save", calibrated=made["calibrated"], name="b")
    ask("score", query={"classifier": "b"})
    ask("classifiers")
    ask("search", query=BIRD, k=2)
    ask("classify", query={"classifier": "b"}, limit=2)
    ask("export", scored=number, threshold=0.4, format="csv")
    ask("commands", scored=number, threshold=0.4, labels=TRUTH)
    ask("info")
    ask("refresh")
    return found


@pytest.mark.parametrize("name", sorted(CALLS))
def test_answers_are_as_described(answers: dict[str, list[Any]], name: str) -> None:
    """Every field that is promised is there, of its type, and no other; buffers where they are promised."""
    content = described(name)["responses"]["200"]["content"]
    for result, arrays in answers[name]:
        if arrays:
            told = content["application/octet-stream"]["x-head"]
            result = {**result, "buffers": [len(one) for one in arrays]}
        else:
            told = content["application/json"]["schema"]
        assert faults(result, told) == []


def test_buffers_have_the_promised_types(answers: dict[str, list[Any]]) -> None:
    """Numbers of rows and scores."""
    result, arrays = answers["score"][0]
    assert [len(one) for one in arrays] == [4 * result["n"]] * 2
    for result, arrays in answers["measure"]:
        scores, tp, fp = (np.frombuffer(one, "<f8") for one in arrays)
        assert len(tp) == len(fp) == (len(scores) + 1 if result["measured"] else 0)


def test_the_page_for_people_names_every_call() -> None:
    """Without a script, and every link within it leads somewhere."""

    class Found(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.ids: set[str] = set()
            self.links: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            for name, value in attrs:
                assert name != "style"
                assert not name.startswith("on")
                if name == "id":
                    assert value not in self.ids
                    self.ids.add(str(value))
                if name == "href" and str(value).startswith("#"):
                    self.links.append(str(value)[1:])

    found = Found()
    found.feed(api_page.page())
    assert {"script", "style"}.isdisjoint(found.tags)
    assert set(CALLS) <= found.ids
    assert set(found.links) <= found.ids
