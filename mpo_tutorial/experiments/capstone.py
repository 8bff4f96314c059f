"""Does it hold for the real thing? Light, full and LoRA on tasks of GLUE, with as many seeds as a stated time allows.

Without a GPU, or without the hub and a cache, the same goes small on the embedded model. First a few steps of each method are
taken on the machine at hand: they say which micro-batch fits into memory, and how long the rest will take. All that is kept is
kept as it is made, so the same call goes on after a disconnect.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from mpo_tutorial.experiments import compare, forms
from mpo_tutorial.experiments import study as studies
from mpo_tutorial.experiments.compare import Comparison, Variant
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.glue import GLUE, PRESET_LENGTH
from mpo_tutorial.experiments.memory import Need, need
from mpo_tutorial.experiments.rivals import FULL, LIGHT, LORA, around
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.experiments.tasks import load_task, require_classes
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.sources import model_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CONTENDERS = {LIGHT: "light", FULL: "full", LORA: "lora"}
TUNED_FOR = 384  # components of a token, in the model that the rates of `METHODS` are the best of
TUNING_SEED = 100  # none of a test
SHORTER = 0.5  # of a run's epochs, for tuning
FEWEST_SEEDS, MOST_SEEDS = 1, 10
STEPS_CLOCKED = {"cuda": (4, 8), "cpu": (1, 3)}  # first some that are not timed
JUDGED = 96  # sentences
CLOCK = "clock"  # the folder of what a few steps took
STATE = "unfinished"  # the folder of a run under way
LOCAL = Path("runs") / STATE  # of this machine, whatever is kept on a Drive
DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts a Google Drive
SMALL = {"model": "minilm", "task": "rotten_tomatoes", "epochs": 3}
SENTENCES = 320
LIGHTER = "distilbert-base-uncased"
FREE = 0.95  # of the memory that is free, what a run may take


@dataclass(frozen=True)
class Capstone:
    """What is fine-tuned, and why that.

    Parameters
    ----------
    base : RunConfig
        What the contenders have in common; its task is the first.
    tasks : tuple of str
        As `load_task` takes them.
    is_small : bool
        Whether it stands in for what cannot be done here. Then nothing is tuned: the rates are known.
    why : str
        A sentence on what was found.
    judged : int, optional
        How many sentences of each split are judged; None: all.
    """

    base: RunConfig
    tasks: tuple[str, ...]
    is_small: bool
    why: str
    judged: int | None = None

    def configs(self) -> dict[str, RunConfig]:
        """Of each contender on each task, by name. LoRA has the rank with which it trains about as many numbers as light."""
        return {
            self.name(title, task): replace(
                self.base,
                task=task,
                method=method,
                size=_equal_rank(self.base.model) if method == "lora" else None,
                learning_rate=None,
            )
            for task in self.tasks
            for title, method in CONTENDERS.items()
        }

    @staticmethod
    def name(title: str, task: str) -> str:
        return f"{title}, {task.removeprefix('glue/')}"


def at_hand(
    model: str = "bert-base-uncased",
    tasks: Sequence[str] = ("rte",),
    *,
    epochs: int | None = None,
    max_length: int = PRESET_LENGTH,
    device: str = "auto",
    sentences: int = SENTENCES,
) -> Capstone:
    """What can be done here: a model on tasks of GLUE, or something small.

    Parameters
    ----------
    model : str
        As `load` takes it.
    tasks : sequence of str
        Of `GLUE`, with classes.
    epochs : int, optional
        None: as many as make 200 steps, at least 2.
    max_length : int
        Tokens after which a sentence, or a pair, is cut.
    device : {"auto", "cuda", "cpu"}
        With "auto" a machine without a GPU gets the small one; "cpu" asks for the real one in spite of that.
    sentences : int
        What the small one trains on, and is judged on.

    Raises
    ------
    ValueError
        If a task is not of GLUE or has no classes, none or the same twice is given, or the hub has no such model.
    """
    if not tasks or isinstance(tasks, str) or len(set(tasks)) < len(tasks) or set(tasks) - GLUE.keys():
        raise ValueError(f"tasks are a tuple of one or more of {', '.join(GLUE)}, each once, got {tasks!r}")
    for task in tasks:
        require_classes(f"glue/{task}")
    base = RunConfig(
        model=model,
        task=f"glue/{tasks[0]}",
        epochs=epochs,
        max_length=max_length,
        micro_batch_size=RunConfig.batch_size,
        precision=_precision(device),
        device=device,
    )
    has_gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if has_gpu and device != "cpu" else "the CPU"
    if not has_gpu and device == "auto":
        return _small(f"there is no GPU that torch can see, and a CPU would take hours for {model}", sentences)
    try:
        model_path(model)
        for task in tasks:
            load_task(f"glue/{task}")
    except ConnectionError as error:
        return _small(str(error).partition(";")[0].partition(": connect")[0], sentences)
    return Capstone(
        base,
        tuple(f"glue/{task}" for task in tasks),
        False,
        f"{model} on {', '.join(tasks)}, on {where}, {base.precision}.",
    )


def _precision(device: str) -> str:
    """bfloat16 where a GPU computes in it. Older ones, such as Colab's T4, only imitate it, and are slower so."""
    fast = device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def _small(reason: str, sentences: int) -> Capstone:
    base = RunConfig(**SMALL, train_size=sentences)
    return Capstone(
        base,
        (base.task,),
        True,
        f"A small one instead, {base.model} on {base.train_size} sentences of {base.task}: {reason}. Its figures show that it "
        "runs, and no more.",
        sentences,
    )


