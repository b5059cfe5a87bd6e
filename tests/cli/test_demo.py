"""`embedstore demo`, from nothing to a measured decision."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run
from conftest import save_picture

from embedstore.store import EmbedStore


def test_the_demo_ends_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job from nothing, with measures that are those of scikit-learn."""
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


def test_the_demo_leaves_a_store_of_other_pictures_alone(store: EmbedStore, pictures: Path, tmp_path: Path) -> None:
    """It makes its own store anew, and never one that somebody has filled with something else."""
    other = tmp_path / "other"
    save_picture(other / "a.png", 77)
    refused = run("demo", "--store", store.path, "--photos", other)
    assert refused.exit_code == 2
    assert "a store of other pictures" in refused.stderr
    assert len(EmbedStore.open(store.path)) == 12
    assert run("demo", "--store", store.path, "--photos", pictures).exit_code == 0
