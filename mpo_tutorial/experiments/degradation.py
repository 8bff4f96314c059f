"""What cutting costs: tuned models cut without retraining in each way, to each ratio, in each part, measured and compared."""

import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from mpo_tutorial.experiments import records, statistics
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import Prepared, evaluate, prepare, run
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.tasks import Row, tokenise
from mpo_tutorial.experiments.tradeoff import PARTS, Tuned, config_of_run
from mpo_tutorial.models.activations import Moments, hidden_states, input_moments, state_errors
from mpo_tutorial.models.convert import decompose, layers_of_part
from mpo_tutorial.models.families import KINDS, matches, matrices, place
from mpo_tutorial.models.layers import MPOLayer
from mpo_tutorial.models.truncation import bonds_of_ratio, truncate

if TYPE_CHECKING:
    pass

# Each way's options of `truncate`; with "moments" those of the run's model are given besides. The others cut each
# matrix to the ratio; "allotted" has the same number of parameters for all of them, and `budget.allocate` shares it out.
WAYS = {"plain": {}, "bias": {"moments": True, "sweeps": 0}, "fitted": {"moments": True}}
ALLOTTED = "allotted"
RATIOS = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
LAYER_RATIO = 0.4  # where the plain way has fallen and the fitted one has not, on the embedded model
CALIBRATION = 256  # training sentences that the moments are of
MOST_SENTENCES = 1000
STATES_OF = 128  # sentences whose hidden states are compared


def degradation(
    runs: Sequence[Path],
    out: Path,
    *,
    ratios: Sequence[float] = RATIOS,
    layer_ratio: float = LAYER_RATIO,
    n_sentences: int = MOST_SENTENCES,
    resume: bool = False,
    progress: bool = True,
) -> dict:
    """Cut the models of light runs in all ways, and measure them on training sentences that the runs did not use.

    Parameters
    ----------
    runs : sequence of Path
        Folders of finished light runs that differ in nothing but the seed.
    out : Path
        A folder of its own, where each point is kept as it is made.
    ratios : sequence of float
        What every matrix of a part is cut to.
    layer_ratio : float
        What the matrices of a single encoder layer, or of a single kind, are cut to, the others left whole.
    n_sentences : int
        At most so many of the unused sentences.
    resume : bool
        Read the points that an interrupted call with the same options has left in `out`, instead of making them anew.

    Returns
    -------
    dict : the record; its points hold shares and counts of the part that was cut

    Raises
    ------
    FileNotFoundError, ValueError
        As in `Tuned.of_run` and `truncate`; or if there is no run, runs differ in more than the seed, none of their task's
        sentences is left unused, another process works in `out`, or what is to be resumed was made with other options.
    """
    configs = _configs(runs)
    points = out / "points"
    options = {"configs": configs, "ratios": [*ratios], "layer_ratio": layer_ratio, "n_sentences": n_sentences}
    with locked(out):
        if not resume:
            shutil.rmtree(points, ignore_errors=True)
        points.mkdir(exist_ok=True)
        kept = out / "options.json"
        if any(points.iterdir()) and records.read_record(kept) != options:
            raise ValueError(
                f"points are resumed with the options they were made with, {kept} has others; take a new --out"
            )
        records.write_record(options, kept)
        made = []
        for run in runs:
            opened = _Run(run, n_sentences)
            made += opened.points(points, ratios, layer_ratio, progress)
            labels = list(opened.rows["labels"])
    return {
        "kind": "degradation",
        **records.provenance(),
        **options,
        "calibration": CALIBRATION,
        "sentences": len(labels),
        "chance": max(map(labels.count, labels)) / len(labels),
        "points": made,
        "summary": summary(made),
    }


