"""The table of embedders, and the rule that chooses one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_clips import REPOSITORIES, write_tiny_clip
from tiny_models import TEXT_REPO, snapshot_folder, write_tiny_models

from embedstore.embedders import registry
from embedstore.embedders.nomic_local import NomicLocalEmbedder
from embedstore.embedders.protocol import Embedder
from embedstore.errors import CredentialsError, ModelNotFoundError, OfflineError
from embedstore.space import Space

NAMES = [
    *("nomic", "nomic-local", "nomic-local-fp16", "nomic-local-q"),
    *("clip", "jina-clip", "jina-clip-fp16", "jina-clip-q", "siglip2", "siglip2-fp16", "siglip2-q"),
    "objects",
]
KEY = "nk-0123456789-for-a-test"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no key, no weights and no choice made; returns the folder where weights would be."""
    for name in ("NOMIC_API_KEY", "EMBEDSTORE_MODEL", "EMBEDSTORE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    home, weights = tmp_path / "home", tmp_path / "weights"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(weights))
    return weights


def test_the_models_and_their_spaces() -> None:
    """Each model makes vectors of a space of its own, and a space leads back to its model."""
    assert list(registry.MODELS) == NAMES
    spaces = [registry.space_of(name) for name in NAMES]
    assert len(set(spaces)) == len(NAMES)
    assert [registry.name_for_space(space) for space in spaces] == NAMES
    assert registry.space_of("nomic-local-q") == Space("nomic-embed-v1.5", "fastembed", "int8", "squash224-1", 768)
    for nomic in spaces[:4]:
        assert (nomic.model, nomic.dim) == ("nomic-embed-v1.5", 768)


def test_spaces_are_known_without_heavy_libraries() -> None:
    """Asking for every space imports none of the libraries that run models, read pictures or go to the network."""
    heavy = ["PIL", "fastembed", "huggingface_hub", "nomic", "onnxruntime", "pandas", "pyarrow", "tokenizers"]
    script = (
        "import json, sys\n"
        "from embedstore.embedders import registry\n"
        "assert 'embedstore.embedders.nomic_api' not in sys.modules\n"
        "assert all(registry.space_of(name).dim for name in registry.MODELS)\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_has_the_space_that_was_promised(name: str, bare_machine: Path) -> None:
    """The embedder that a name gives keeps the protocol, and its space is the one known before it was made."""
    write_tiny_models(bare_machine, quantised=name == "nomic-local-q", half=name == "nomic-local-fp16")
    family, _, suffix = name.replace("jina-clip", "jina").partition("-")
    if (family := family.replace("jina", "jina-clip")) in REPOSITORIES:
        write_tiny_clip(bare_machine, family, {"": "", "fp16": "_fp16", "q": "_quantized"}[suffix])
    options = {"key": KEY} if name == "nomic" else {}
    embedder = registry.make_embedder(name, **options)
    assert isinstance(embedder, Embedder)
    assert embedder.space == registry.space_of(name)
    assert type(registry.embedder_for_space(embedder.space, **options)) is type(embedder)


def test_a_name_goes_before_the_environment_and_that_before_the_rule(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument decides, else EMBEDSTORE_MODEL, else the default rule; an empty variable is no choice."""
    write_tiny_models(bare_machine)
    write_tiny_models(bare_machine, quantised=True)
    monkeypatch.setenv("EMBEDSTORE_MODEL", "nomic-local-q")
    assert registry.make_embedder().space.precision == "int8"
    assert registry.make_embedder("nomic-local").space.precision == "float32"
    monkeypatch.setenv("EMBEDSTORE_MODEL", "")
    assert registry.make_embedder().space.precision == "float32"


def test_the_default_rule(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nomic` with a key, wherever it is from; else `nomic-local` with its weights; never the int8 or `objects`."""
    write_tiny_models(bare_machine, quantised=True)
    (snapshot_folder(bare_machine, TEXT_REPO) / "onnx/model.onnx").unlink(missing_ok=True)
    with pytest.raises(ModelNotFoundError):
        registry.default_model()
    assert registry.make_embedder(key=KEY).space.backend == "nomic-api"
    write_tiny_models(bare_machine)
    assert registry.default_model() == "nomic-local"
    assert isinstance(registry.make_embedder(), NomicLocalEmbedder)
    monkeypatch.setenv("NOMIC_API_KEY", KEY)
    assert registry.default_model() == "nomic"
    monkeypatch.delenv("NOMIC_API_KEY")
    login = Path.home() / ".nomic" / "credentials"
    login.parent.mkdir()
    login.write_text(json.dumps({"token": KEY, "tenant": "production", "expires": None}))
    assert registry.default_model() == "nomic"


def test_with_nothing_ready_the_three_ways_forward_are_named() -> None:
    """No key, no weights and no name is an error that says how to get each of the three models."""
    with pytest.raises(ModelNotFoundError) as caught:
        registry.make_embedder()
    for way in ("NOMIC_API_KEY", "embedstore models pull nomic-local", "model='objects'"):
        assert way in str(caught.value)


def test_a_broken_key_is_not_passed_over() -> None:
    """A login that cannot be read is an error by the default rule, and "not ready" in the list, without the key."""
    login = Path.home() / ".nomic" / "credentials"
    login.parent.mkdir()
    login.write_text('{"token": "' + KEY)
    with pytest.raises(CredentialsError) as caught:
        registry.default_model()
    assert KEY not in str(caught.value)
    assert not registry.list_models()[0].ready


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("nomic-lokal", "nomic-local"),
        ("Objects", "objects"),
        ("nomic_local", "nomic-local"),
        ("object", "objects"),
        ("nomic-local-Q", "nomic-local-q"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(wrong: str, right: str) -> None:
    """A mistyped name is an error that gives all names and the nearest."""
    for call in (registry.make_embedder, registry.space_of, registry.pull):
        with pytest.raises(ModelNotFoundError) as caught:
            call(wrong)
        assert f"Did you mean {right!r}?" in str(caught.value)
        assert all(name in str(caught.value) for name in NAMES)


def test_a_name_like_nothing_gets_no_guess() -> None:
    """A name that is near to none is not answered with a guess."""
    with pytest.raises(ModelNotFoundError) as caught:
        registry.make_embedder("zzz")
    assert "Did you mean" not in str(caught.value)


def test_the_space_of_foreign_vectors_asks_for_an_embedder() -> None:
    """A named space has no embedder here: the error gives its name and asks for `embedder=`."""
    with pytest.raises(ModelNotFoundError, match="embedder=") as caught:
        registry.embedder_for_space(Space.given("my-clip", 512))
    assert "'my-clip', 512-d" in str(caught.value)


def test_a_space_of_another_version_is_not_taken_for_ours() -> None:
    """A space that differs in one field only is another space; the error names it and those that there are."""
    for change in (
        {"preprocessing": "squash224-2"},
        {"precision": "bfloat16"},
        {"backend": "torch"},
        {"dim": 256},
    ):
        other = dataclasses.replace(registry.space_of("nomic-local"), **change)
        with pytest.raises(ModelNotFoundError) as caught:
            registry.embedder_for_space(other)
        assert str(other) in str(caught.value)
        assert str(registry.space_of("nomic-local")) in str(caught.value)


def test_the_list_on_a_bare_machine() -> None:
    """Without key and weights only `objects` is ready; what is not here has no path and no size."""
    models = {info.name: info for info in registry.list_models()}
    assert list(models) == NAMES
    assert [name for name, info in models.items() if info.ready] == ["objects"]
    assert [name for name, info in models.items() if info.cached] == ["objects"]
    assert all((info.path is None) == (info.size_bytes is None) == (not info.cached) for info in models.values())
    for info in models.values():
        space = registry.space_of(info.name)
        assert (info.model, info.backend, info.precision, info.dim) == (
            space.model,
            space.backend,
            space.precision,
            space.dim,
        )
        assert info.needs
        assert info.summary
    assert "models pull nomic-local`" in models["nomic-local"].needs


def test_the_list_finds_weights_and_key(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are listed with their folder and the bytes of their files, a key as ready and without itself."""
    write_tiny_models(bare_machine)
    monkeypatch.setenv("NOMIC_API_KEY", KEY)
    models = {info.name: info for info in registry.list_models()}
    local = models["nomic-local"]
    assert (local.ready, local.cached, local.path) == (True, True, str(bare_machine))
    assert local.size_bytes == sum(
        (snapshot_folder(bare_machine, tower.repo) / name).stat().st_size
        for tower in (NomicLocalEmbedder.pictures, NomicLocalEmbedder.texts)
        for name in tower.files
    )
    assert local.revisions == {
        tower.repo: "0" * 40 for tower in (NomicLocalEmbedder.pictures, NomicLocalEmbedder.texts)
    }
    assert not models["nomic-local-q"].cached
    assert models["nomic"].ready
    assert KEY not in repr(models)


def test_pull(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a model with weights to fetch pulls; offline that is an error, unless they are here."""
    for name in ("EMBEDSTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    assert registry.pull("objects") is None
    assert registry.pull("nomic") is None
    for name in ("nomic-local", "nomic-local-q"):
        with pytest.raises(OfflineError):
            registry.pull(name, progress=False)
    write_tiny_models(bare_machine)
    assert registry.pull("nomic-local") == bare_machine


def install(folder: Path, code: str, *points: str) -> None:
    """Write a package `theirs` as pip would lay it out, with embedders as its entry points."""
    (folder / "theirs.py").write_text(code)
    about = folder / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("\n".join(["[embedstore.embedders]", *points]))


def test_a_plug_in_that_does_not_load_harms_no_other_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is missing from the list, with a warning that says why; asked for by name, it is an error that does."""
    install(tmp_path, "1 / 0", "broken = theirs:Theirs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    assert [info.name for info in registry.list_models()] == list(NAMES)
    assert "'broken' is theirs:Theirs of an installed package, which does not load (ZeroDivisionError" in caplog.text
    with pytest.raises(ModelNotFoundError, match="mend that package"):
        registry.make_embedder("broken")


def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed package brings is listed, made and found by its space; it takes no name of ours."""
    install(tmp_path, PLUG_IN, "theirs = theirs:Theirs", "objects = theirs:Theirs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    made = registry.make_embedder("theirs", scale=3)
    assert (made.space, made.scale) == (Space("theirs", "own", "float32", "theirs-1", 4), 3)
    assert registry.name_for_space(made.space) == "theirs"
    assert registry.space_of("objects").model == "objects"
    assert registry.pull("theirs") is None
    infos = registry.list_models()
    assert [info.name for info in infos] == [*NAMES, "theirs"]
    assert (infos[-1].needs, infos[-1].ready, infos[-1].path) == ("nothing", True, None)
    with pytest.raises(ModelNotFoundError, match="Did you mean 'theirs'"):
        registry.make_embedder("thiers")


PLUG_IN = """
from embedstore.space import Space


class Theirs:
    space = Space("theirs", "own", "float32", "theirs-1", 4)
    batch_size = workers = 1

    def __init__(self, scale):
        self.scale = scale
"""
