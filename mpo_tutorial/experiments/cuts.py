"""What cutting costs: tuned models cut without retraining, in each way, to each size, in each part; a study.

Its first stage looks at the uncut models, `bonds` caps the bonds of one of them, and `ratios` cuts them all to shares of the
dense parameters: the plain way, with corrected biases, fitted to the inputs, with the bonds allotted, or to two factors instead
of chains. Each is measured as `threshold.judge` does it: besides the accuracy, an AUC, and the accuracy with the head's bias
fitted again, for each half of the sentences on the other half.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from mpo_tutorial.experiments import forms, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.experiments.study import RECORD, Point, Setting, Study
from mpo_tutorial.experiments.tasks import require_classes, tokenise
from mpo_tutorial.experiments.threshold import REFIT, judge
from mpo_tutorial.experiments.tuned import Tuned, config_of_run, unused_sentences
from mpo_tutorial.maths.entropy import entropy, schmidt_values
from mpo_tutorial.models.activations import hidden_states, state_errors
from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.families import KINDS, dense_matrices, mpo_matrices, place
from mpo_tutorial.models.layers import MPOLayer, mpo_layers
from mpo_tutorial.models.truncation import Cut, bonds_of_ratio, factorise, truncate

VERSION = 3
PARTS = ("all", "attention", "feed-forward")
SHARES = tuple(k / 12 for k in range(12, 0, -1))  # of the largest bond; for the embedded model 192, 176 .. 16
# Each way's options of `truncate`; what has "moments" is shown the model's inputs, layer after layer. The allotted ways have as
# many parameters as the others, shared out among the matrices; two factors have no more, in place of each chain.
WAYS = {
    "plain": {},
    "bias": {"moments": True, "sweeps": 0},
    "fitted": {"moments": True},
    "allotted": {},
    "fitted, allotted": {"moments": True, "allot_by": "outputs"},
}
ALLOTTED = ("allotted", "fitted, allotted")
TWO_FACTORS = "two factors"
WAYS_OF_PARTS = ("plain", "bias", "fitted", TWO_FACTORS)  # allotted is the whole alone
WAYS_ALONE = ("plain", "fitted")  # of cutting a single layer, or a single kind of matrices
RATIOS = (0.8, 0.6, 0.4, 0.2)
LAYER_RATIO = 0.4  # where the plain way has fallen and the fitted one has not, on the embedded model
MOST_SENTENCES = 1000
STATES_OF = 128  # sentences whose hidden states are compared


def study(
    runs: Sequence[Path],
    *,
    ratios: Sequence[float] = RATIOS,
    layer_ratio: float = LAYER_RATIO,
    n_sentences: int = MOST_SENTENCES,
) -> Study:
    """Of some light runs; the bonds of the first are capped and it is measured on the validation sentences.

    The ratios are measured on training sentences that the runs did not use.

    Parameters
    ----------
    runs : sequence of Path
        Folders of finished light runs that differ in nothing but the seed.
    ratios : sequence of float
        What every matrix of a part is cut to.
    layer_ratio : float
        What the matrices of a single encoder layer, or of a single kind, are cut to, the others left whole.
    n_sentences : int
        At most so many of the unused sentences.

    Raises
    ------
    FileNotFoundError, ValueError
        As in `config_of_run`; or if there is no run, runs differ in more than the seed, or the task has no classes.
    """
    configs = _configs(runs)
    require_classes(configs[0]["task"])
    seeds = [config["seed"] for config in configs]

    def uncut(_points: list[Point]) -> list[Setting]:
        more = {"sentences": n_sentences, "refitted": REFIT}
        return [{"seed": config["seed"], "config": config, **more} for config in configs]

    def bonds(points: list[Point]) -> list[Setting]:
        largest = points[0]["result"]["largest_bond"]
        caps = sorted({max(1, round(largest * share)) for share in SHARES}, reverse=True)
        return [{"seed": seeds[0], "cut": {"max_bond": cap, "matrices": part}} for part in PARTS for cap in caps]

    def by_ratio(points: list[Point]) -> list[Setting]:
        layers = [f"*.{number}.*" for number in points[0]["result"]["layers"]]
        settings: list[tuple[str, float, str]] = []
        for ratio, way in product(sorted({*ratios, layer_ratio}, reverse=True), WAYS_OF_PARTS):
            chosen = [*PARTS] * (ratio in ratios) + [*layers, *KINDS] * (ratio == layer_ratio and way in WAYS_ALONE)
            settings += [(way, ratio, matrices) for matrices in chosen]
        settings += [(way, ratio, "all") for way, ratio in product(ALLOTTED, ratios)]
        settings += [("plain", ratio, "embedding") for ratio in ratios]
        return [
            {"seed": seed, "way": way, "cut": {"ratio": ratio, "matrices": matrices}}
            for seed, (way, ratio, matrices) in product(seeds, settings)
        ]

    measure_runs = partial(measure, dict(zip(seeds, map(str, runs), strict=True)), n_sentences)
    stages = {"uncut": uncut, "bonds": bonds, "ratios": by_ratio}
    return Study("cuts", VERSION, measure_runs, stages, describe=describe, form=form)


def light_runs(config: RunConfig, seeds: int, out: Path, *, resume: bool = False) -> list[Path]:
    """Folders of light runs of a config with the seeds 0, 1, ..., for the study; finished ones are read if `resume`.

    Raises
    ------
    InterruptedError, OSError, ValueError
        As in `run`; and before anything is trained, what the study would refuse in the end.
    """
    require_classes(config.task)
    if resume:
        records.require_own(out, RECORD)
    folders = [out / f"seed-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        prepared = prepare(replace(config, seed=seed))
        if seed == 0:
            unused_sentences(prepared)
            list(dense_matrices(prepared.model, "embedding"))
            for name, layer in mpo_matrices(prepared.model).items():
                bonds_of_ratio(name, layer.mpo.shape, min(RATIOS))
        run(prepared, folder, resume=resume, splits=("validation",))
    return folders


def measure(runs: Mapping[int, str], n_sentences: int, setting: Setting) -> dict:
    """Counts of what was cut, what `threshold.judge` says of the model, and for the ratios the errors of the hidden states."""
    opened = _opened(runs[setting["seed"]], n_sentences)
    if "config" in setting:
        return opened.uncut()
    cut = Cut(**setting["cut"])
    return opened.capped(cut) if cut.max_bond is not None else opened.shrunk(setting["way"], cut)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    if "config" in setting:
        chance = {"validation": forms.NUMBER, "unused": forms.NUMBER}
        counts = {"dense": forms.COUNT, "largest_bond": forms.COUNT, "layers": forms.TEXTS, "chance": chance}
        return {**counts, "unused": forms.JUDGED, "states": forms.NUMBERS}
    if "max_bond" in setting["cut"]:
        numbers = ("central", "auxiliary", "parameters", "ratio", "entropy")
        return {**dict.fromkeys(numbers, forms.NUMBER), "validation": forms.JUDGED}
    return {"parameters": forms.COUNT, "dense": forms.COUNT, "unused": forms.JUDGED, "states": forms.NUMBERS}


def describe(point: Point) -> str:
    setting, result = point["setting"], point["result"]
    cut = ", ".join(f"{name} {value}" for name, value in setting.get("cut", {}).items()) or "uncut"
    judged = result.get("unused", result.get("validation"))
    more = (
        "" if judged["auc"] is None else f", AUC {judged['auc']:.3f}, bias fitted {judged['refitted']['accuracy']:.3f}"
    )
    return f"seed {setting['seed']}, {setting.get('way', 'plain')}, {cut}: {judged['accuracy']:.3f}{more}"


class _Run:
    """One tuned model, and what is measured of it."""

    def __init__(self, folder: str, n_sentences: int):
        self.tuned = Tuned.of_run(Path(folder))
        self.model, self.tokenizer = self.tuned.model, self.tuned.prepared.tokenizer
        self.rows = tokenise(self.tuned.unused[:n_sentences], self.tokenizer, self.tuned.prepared.config.max_length)
        self.layers = mpo_matrices(self.model)

    def uncut(self) -> dict:
        validation = [label for _, label in self.tuned.prepared.task.splits["validation"]]
        numbers = {re.search(r"layers?\.\d+", name)[0]: None for name in self.layers if place(name).layer is not None}
        return {
            "dense": self.tuned.prepared.ledger.dense,
            "largest_bond": self.tuned.largest_bond,
            "layers": list(numbers),
            "chance": {"validation": _chance(validation), "unused": _chance(list(self.rows["labels"]))},
            **self._measured(self.model),
        }

    def capped(self, cut: Cut) -> dict:
        """Counts of all matrices, entropy of those that were cut, what it is judged to be on the validation sentences."""
        model = self.tuned.truncated(cut)
        layers = mpo_layers(model)
        central = sum(layer.central.numel() for layer in layers)
        parameters = sum(layer.mpo.n_params for layer in layers)
        entropies = [central_entropy(layer) for layer in mpo_matrices(model, cut.matrices).values()]
        return {
            "central": central,
            "auxiliary": parameters - central,
            "parameters": parameters,
            "ratio": parameters / self.tuned.prepared.ledger.dense,
            "entropy": float(np.mean(entropies)),
            "validation": self.tuned.judge(model),
        }

    def shrunk(self, way: str, cut: Cut) -> dict:
        """Counts of the matrices that were cut, and what is measured of the model with them in it."""
        model = copy.deepcopy(self._with_embedding if cut.matrices == "embedding" else self.model)
        self._cut(model, way, cut)
        mpos = [layer.mpo for layer in mpo_matrices(model, cut.matrices).values()]
        whole = [layer.mpo.shape for layer in mpo_matrices(self._with_embedding, cut.matrices).values()]
        return {
            "parameters": sum(mpo.n_params for mpo in mpos),
            "dense": sum(shape.in_size * shape.out_size for shape in whole),
            **self._measured(model),
        }

    def _cut(self, model, way: str, cut: Cut) -> None:
        """The chosen layers, in place."""
        shapes = {name: layer.mpo.shape for name, layer in mpo_matrices(model, cut.matrices).items()}
        room = {name: shape.n_params(bonds_of_ratio(name, shape, cut.ratio)) for name, shape in shapes.items()}
        if way == TWO_FACTORS:
            factorise(model, room, self.tuned.inputs)
            return
        if way in ALLOTTED:
            cut = Cut(n_params=sum(room.values()), matrices=cut.matrices)
        options = {**WAYS[way], **({"moments": self.tuned.inputs} if "moments" in WAYS[way] else {})}
        truncate(model, **vars(cut), **options)

    @cached_property
    def _with_embedding(self):
        model = copy.deepcopy(self.model)
        decompose(model, matrices="embedding")
        return model

    def _measured(self, model) -> dict:
        return {
            "unused": judge(self.rows["labels"], logits(model, self.rows, self.tokenizer)),
            "states": state_errors(self._states(model), self._whole_states),
        }

    @cached_property
    def _whole_states(self) -> list[Tensor]:
        return self._states(self.model)

    def _states(self, model) -> list[Tensor]:
        rows = self.rows.select(range(min(STATES_OF, len(self.rows))))
        return hidden_states(model, rows, self.tokenizer)


_opened = lru_cache(maxsize=1)(_Run)  # of the seed under way


def central_entropy(layer: MPOLayer) -> float:
    """Mean entropy of the bonds beside the central core of an MPO with three or more, in nats."""
    shape, matrix = layer.mpo.shape, layer.mpo.to_matrix()
    cuts = (shape.central, shape.central + 1)
    return float(np.mean([entropy(schmidt_values(matrix, shape, cut)) for cut in cuts]))


def _chance(labels: list) -> float:
    return max(map(labels.count, labels)) / len(labels)


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
