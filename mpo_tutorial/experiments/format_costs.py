"""How long the formats of a compressed matrix take to be made, and to be multiplied with; a study that runs alone."""

import time
from functools import partial

import torch
from torch import Tensor

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.changes import AWARE, FITTED, HALF, PLAIN, rooms_of
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.formats import FORMATS, Network, in_format
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.families import mpo_matrices
from mpo_tutorial.models.truncation import bonds_of_ratio, two_factors

TOKENS, RACES = 1024, 15
MAKERS = (PLAIN, FITTED, *FORMATS, AWARE)
RUNS = ("dense", "contracted", "rebuilt")


def study(base: RunConfig) -> Study:
    """How long each format takes to be made, of all matrices of the pretrained model, and to be multiplied with."""

    def settings(_points: list[Point]) -> list[Setting]:
        return [{"format": name, "model": base.model, "tokens": TOKENS} for name in MAKERS]

    return Study(
        "formats-costs",
        1,
        partial(measure, base.device),
        {"costs": settings},
        serial=True,
        describe=_describe,
        form=lambda _: {"make": forms.NUMBER, "run": dict.fromkeys(RUNS, forms.NUMBER)},
    )


def measure(device: str, setting: Setting) -> dict:
    """Seconds to "make" all matrices, and to "run" all of them on some tokens: "dense"; "contracted", factor by factor; "rebuilt"
    to a dense matrix each time, as in a training step. The last three are medians over turns.
    """
    from mpo_tutorial.experiments.finetune import prepare
    from mpo_tutorial.experiments.races import race
    from mpo_tutorial.experiments.tuned import calibration

    prepared = prepare(RunConfig(model=setting["model"], device=device))
    layers = mpo_matrices(prepared.model)
    found = calibration(prepared).of(prepared.model, list(layers))
    rooms = rooms_of(prepared.model)
    where = "cuda" if next(prepared.model.parameters()).is_cuda else "cpu"
    make, made = 0.0, {}
    for name, layer in layers.items():
        matrix, metric = layer.mpo.to_matrix(), found[name].metric(centred=True)
        started = time.perf_counter()
        made[name] = _made(setting["format"], matrix, rooms[name], metric, layer.mpo.shape)
        make += time.perf_counter() - started
    kinds: dict[tuple[int, ...], list[str]] = {}
    for name, layer in layers.items():
        shape = layer.mpo.shape
        kinds.setdefault((shape.in_size, shape.out_size), []).append(name)
    run = dict.fromkeys(RUNS, 0.0)
    for size, names in kinds.items():
        ours, matrix = made[names[0]], layers[names[0]].mpo.to_matrix()
        x = torch.randn(setting["tokens"], size[0], device=matrix.device)
        steps = {
            "dense": partial(torch.matmul, x, matrix),
            "contracted": partial(ours.apply, x),
            "rebuilt": partial(_rebuilt, x, ours),
        }
        with torch.inference_mode():
            for way, seconds in race(steps, where, RACES).items():
                run[way] += len(names) * seconds
    return {"make": make, "run": run}


def _rebuilt(x: Tensor, ours: MPO | Network) -> Tensor:
    return x @ ours.to_matrix()


def _made(name: str, matrix: Tensor, room: int, metric: Tensor, shape: Shape) -> MPO | Network:
    """A matrix in a format, from its dense numbers."""
    if name in FORMATS:
        return in_format(name, matrix, room)
    if name == AWARE:
        return Network("ar,rb->ab", 1, two_factors(matrix, metric, room))
    cut = MPO.from_matrix(matrix, shape).truncate(bonds_of_ratio(name, shape, HALF))
    return fit(cut, matrix, metric) if name == FITTED else cut


def _describe(point: Point) -> str:
    result = point["result"]
    times = ", ".join(f"{way} {1000 * seconds:.1f} ms" for way, seconds in result["run"].items())
    return f"{point['setting']['format']}: made in {result['make']:.1f} s; {times}"
