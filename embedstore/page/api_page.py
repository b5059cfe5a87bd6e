"""The file that describes the calls, OpenAPI -> the same for people: one page of HTML without a script."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("api.json")


@functools.cache
def text() -> str:
    """Return the file."""
    return _FILE.read_text(encoding="utf-8")


@functools.cache
def description() -> dict[str, Any]:
    """Return what stands in the file."""
    found: dict[str, Any] = json.loads(text())
    return found


@functools.cache
def page() -> str:
    """Return the page."""
    told = description()
    info = told["info"]
    body = [f"<h1>{_safe(info['title'])}: the calls, version {_safe(info['version'])}</h1>"]
    body += [f"<p>{_safe(info['summary'])}</p>", f"<p>{_safe(info['description'])}</p>"]
    body.append('<p>For programs: <a href="/api/v1/openapi.json">/api/v1/openapi.json</a></p><nav><ul>')
    for path, methods in told["paths"].items():
        body += (f'<li><a href="#{_safe(one["operationId"])}">{_safe(path)}</a></li>' for one in methods.values())
    body.append("</ul></nav>")
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            body += _call(method, path, one)
    body.append("<h2>What is used several times</h2>")
    for name, schema in told["components"]["schemas"].items():
        body += [f'<h3 id="schema-{_safe(name)}">{_safe(name)}</h3>', *_schema(schema)]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>embedstore: calls</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<link rel="stylesheet" href="/static/style.css"></head>'
        f'<body><main class="embedstore es-api">{"".join(body)}</main></body></html>'
    )


def _call(method: str, path: str, one: Mapping[str, Any]) -> Iterator[str]:
    """Yield the HTML of one call."""
    yield f'<section><h2 id="{_safe(one["operationId"])}"><code>{method.upper()} {_safe(path)}</code></h2>'
    yield f"<p>{_safe(one['summary'])} {_safe(one.get('description', ''))}</p>"
    for kind, content in one.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Arguments <small>{_safe(kind)}</small></h3>"
        yield from _schema(content["schema"])
    for kind, content in one["responses"]["200"]["content"].items():
        yield f"<h3>Answer <small>{_safe(kind)}</small></h3>"
        yield from _schema(content["schema"])
        if "x-head" in content:
            yield "<p>The head:</p>"
            yield from _schema(content["x-head"])
    yield "</section>"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the HTML of what a value is: a table of an object's fields, else a line."""
    fields = schema.get("properties")
    if not fields:
        yield f"<p>{_kind(schema)} {_safe(schema.get('description', ''))}</p>"
        for other in schema.get("oneOf", ()):
            yield from _schema(other)
        return
    needed = schema.get("required", ())
    yield "<table><thead><tr><th>name</th><th>what</th><th></th></tr></thead><tbody>"
    for name, field in fields.items():
        optional = "" if name in needed else "<em>optional</em> "
        cells = (f"<code>{_safe(name)}</code>", _kind(field), optional + _safe(_about(field)))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words."""
    if "$ref" in schema:
        name = _safe(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if "oneOf" in schema:
        return " or ".join(_kind(one) for one in schema["oneOf"])
    if "allOf" in schema:
        return " and ".join(_kind(one) for one in schema["allOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{_safe(one)}</code>" for one in schema["enum"])
    kind = schema.get("type", "anything")
    named = " or ".join(kind) if isinstance(kind, list) else kind
    if named == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if named == "object" and schema.get("properties"):
        return "{" + ", ".join(f"{_safe(name)}: {_kind(one)}" for name, one in schema["properties"].items()) + "}"
    return _safe(named)


def _about(schema: Mapping[str, Any]) -> str:
    limits = [f"at most {schema[key]}" for key in ("maximum", "maxItems") if key in schema]
    return " ".join([str(schema.get("description", "")), *limits])


def _safe(value: object) -> str:
    return html.escape(str(value))
