"""The shape of the code: no circle, one name for each module, and the public names that users import."""

from __future__ import annotations

import importlib.util
import inspect
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import embedstore

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    """scripts/rooms.py, which is no package."""
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "scripts" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_circle_among_modules(rooms: ModuleType) -> None:
    """Following imports, those inside functions too, leads nowhere back; and a circle would be seen."""
    known = rooms.modules()
    graph = {name: rooms.imports(name, path, known) for name, path in known.items()}
    assert len(graph) > 50
    assert "ingest.adding" in graph["store"]  # a lazy one
    assert rooms.cycles(graph) == []
    graph["errors"] = {"store"}
    assert any({"errors", "store"} <= set(circle) for circle in rooms.cycles(graph))


def test_no_two_modules_share_a_name(rooms: ModuleType) -> None:
    """A name has one concept; packages' __init__ apart."""
    names = Counter(name.split(".")[-1] for name in rooms.modules())
    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_is_on_a_floor_and_says_what_it_is_for(rooms: ModuleType) -> None:
    """scripts/rooms.py prints each of them, with the first sentence of its docstring."""
    known = rooms.modules()
    placed = {package for _, packages in rooms.FLOORS for package in packages}
    assert {name.split(".")[0] for name in known} <= placed
    assert [name for name, path in known.items() if not rooms.purpose(path)] == []


PUBLIC = {
    "Classifier": "chosen_on competition confidence constraints created_at from_dict held_out labelled labels load "
    "match mode n n_pos name objective of_class predict probabilities require_space save score_rows scores space "
    "store_id store_version targets threshold to_dict to_pandas validation vectors warnings where",
    "Concept": "all_queries join label of opposing queries template weights words",
    "EmbedStore": "add add_labels calibrate carry classifier classifiers classify columns compact count create "
    "created_at embedder estimate evaluate exceeding id index info labels mask missing open path plan_add plan_labels "
    "query_vectors refresh remove restore rows save_classifier scores search search_many snapshot space sweep "
    "to_pandas to_table undo_labels vacuum vectors verify version versions write_matches",
    "ImageClassifierFromTextQuery": "calibration_ classes_ decision_function embed fit get_params predict "
    "predict_proba score scores set_params text_emb to_classifier",
    "Matches": "id save_pictures score table to_arrow to_pandas to_polars to_pylist uri",
    "Query": "id image kind label of parse text texts value vector",
    "Space": "backend dim from_dict from_text given key model normalised precision preprocessing require rounded "
    "same_model takes to_dict to_json",
    "curves": "Curve curves metrics_at precision_recall",
    "embed": "image text",
    "plots": "PrecisionRecallDisplay RocDisplay ScoreHistogramDisplay ThresholdDisplay",
    "repair": "",
    "sync": "",
    "verify": "",
    "view": "",
}
"""What users import, and what they call on it: a module may move, these stay."""


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_stay(name: str) -> None:
    """Every name that users import, and what they call on it, is there, under `embedstore` itself."""
    thing = getattr(embedstore, name)
    fields = getattr(thing, "__dataclass_fields__", {})
    assert [word for word in PUBLIC[name].split() if not (hasattr(thing, word) or word in fields)] == []


def test_the_list_of_public_names_is_whole() -> None:
    """`embedstore.__all__` is this list; each public method says in its docstring what it does."""
    assert set(embedstore.__all__) - {"__version__"} == set(PUBLIC)
    for name in PUBLIC:
        thing = getattr(embedstore, name)
        assert inspect.getdoc(thing)
        for word in PUBLIC[name].split():
            member = inspect.getattr_static(thing, word, None)
            if inspect.isfunction(member) and member.__module__.startswith("embedstore"):
                assert inspect.getdoc(member), f"{name}.{word}"