def light_runs(config: RunConfig, seeds: int, out: Path, *, resume: bool = False) -> list[Path]:
    """Folders of light runs of a config with the seeds 0, 1, ..., for `degradation`; finished ones are read if `resume`.

    Raises
    ------
    InterruptedError, OSError, ValueError
        As in `run`; and before anything is trained, what `degradation` would refuse in the end.
    """
    untrained = prepare(config)
    unused(untrained)
    list(matrices(untrained.model, ["embedding"]))
    for row in untrained.ledger.rows:
        bonds_of_ratio(row.name, untrained.model.get_submodule(row.name).mpo.shape, min(RATIOS))
    folders = [out / f"seed-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        run(prepare(replace(config, seed=seed)), folder, resume=resume, splits=("validation",))
    return folders


def table(record: dict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of a record's summary, as text."""

    def text(found: dict | None, sign: str = "") -> str:
        if found is None:
            return ""
        low, high = (f"{100 * end:{sign}.1f}" for end in found["interval"])
        return f"{100 * found['mean']:{sign}.1f} [{low}, {high}]"

    head = ("part", "ratio", "way", "accuracy [95 %]", "minus uncut", "minus plain")
    rows = [
        (
            row["part"],
            "" if row["ratio"] is None else f"{row['ratio']:g}",
            row["way"],
            text(row["accuracy"]),
            text(row.get("minus_uncut"), "+"),
            text(row.get("minus_plain"), "+"),
        )
        for row in record["summary"]
    ]
    return head, rows


def summary(points: Sequence[dict]) -> list[dict]:
    """Means over seeds of each setting, and differences from the uncut model and from the plain way, paired.

    Pairs are of a seed and a sentence, intervals over both, of `results.bootstrap_interval`.
    """
    settings = {(p["way"], p["ratio"], p["part"]): None for p in points}

    def right(way: str, ratio: float | None, part: str) -> np.ndarray:
        chosen = (p for p in points if (p["way"], p["ratio"], p["part"]) == (way, ratio, part))
        return np.stack(
            [statistics.correct_sentences(p["accuracy"]) for p in sorted(chosen, key=lambda p: p["seed"])]
        ).astype(float)

    def described(values: np.ndarray) -> dict:
        return {"mean": float(values.mean()), "interval": list(statistics.bootstrap_interval(values))}

    rows = []
    for way, ratio, part in settings:
        found = right(way, ratio, part)
        row = {"way": way, "ratio": ratio, "part": part, "accuracy": described(found)}
        if way != "uncut":
            row["minus_uncut"] = described(found - right("uncut", None, "none"))
        if way not in ("uncut", "plain"):
            row["minus_plain"] = described(found - right("plain", ratio, part))
        rows.append(row)
    return rows


def _configs(runs: Sequence[Path]) -> list[dict]:
    """The configs of the runs, checked to differ in the seed alone."""
    if not runs:
        raise ValueError("the folder of a finished light run is needed at least, got none")
    configs = [config_of_run(run).as_dict() for run in runs]
    seeds = [config["seed"] for config in configs]
    others = [{name: value for name, value in config.items() if name != "seed"} for config in configs]
    differing = sorted({name for other in others for name in other if other[name] != others[0][name]})
    if differing or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"runs differ in the seed and in nothing else, got seeds {seeds}, differing {differing or 'in nothing'}"
        )
    return configs


def unused(prepared: Prepared) -> list[Row]:
    """Training sentences of a task that a run is not trained on. It is a ValueError if there is none."""
    task = prepared.task
    used = set(task.train(prepared.config.train_size))
    unused = [row for row in task.splits["train"] if row not in used]
    if not unused:
        raise ValueError(
            f"sentences are needed that a run is not trained on, all {len(used)} of {task.name} are used; give a smaller "
            "--train-size"
        )
    return unused


class _Run:
    """One tuned model, and the points made of it."""

    def __init__(self, folder: Path, n_sentences: int):
        self.prepared = Tuned.of_run(folder).prepared
        self.model = self.prepared.model
        config = self.prepared.config
        self.trained = self.prepared.task.train(config.train_size)
        self.rows = tokenise(unused(self.prepared)[:n_sentences], self.prepared.tokenizer, config.max_length)
        self.layers = {name: layer for name, layer in self.model.named_modules() if isinstance(layer, MPOLayer)}

    def points(self, folder: Path, ratios: Sequence[float], layer_ratio: float, progress: bool) -> list[dict]:
        """All points, read from the folder where they are there."""
        seed = self.prepared.config.seed
        encoder_layers = [f"layer {k}" for k in sorted({place(name).layer for name in self.layers} - {None})]
        settings = [("uncut", None, ["none"])]
        for ratio in sorted({*ratios, layer_ratio}, reverse=True):
            parts = [*PARTS] * (ratio in ratios) + [*encoder_layers, *KINDS] * (ratio == layer_ratio)
            settings += [(way, ratio, parts) for way in WAYS]
        settings += [(ALLOTTED, ratio, [part]) for ratio in ratios for part in PARTS]
        settings += [("plain", ratio, ["embedding"]) for ratio in ratios]
        found, total = [], sum(len(parts) for *_, parts in settings)
        with tqdm(desc=f"cutting seed {seed}", unit="point", total=total, disable=not progress) as bar:
            for way, ratio, parts in settings:
                cut = None
                for part in parts:
                    path = folder / f"{seed}-{way}-{ratio}-{part.replace(' ', '-')}.json"
                    if not path.exists():
                        cut = cut or self._cut(way, ratio, parts[0])
                        point = {"seed": seed, "way": way, "ratio": ratio, "part": part, **self._measured(cut, part)}
                        records.write_record(point, path)
                    found.append(records.read_record(path))
                    bar.update()
        return found

    def _cut(self, way: str, ratio: float | None, part: str) -> dict[str, MPOLayer]:
        """Layers cut in one way to one ratio: the part's if it matters what is cut with what, else those of the encoder."""
        if way == "uncut":
            return self.layers
        if part == "embedding":
            model = copy.deepcopy(self._with_embedding)
            truncate(model, ratio=ratio, part=part)
            return {name: layer for name, layer in model.named_modules() if layer in layers_of_part(model, part)}
        model = copy.deepcopy(self.model)
        if way == ALLOTTED:
            layers = layers_of_part(model, part)
            shapes = [layer.mpo.shape for layer in layers]
            n_params = sum(shape.n_params(bonds_of_ratio(part, shape, ratio)) for shape in shapes)
            truncate(model, n_params=n_params, part=part)
            return {name: layer for name, layer in model.named_modules() if layer in layers}
        options = {**WAYS[way], **({"moments": self._moments} if "moments" in WAYS[way] else {})}
        truncate(model, ratio=ratio, **options)
        return {name: model.get_submodule(name) for name in self.layers}

    @cached_property
    def _moments(self) -> dict[str, Moments]:
        sentences = [text for text, _ in self.trained[:CALIBRATION]]
        return input_moments(self.model, self.prepared.tokenizer, sentences, max_length=self.prepared.config.max_length)

    @cached_property
    def _with_embedding(self):
        model = copy.deepcopy(self.model)
        decompose(model, which=["embedding"])
        return model

    def _measured(self, cut: dict[str, MPOLayer], part: str) -> dict:
        """Counts, accuracy and hidden states of the model with the cut layers of a part in it."""
        chosen = [name for name in cut if part == f"layer {place(name).layer}" or matches(name, [part])]
        model = copy.deepcopy(self.model)
        for name in chosen:
            model.set_submodule(name, cut[name])
        dense = sum(mpo.shape.in_size * mpo.shape.out_size for mpo in (cut[name].mpo for name in chosen))
        return {
            "parameters": sum(cut[name].mpo.n_params for name in chosen),
            "dense": dense,
            "accuracy": statistics.score(evaluate(model, self.rows, self.prepared.tokenizer)),
            "states": state_errors(self._states(model), self._whole_states),
        }

    @cached_property
    def _whole_states(self) -> list[Tensor]:
        return self._states(self.model)

    def _states(self, model) -> list[Tensor]:
        rows = self.rows.select(range(min(STATES_OF, len(self.rows))))
        return hidden_states(model, rows, self.prepared.tokenizer)
