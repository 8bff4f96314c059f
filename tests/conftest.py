"""A model small enough to train in a second, and sentences that it can learn."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch: tests side by side, with more threads than cores, take ten times as long
)

import pandas as pd
import psutil
import pytest
import torch
import warm
from filelock import FileLock
from hypothesis import Phase, settings

from mpo_tutorial.models.sources import model_path

# `make test`, `make test-full` and `make mutants`. Nothing is timed, and the same examples are drawn everywhere.
# A mutant is killed by any example: to shrink it would only take time.
for profile, examples, phases in (
    ("quick", 100, Phase),
    ("thorough", 10_000, Phase),
    ("mutants", 15, [Phase.generate]),
):
    settings.register_profile(
        profile, max_examples=examples, phases=phases, deadline=None, derandomize=True, database=None
    )
settings.load_profile("quick")

ROOT = Path(__file__).parents[1]
POSITIVE, NEGATIVE = ("good", "great", "fine", "lovely"), ("bad", "awful", "dull", "poor")

# What takes a minute or more, the longest first: so the workers of `make test` end at about the same time.
LONG = (
    "test_notebooks.py",
    "test_cli.py",
    "test_processes.py",
    "test_browser.py",
    "test_checkpoints_killed.py",
    "test_hub.py",
    "test_training.py",
    "test_compare.py",
    "test_squeeze.py",
    "test_book.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_xdist_auto_num_workers() -> int:
    """A worker for each core, two at least, and 3 GB of memory for each."""
    return max(2, min(os.cpu_count() or 1, psutil.virtual_memory().total // 3_000_000_000))


@pytest.fixture(scope="session")
def shared_folder(request, tmp_path_factory) -> Path:
    """A folder of this session, the same for all its workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(autouse=True)
def figures_closed():
    """After each test, so that the next can ask whether what it did left one open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module")
def chromium():
    import headless

    with headless.chromium() as browser:
        yield browser


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    return axes


@pytest.fixture(scope="session")
def made_once(shared_folder):
    """A folder of all workers, filled by the first that asks for it."""

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared_folder / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = shared_folder / f"{name}-partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                fill(partial)
                partial.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(made_once) -> str:
    """Folder of a random BERT with 2 layers of width 24, and MiniLM's tokenizer."""
    return str(made_once("tiny-model", save_tiny_model))


def save_tiny_model(folder: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=60,
        max_position_embeddings=64,
        initializer_range=0.2,  # random weights this large pass enough on for the sentences to be learnt
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path("minilm")).save_pretrained(folder)


TINY = {
    "bert": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40},
    "roberta": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40},
    "albert": {
        "hidden_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 40,
        "embedding_size": 12,
    },
    "distilbert": {"dim": 24, "n_heads": 2, "n_layers": 2, "hidden_dim": 40},
    "mobilebert": {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 40,
        "embedding_size": 12,
        "intra_bottleneck_size": 16,
        "num_feedforward_networks": 2,
    },
}


@pytest.fixture(scope="session")
def tiny_config():
    """The config of a small model of a family, by its `model_type`."""
    from transformers import AutoConfig

    def make(model_type: str, **options):
        sizes = {"vocab_size": 97, "max_position_embeddings": 32, **TINY[model_type], **options}
        return AutoConfig.for_model(model_type, **sizes)

    return make


@pytest.fixture(scope="session")
def tiny_rows() -> list[tuple[str, str]]:
    words = [(word, "positive") for word in POSITIVE] + [(word, "negative") for word in NEGATIVE]
    return [(f"number {k} is a {word} film", label) for k in range(20) for word, label in words]


@pytest.fixture(scope="session")
def tiny_films(made_once, tiny_rows) -> Path:
    """A CSV of 160 sentences, the same for all workers."""
    films = pd.DataFrame(tiny_rows, columns=["text", "label"])
    return made_once("tiny-films", lambda folder: films.to_csv(folder / "films.csv", index=False)) / "films.csv"


@pytest.fixture(scope="session")
def tiny_light_runs(made_once, tiny_model, tiny_films) -> list[Path]:
    """Folders of two finished light runs of the tiny model, which differ in the seed."""
    from mpo_tutorial.experiments.config import RunConfig
    from mpo_tutorial.experiments.finetune import prepare, run

    config = RunConfig(model=tiny_model, task=str(tiny_films), learning_rate=5e-3, train_size=96)

    def fill(folder: Path) -> None:
        for seed in (0, 1):
            run(prepare(replace(config, seed=seed)), folder / f"light-{seed}", progress=False)

    folder = made_once("tiny-runs", fill)
    return [folder / "light-0", folder / "light-1"]