def folder_for(name: str, drive: Path = DRIVE) -> tuple[Path, str]:
    """Where to keep what is made: on Google Drive, if Colab has mounted it; and a sentence about it.

    Parameters
    ----------
    name : str
        Of the folder.
    drive : Path
        Where the Drive is mounted, if it is.
    """
    if drive.is_dir():
        return drive / name, f"What is made is kept on your Drive, in {name}: it survives this machine."
    here = Path("runs") / name
    if drive.parents[1].is_dir():
        return here, (
            f"What is made is kept in {here}, and lost with this machine. To keep it, mount your Drive first: "
            f"from google.colab import drive; drive.mount('{drive.parent}')."
        )
    return here, f"What is made is kept in {here}."


@cache
def _outline(model: str) -> "tuple[PreTrainedConfig, PreTrainedModel]":
    from mpo_tutorial.models.convert import outline
    from mpo_tutorial.models.loading import read_config

    config = read_config(model_path(model))
    return config, outline(config)


@cache
def _equal_rank(model: str) -> int:
    from mpo_tutorial.experiments.steps import equal_rank

    return equal_rank(_outline(model)[1])


@cache
def _counts(model: str, method: str, size: float | None = None) -> tuple[int, int, int]:
    """Numbers of the model, of what is trained of it, and of matrices that are multiplied out."""
    import copy

    from mpo_tutorial.models.convert import count
    from mpo_tutorial.models.layers import mpo_layers

    changed, way = copy.deepcopy(_outline(model)[1]), RunConfig(method=method, size=size).way
    METHODS[method].apply(changed, way)
    rebuilt = sum(layer.mpo.shape.in_size * layer.mpo.shape.out_size for layer in mpo_layers(changed))
    return count(changed), METHODS[method].n_trained(changed, way), rebuilt


def needed(config: RunConfig, micro_batch_size: int) -> Need:
    """An estimate of what a step holds in memory, from the model's config alone."""
    total, trained, rebuilt = _counts(config.model, config.method, config.size)
    found, _ = _outline(config.model)
    return need(
        found,
        micro_batch_size,
        config.max_length,
        total=total,
        trained=trained,
        rebuilt=rebuilt,
        precision=config.precision,
        fused=config.device != "cpu" and torch.cuda.is_available(),
    )


def clock_study(capstone: Capstone) -> Study:
    """A few steps of each contender on each task, before the rest: what they take, and what fits."""

    def settings(_points: list[Point]) -> list[Setting]:
        return [{"variant": name, "config": config.as_dict()} for name, config in capstone.configs().items()]

    counts = ("micro_batch_size", "peak_memory_bytes", "estimated_bytes", "trained", "total", "steps", "sentences")
    seconds = ("seconds_to_load", "seconds_a_step", "seconds_a_sentence")
    form = {**dict.fromkeys(counts, forms.COUNT), **dict.fromkeys(seconds, forms.NUMBER)}
    measure = partial(_measure_clock, judged=capstone.judged)
    return Study("capstone-clock", 1, measure, {"clock": settings}, True, _describe_clock, lambda _: form)


def _measure_clock(setting: Setting, judged: int | None) -> dict:
    from mpo_tutorial.experiments import records
    from mpo_tutorial.experiments.races import alone

    config = RunConfig(**setting["config"])
    config = replace(config, micro_batch_size=fitting(config, free_memory(config)))
    if config.device != "cpu" and torch.cuda.is_available():
        # A process of its own leaves no memory behind, and tells of its own peak.
        found, peak = alone(_clocked, config, judged)
    else:
        records.reset_peak_memory()
        found, peak = _clocked(config, judged), records.peak_memory_bytes()
    estimated = needed(config, config.micro_batch_size).total
    return {
        **found,
        "micro_batch_size": config.micro_batch_size,
        "peak_memory_bytes": peak,
        "estimated_bytes": estimated,
    }


