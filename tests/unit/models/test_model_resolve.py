"""From URI to checked files: folders, packages, the hub's cache; what is refused and what is said about it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import ModelError
from feedmill.models.resolve import ModelFiles, content_revision, resolve, space_name
from feedmill.models.uri import parse

COMMIT = "1" * 40


def make_folder(folder: Path, config: dict[str, object] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my model")
    files = resolve(parse(f"file://{tmp_path}/my%20model"))
    assert (files.path, files.name) == (folder, "my model")
    assert re.fullmatch(r"my model@[0-9a-f]{12}", files.label)
    assert files.config == {"model_type": "bert"}


def test_the_revision_of_a_folder_is_its_content(tmp_path: Path) -> None:
    one, two = make_folder(tmp_path / "a"), make_folder(tmp_path / "b")
    (two / "README.md").write_text("says nothing about the answers")
    assert content_revision(one) == content_revision(two)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        before = content_revision(two)
        (two / name).parent.mkdir(exist_ok=True)
        (two / name).write_bytes(b"{}" + name.encode())
        assert content_revision(two) != before, name


def test_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_weights"
    make_folder(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('the code of a package of weights is not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = resolve(parse("pkg://some_weights"))
    assert (files.path, files.uri, files.name) == (package / "model", "pkg://some_weights", "some_weights")


def test_a_package_with_two_models_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_weights").mkdir()
    (tmp_path / "two_weights" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"expected one folder .* found 0"):
        resolve(parse("pkg://two_weights"))
    make_folder(tmp_path / "two_weights" / "a")
    make_folder(tmp_path / "two_weights" / "b")
    with pytest.raises(ModelError, match=r"expected one folder .* found 2: .*a, .*b"):
        resolve(parse("pkg://two_weights"))


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(ModelError, match=r"no Python package 'no_such_weights' is installed"):
        resolve(parse("pkg://no_such_weights"))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        resolve(parse(f"file://{tmp_path}/absent"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks config\.json, model\.safetensors"):
        resolve(parse(f"file://{tmp_path}"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sharded")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        resolve(parse(f"file://{folder}"))


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as pickles \(pytorch_model\.bin\).*save_pretrained"):
        resolve(parse(f"file://{folder}"))


def test_remote_code_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "odd", {"model_type": "odd", "auto_map": {"AutoModel": "modeling.Odd"}})
    with pytest.raises(ModelError, match="auto_map"):
        resolve(parse(f"file://{folder}"))


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_config_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    folder = make_folder(tmp_path / "broken")
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve(parse(f"file://{folder}"))


def make_cache(cache: Path) -> Path:
    """The hub's cache as huggingface_hub lays it out, with one model at one commit."""
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(COMMIT)
    return make_folder(repository / "snapshots" / COMMIT)


@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_a_cached_hub_model_needs_no_network(tmp_path: Path, revision: str, no_network: None) -> None:
    snapshot = make_cache(tmp_path / "cache")
    files = resolve(parse(f"hf://owner/name@{revision}"), str(tmp_path / "cache"))
    assert files == ModelFiles(snapshot, f"hf://owner/name@{COMMIT}", "owner/name", COMMIT)
    assert files.label == "owner/name@111111111111"


def test_neither_cached_nor_reachable(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(ModelError, match=r"not in the cache .*/cache and not to be had from the hub") as caught:
        resolve(parse(f"hf://owner/name@{COMMIT}"), str(tmp_path / "cache"))
    assert f"hf download owner/name --revision {COMMIT} --cache-dir {tmp_path}/cache" in str(caught.value)


def test_half_a_download_is_not_taken_for_a_model(tmp_path: Path, no_network: None) -> None:
    snapshot = make_cache(tmp_path / "cache")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"not to be had from the hub|lacks model\.safetensors"):
        resolve(parse(f"hf://owner/name@{COMMIT}"), str(tmp_path / "cache"))


def test_what_is_not_cached_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def download(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        if options["local_files_only"]:
            raise FileNotFoundError("not cached")
        return str(make_folder(tmp_path / "snapshots" / COMMIT))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    files = resolve(parse("hf://owner/name@main"), "/the/cache")
    assert files.uri == f"hf://owner/name@{COMMIT}"
    assert [request["local_files_only"] for request in asked] == [True, False]
    for request in asked:
        assert (request["name"], request["revision"], request["cache_dir"]) == ("owner/name", "main", "/the/cache")
        assert not {"*.bin", "*.pt", "*.py", "*"} & set(request["allow_patterns"])  # type: ignore[call-overload]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own switch: huggingface_hub raises where it would open a connection."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def files_of(uri: str, name: str, revision: str) -> ModelFiles:
    return ModelFiles(Path("/unused"), uri, name, revision)


@given(st.text(max_size=120), st.text(min_size=1, max_size=40), st.integers(1, 99_999), st.text(max_size=10))
def test_space_names_fit_a_collection(name: str, revision: str, dimensions: int, variant: str) -> None:
    space = space_name(files_of(f"hf://{name}@{revision}", name, revision), dimensions, variant)
    assert re.fullmatch(r"[a-z0-9-]{1,60}", space)


def test_spaces_of_other_models_and_revisions_differ() -> None:
    spaces = {
        space_name(files_of(f"hf://{name}@{revision}", name, revision), dimensions, variant)
        for name in ("a/model", "b/model", "a/Model")
        for revision in ("1" * 40, "2" * 40)
        for dimensions in (384, 768)
        for variant in ("", "query: ")
    }
    assert len(spaces) == 3 * 2 * 2 * 2


def test_a_moved_folder_keeps_its_space(tmp_path: Path) -> None:
    first = resolve(parse(f"file://{make_folder(tmp_path / 'a' / 'model')}"))
    shutil.copytree(first.path, tmp_path / "b" / "model")
    assert space_name(first, 384) == space_name(resolve(parse(f"file://{tmp_path}/b/model")), 384)
