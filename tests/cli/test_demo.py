"""`embedstore demo`, from nothing to a measured decision."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run
from conftest import save_picture

from embedstore.store import EmbedStore


def test_the_demo_ends_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job from nothing, with measures that are those of scikit-learn; its last line names the page."""
    from sklearn.metrics import average_precision_score

    monkeypatch.chdir(tmp_path)
    result = run("demo")
    assert result.exit_code == 0
    store = EmbedStore.open(tmp_path / "demo.store")
    labels = [value == "bird" for value in store.to_table(["category"]).column("category").to_pylist()]
    expected = average_precision_score(labels, store.scores("bird")[0])
    assert expected >= 0.95
    assert f"average precision {expected:.3f}" in result.stdout
    assert (tmp_path / "demo-bird.png").stat().st_size > 100_000
    assert result.stdout.splitlines()[-1].strip() == "embedstore serve demo.store --open"


def test_the_demo_leaves_other_stores_alone(
    store: EmbedStore, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with a store of its own pictures, whose classifiers stay; a store of others is refused, and whole."""
    monkeypatch.chdir(tmp_path)
    store.save_classifier(store.calibrate("cat", "label=cat", name="cat"))
    assert run("demo", "-q", "--store", store.path, "--photos", pictures, "--query", "a/b").exit_code == 0
    other = tmp_path / "others"
    save_picture(other / "a.png", 99)
    refused = run("demo", "--store", store.path, "--photos", other)
    assert refused.exit_code == 1
    assert "is a store of other pictures; name another path with --store" in refused.stderr
    kept = EmbedStore.open(store.path)
    assert (len(kept), kept.classifiers()) == (len(store), ["cat"])