def free_memory(config: RunConfig) -> int:
    """Bytes that are free where a config will run."""
    if config.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def fitting(config: RunConfig, free: int) -> int:
    """The largest micro-batch, the config's own or a power of two times smaller, with which a step should fit.

    Parameters
    ----------
    free : int
        Bytes.

    Raises
    ------
    MemoryError
        If not even a single sentence does; it says what would.
    """
    micro = config.micro_batch_size
    while True:
        if needed(config, micro).total <= FREE * free:
            return micro
        if micro % 2:
            break
        micro //= 2
    least = {
        title: needed(
            replace(config, method=method, size=_equal_rank(config.model) if method == "lora" else None), 1
        ).total
        for title, method in CONTENDERS.items()
    }
    fits = [f"{title} ({size / 1e9:.1f} GB)" for title, size in least.items() if size <= FREE * free]
    would = f"{' and '.join(fits)} would fit" if fits else f"no method fits: take a smaller model, such as {LIGHTER}"
    raise MemoryError(
        f"{config.model}, {config.method}, one sentence of {config.max_length} tokens at a time, takes about "
        f"{needed(config, 1).total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; {would}"
    )


def _clocked(config: RunConfig, judged: int | None) -> dict:
    from mpo_tutorial.experiments.finetune import prepare
    from mpo_tutorial.experiments.training import train
    from mpo_tutorial.models.convert import count

    started = time.perf_counter()
    prepared = prepare(config)
    loaded = time.perf_counter() - started
    config, splits = prepared.config, prepared.task.splits
    dataset, sentences = prepared.dataset("train"), sum(len(splits[split][:judged]) for split in ("validation", "test"))
    for steps in STEPS_CLOCKED[next(prepared.model.parameters()).device.type]:
        some = dataset.select(range(min(len(dataset), steps * config.batch_size)))
        with TemporaryDirectory() as folder:
            trained = train(prepared.model, prepared.tokenizer, some, replace(config, epochs=1), Path(folder))
    seconds_a_step = trained.seconds / math.ceil(len(some) / config.batch_size)
    some = splits["validation"][:JUDGED]
    prepared.task = replace(prepared.task, splits={"validation": some})
    started = time.perf_counter()
    prepared.predicted("validation")
    judged_in = time.perf_counter() - started
    return {
        "seconds_to_load": loaded,
        "seconds_a_step": seconds_a_step,
        "seconds_a_sentence": judged_in / len(some),
        "trained": METHODS[config.method].n_trained(prepared.model, config.way),
        "total": count(prepared.model),
        "steps": config.epochs * math.ceil(len(dataset) / config.batch_size),
        "sentences": sentences,
    }


def _describe_clock(point: Point) -> str:
    found = point["result"]
    return (
        f"{point['setting']['variant']}: {found['seconds_a_step']:.2f} s a step, micro-batches of {found['micro_batch_size']}, "
        f"{found['peak_memory_bytes'] / 1e9:.2f} GB at the peak ({found['estimated_bytes'] / 1e9:.2f} estimated)"
    )


@dataclass(frozen=True)
class Timetable:
    """What a time allows.

    Parameters
    ----------
    seeds : int
        Of each contender.
    tuning, seed : float
        Seconds that the tuning takes at most, and each further seed.
    minutes : float
        As they were asked for.
    """

    seeds: int
    tuning: float
    seed: float
    minutes: float

    def __str__(self) -> str:
        takes = (self.tuning + self.seeds * self.seed) / 60
        tuning = f"{self.tuning / 60:.1f} minutes of tuning at most, and " if self.tuning else ""
        said = f"{tuning}{self.seeds} seed{'s' * (self.seeds > 1)} of {self.seed / 60:.1f} minutes: {takes:.0f} minutes"
        if takes > self.minutes:
            return f"{said}. The {self.minutes:g} minutes asked for are too few for one seed of each; one is run all the same."
        return f"{said} of the {self.minutes:g} asked for." + (" One seed has no interval." if self.seeds == 1 else "")


