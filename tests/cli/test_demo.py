"""`embedstore demo`, from nothing to a measured decision."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

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


def test_a_store_of_the_users_is_no_demonstration(
    store: EmbedStore, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not thrown away for one; that of an earlier demonstration is."""
    monkeypatch.chdir(store.path.parent)
    words = ("demo", "--photos", pictures, "--query", "zebra", "--store")
    refused = run(*words, store.path)
    assert refused.exit_code == 1
    assert "holds what embedstore did not write" in refused.stderr
    assert len(EmbedStore.open(store.path)) == 12
    for _ in range(2):
        assert run(*words, "other.store").exit_code == 0
