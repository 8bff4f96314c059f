"""What the study of formats makes of a model before it is tuned: its matrices in each format, and ALBERT's two ideas."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from torch import nn

from mpo_tutorial.maths.formats import FORMATS, Network, in_format
from mpo_tutorial.models.families import USUAL, mpo_matrices
from mpo_tutorial.models.truncation import factorise, truncate, two_cores, two_factors

if TYPE_CHECKING:
    from mpo_tutorial.experiments.finetune import Prepared

HALF = 0.5  # of its dense numbers each matrix keeps at most
EMBEDDING_SIZE = 128  # ALBERT's
PLAIN, FITTED, AWARE, UNCUT = "MPO", "MPO, fitted", "SVD, aware", "light, uncut"


@dataclass(frozen=True)
class Change:
    """What is made of a model before it is tuned.

    Parameters
    ----------
    apply : callable
        Changes a prepared model in place; it gets a folder, too, for what takes long and is needed again.
    matrices : str
        Which it changes, as in `families.split_words`.
    light : bool
        The pretrained model is changed, and auxiliary cores alone are trained. Else it is that of a light run, and all numbers of
        the matrices are trained, norms, biases and head with them, and the word table if that is changed.
    """

    apply: "Callable[[Prepared, Path], None]"
    matrices: str = USUAL
    light: bool = False


def _plain(prepared: "Prepared", _folder: Path) -> None:
    truncate(prepared.model, ratio=HALF)


def _fitted(prepared: "Prepared", _folder: Path) -> None:
    from mpo_tutorial.experiments.tuned import calibration

    truncate(prepared.model, ratio=HALF, moments=calibration(prepared))


def _aware(prepared: "Prepared", _folder: Path) -> None:
    from mpo_tutorial.experiments.tuned import calibration

    factorise(prepared.model, rooms_of(prepared.model), calibration(prepared))


def _format(prepared: "Prepared", folder: Path, name: str) -> None:
    from safetensors.torch import save_file

    from mpo_tutorial.models.formats import put_networks

    device = next(prepared.model.parameters()).device
    path = folder / f"{name}-{prepared.config.seed}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    rooms, layers = rooms_of(prepared.model), dict(prepared.model.named_modules())
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made = {
                of: in_format(name, layers[of].mpo.to_matrix(), room, prepared.config.seed)
                for of, room in rooms.items()
            }
            kept = {f"{of}.{k}": f.cpu() for of, network in made.items() for k, f in enumerate(network.factors)}
            equations = {of: f"{network.n_in} {network.equation}" for of, network in made.items()}
            save_file(kept, path, equations)
    put_networks(prepared.model, _read_networks(path, rooms, device))


def _shared(prepared: "Prepared", _folder: Path, groups: int, cut: bool = False) -> None:
    from mpo_tutorial.models.formats import share_layers

    share_layers(prepared.model, groups)
    if cut:
        truncate(prepared.model, ratio=HALF)


def _two_core_embedding(prepared: "Prepared", _folder: Path) -> None:
    from mpo_tutorial.models.architectures import put_layers
    from mpo_tutorial.models.layers import MPOEmbedding

    table = prepared.model.get_input_embeddings()
    factors = two_factors(table.weight, None, EMBEDDING_SIZE * sum(table.weight.shape))
    put_layers(prepared.model, {table: MPOEmbedding.in_place_of(table, two_cores(*factors))})


def _nothing(_prepared: "Prepared", _folder: Path) -> None:
    """For what the others are set against."""


CHANGES: Mapping[str, Change] = {
    PLAIN: Change(_plain),
    FITTED: Change(_fitted),
    **{name: Change(partial(_format, name=name)) for name in FORMATS},
    AWARE: Change(_aware),
    "word table of two factors": Change(_two_core_embedding, "embedding"),
    "layers shared by pairs": Change(partial(_shared, groups=3)),
    "one layer for all": Change(partial(_shared, groups=1)),
    "layers shared by pairs, MPO": Change(partial(_shared, groups=3, cut=True)),
    "light on fitted MPOs": Change(_fitted, light=True),
    UNCUT: Change(_nothing, light=True),
}


def rooms_of(model: nn.Module) -> dict[str, int]:
    """How many numbers each matrix may keep."""
    shapes = {name: layer.mpo.shape for name, layer in mpo_matrices(model).items()}
    return {name: int(HALF * shape.in_size * shape.out_size) for name, shape in shapes.items()}


def _read_networks(path: Path, names: Iterable[str], device: torch.device) -> dict[str, Network]:
    from safetensors import safe_open

    found = {}
    with safe_open(path, "pt", device=str(device)) as file:
        equations = file.metadata()
        for name in names:
            n_in, equation = equations[name].split()
            factors = tuple(file.get_tensor(f"{name}.{k}") for k in range(equation.count(",") + 1))
            found[name] = Network(equation, int(n_in), factors)
    return found