@pytest.fixture(scope="session")
def tiny_light_run(tiny_light_runs) -> Path:
    return tiny_light_runs[0]


@pytest.fixture(scope="session")
def tiny_tuned(tiny_light_run):
    from mpo_tutorial.experiments import records
    from mpo_tutorial.experiments.config import RunConfig
    from mpo_tutorial.experiments.tuned import Tuned

    config = RunConfig(**records.read_record(tiny_light_run / "record.json")["config"])
    return Tuned.of(config, tiny_light_run / "task.safetensors")


RATIOS, LAYER_RATIO = (0.5, 0.2), 0.5


@pytest.fixture(scope="session")
def tiny_cuts(made_once, tiny_light_runs) -> list[dict]:
    """The points of what cutting the two costs."""
    from mpo_tutorial.experiments import cuts, study

    made = cuts.study(tiny_light_runs, ratios=RATIOS, layer_ratio=LAYER_RATIO)
    folder = made_once("tiny-cuts", lambda folder: study.run(made, folder, progress=False))
    return study.run(made, folder, resume=True, progress=False)


@pytest.fixture(scope="session")
def tiny_movement(tiny_model, tiny_films, tmp_path_factory) -> list[dict]:
    """The points of how far full fine-tuning moves the tiny model, two seeds."""
    from mpo_tutorial.experiments import movement, study
    from mpo_tutorial.experiments.config import RunConfig

    config = RunConfig(tiny_model, str(tiny_films), "full", train_size=40, epochs=1, learning_rate=1e-3)
    made = movement.study(config, 2, {"3 cores": 3, "in, out": "6.4.1 x 1.4.6, 6.4.1 x 2.3.10"})
    return study.run(made, tmp_path_factory.mktemp("movement"), progress=False)


@pytest.fixture
def tiny_task(tmp_path, tiny_rows) -> str:
    """A CSV of 160 sentences."""
    path = tmp_path / "films.csv"
    pd.DataFrame(tiny_rows, columns=["text", "label"]).to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="session")
def mpo_tutorial_command():
    """Run the command in a folder, with one thread; what it prints comes back as text.

    It is a warm process; in an environment that is given or that a test has changed, one that imports anew what reads it.
    """
    environment = _environment()

    def call(*arguments, cwd, env=None, preexec_fn=None) -> subprocess.CompletedProcess:
        words = [*map(str, arguments)]
        if env is None and _environment() == environment:
            return warm.run(words, cwd, preexec_fn)
        assert preexec_fn is None
        return warm.python("-c", warm.COMMAND, *words, env=env, cwd=cwd)

    return call


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def pytest_terminal_summary(terminalreporter):
    """What each chapter took, where its screenshots are, and which files took the time."""
    reports = terminalreporter.getreports("") + terminalreporter.getreports("passed")
    reports += terminalreporter.getreports("failed") + terminalreporter.getreports("error")
    properties = [item for report in reports if report.when == "call" for item in report.user_properties]
    chapters = [value for name, value in properties if name == "chapter"]
    if chapters:
        terminalreporter.section("chapters")
        terminalreporter.line(f"{'chapter':32}{'seconds':>8}{'of CPU':>8}{'peak MB':>8}{'threads':>8}  constants")
    for chapter in chapters:
        terminalreporter.line(
            f"{chapter['chapter']:32}{chapter['seconds']:8.1f}{chapter['cpu_seconds']:8.1f}"
            f"{chapter['peak_memory_bytes'] / 1e6:8.0f}{chapter['threads']:8}  {chapter['constants']}"
        )
    for folder in {value for name, value in properties if name == "screenshots"}:
        terminalreporter.line(f"screenshots: {folder}")
    seconds = Counter()
    for report in reports:
        seconds[report.nodeid.partition("::")[0]] += getattr(
            report, "duration", 0
        )  # a file that fails to load has none
    if len(seconds) > 1:
        minutes = (time.time() - psutil.Process().create_time()) / 60
        terminalreporter.section(f"{minutes:.1f} minutes, and the files that took the most")
        for file, spent in seconds.most_common(10):
            terminalreporter.line(f"{spent:8.1f} s  {file}")