def timetable(capstone: Capstone, clocked: Sequence[Point], minutes: float) -> Timetable:
    """How many seeds of each contender a number of minutes holds, after the tuning; at least one.

    Raises
    ------
    ValueError
        If minutes is no number above 0.
    """
    require_minutes(minutes)
    found = [point["result"] for point in clocked]
    seed = sum(_seconds(each, each["steps"]) for each in found)
    rates = 0 if capstone.is_small else len(around(1.0)) + 1  # and one beyond the end of a grid
    tuning = rates * sum(_seconds(each, math.ceil(SHORTER * each["steps"])) for each in found)
    seeds = math.floor((60 * minutes - tuning) / seed)
    return Timetable(min(MOST_SEEDS, max(FEWEST_SEEDS, seeds)), tuning, seed, minutes)


def require_minutes(minutes: float) -> None:
    """Refuse, by a ValueError, what is no number above 0."""
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < math.inf:
        raise ValueError(f"minutes is a number above 0, got {minutes!r}")


def _seconds(found: dict, steps: int) -> float:
    return found["seconds_to_load"] + steps * found["seconds_a_step"] + found["sentences"] * found["seconds_a_sentence"]


def comparison(capstone: Capstone, clocked: Sequence[Point], minutes: float) -> Comparison:
    """What is compared, and with how many seeds.

    Rates are those that were the best of the embedded model, times its width over this model's, since that is how the best rate
    of Adam goes with the width (Yang et al. 2021); half and twice that are tried as well.
    """
    seeds = timetable(capstone, clocked, minutes).seeds
    micro = {point["setting"]["variant"]: point["result"]["micro_batch_size"] for point in clocked}
    width = TUNED_FOR / _outline(capstone.base.model)[0].hidden_size
    variants = {}
    for name, config in capstone.configs().items():
        rate = float(f"{METHODS[config.method].learning_rate * width:.3g}")
        options = {"task": config.task, "method": config.method, "size": config.size, "micro_batch_size": micro[name]}
        rates = (rate,) if capstone.is_small else around(rate)
        variants[name] = Variant(rates, options, seeds, Capstone.name(FULL, config.task))
    first = capstone.tasks[0]
    return Comparison(
        "capstone",
        1,
        variants,
        (Capstone.name(LIGHT, first), Capstone.name(FULL, first)),
        tuning_seeds=() if capstone.is_small else (TUNING_SEED,),
        tuned_for=SHORTER,
        moves=0 if capstone.is_small else 1,
    )


def study(capstone: Capstone, clocked: Sequence[Point], minutes: float, state: Path) -> Study:
    """The study that makes the comparison.

    Parameters
    ----------
    state : Path
        Where a run under way keeps what it needs to go on.
    """
    made = compare.study(comparison(capstone, clocked, minutes), capstone.base)
    stages = {name: settings for name, settings in made.stages.items() if name != "floors"}
    return replace(made, measure=partial(_measure, state=state, judged=capstone.judged), stages=stages)


def _measure(setting: Setting, state: Path, judged: int | None) -> dict:
    """As `compare.measure`; what it held is let go of, so that the next one finds a GPU's memory free."""
    try:
        return compare.measure(setting, state=state, judged=judged)
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def clock(
    capstone: Capstone, out: Path, *, resume: bool = True, show: Callable[[str], None] = lambda _: None
) -> list[Point]:
    """The points of `clock_study`; those that are in the folder `out` are read. Parameters and errors as in `study.run`."""
    return studies.run(clock_study(capstone), out / CLOCK, resume=resume, progress=False, show=show)


def run(
    capstone: Capstone,
    minutes: float,
    out: Path,
    *,
    state: Path | None = None,
    resume: bool = True,
    show: Callable[[str], None] = lambda _: None,
) -> tuple[Comparison, list[Point]]:
    """Clock, tune and compare; the same call goes on where an earlier one was cut off.

    Parameters
    ----------
    capstone : Capstone
    minutes : float
        As in `timetable`. When it goes on, as many as before, or more.
    out : Path
        A folder for the records, a line for each run that is done.
    state : Path, optional
        Where a run under way keeps what it needs to go on; for full fine-tuning of BERT-base some gigabytes. None: in `out`.
    resume : bool
        Otherwise the records that are there are moved aside.
    show : callable
        Gets a line about each point.

    Raises
    ------
    MemoryError
        If a contender does not fit into the memory that is free, or into the GPU's.
    ValueError, OSError, InterruptedError
        As in `study.run`.
    """
    require_minutes(minutes)
    clocked = clock(capstone, out, resume=resume, show=show)
    show(str(timetable(capstone, clocked, minutes)))
    made = study(capstone, clocked, minutes, out / STATE if state is None else state)
    return comparison(capstone, clocked, minutes), studies.run(made, out, resume=resume, progress=False, show=show)
