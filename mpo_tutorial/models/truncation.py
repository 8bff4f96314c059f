"""Cutting a whole model: which bonds to keep, by a cap, a cutoff, a share or a total, and with which cores."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import torch
from torch import nn
from tqdm.auto import tqdm

from mpo_tutorial.maths.budget import allocate
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.fitting import SWEEPS, fit
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, is_integer
from mpo_tutorial.models.activations import Moments
from mpo_tutorial.models.families import mpo_matrices, split_words
from mpo_tutorial.models.layers import MPOLinear


@dataclass(frozen=True)
class Cut:
    """How far to cut which matrices. Exactly one of the first four is given; `truncate(model, **vars(cut))` does it.

    Parameters
    ----------
    max_bond : int, optional
        Cap on every bond.
    cutoff : float in [0, 1), optional
        Relative weight that a bond may lose, as in `MPO.truncate`.
    ratio : float, optional
        Share of its dense parameters that each matrix may keep at most.
    n_params : int, optional
        Parameters of all cores together; bonds are allotted.
    matrices : str
        As in `families.split_words`.

    Raises
    ------
    ValueError
        If not exactly one limit is given, or it is no positive number (a cutoff: no number in [0, 1)), or the matrices are unknown.
    """

    max_bond: int | None = None
    cutoff: float | None = None
    ratio: float | None = None
    n_params: int | None = None
    matrices: str = "all"

    def __post_init__(self):
        limits = {name: value for name, value in vars(self).items() if name != "matrices"}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(limits)}, got {given or 'none'}")
        for name, limit in given.items():
            if name in ("max_bond", "n_params") and (not is_integer(limit) or limit < 1):
                raise ValueError(f"{name} is an integer of at least 1, got {limit!r}")
            if name == "ratio" and not (isinstance(limit, Real) and 0 < limit < math.inf):
                raise ValueError(f"a ratio is a finite number above 0, got {limit!r}")
            if name == "cutoff" and not (isinstance(limit, Real) and 0 <= limit < 1):
                raise ValueError(f"a cutoff lies in [0, 1), got {limit!r}")
        split_words(self.matrices)


def truncate(
    model: nn.Module,
    *,
    max_bond: int | None = None,
    cutoff: float | None = None,
    ratio: float | None = None,
    n_params: int | None = None,
    matrices: str = "all",
    moments: Mapping[str, Moments] | None = None,
    sweeps: int = SWEEPS,
    progress: bool = False,
) -> None:
    """Cut the bonds of a model's MPO layers, in place and without retraining. Exactly one limit is given.

    Only cores change; with moments, biases too. What was frozen stays so.

    Parameters
    ----------
    max_bond : int, optional
        Cap on every bond.
    cutoff : float, optional
        As in `MPO.truncate`.
    ratio : float, optional
        Each matrix gets the largest cap with which its cores have at most this share of the dense matrix's parameters.
    n_params : int, optional
        Parameters that all their cores have together at most; `budget.allocate` shares them out, each error counted
        relative to its matrix, so that large matrices are cut hardest.
    matrices : str
        Which, as in `families.split_words`.
    moments : mapping of layers' names to Moments, optional
        What `input_moments` returned for the uncut model. Without it each matrix is cut by its own singular values, the plain
        way; with it the outputs on such inputs are brought close to what they were. Layers without an entry, such as
        embeddings, are cut the plain way.
    sweeps : int
        As in `fit`, with moments. With 0 they only correct the biases.
    progress : bool
        Show a bar.

    Raises
    ------
    ValueError
        If not exactly one limit is given, it cannot be kept to (the message says how far it can go), the matrices are unknown
        or none is an MPO, or the moments are of other layers.
    """
    Cut(max_bond, cutoff, ratio, n_params, matrices)
    layers = mpo_matrices(model, matrices)
    if not layers:
        raise ValueError(f"there is nothing to truncate, the model has no MPO layer among {matrices!r}")
    moments = moments or {}
    _check_moments(moments, model)
    caps = dict.fromkeys(layers, max_bond)
    if ratio is not None:
        caps = {name: bonds_of_ratio(name, layer.mpo.shape, ratio) for name, layer in layers.items()}
    elif n_params is not None:
        spectra = {name: Spectra.of(layer.mpo.to_matrix(), layer.mpo.shape) for name, layer in layers.items()}
        caps = allocate(spectra, n_params=n_params).bonds
    for name, layer in tqdm(layers.items(), desc="cutting", unit="matrix", disable=not progress):
        cut = layer.mpo.truncate(caps[name], cutoff)
        if name in moments:
            cut = _fit_layer(layer, cut, moments[name], sweeps)
        trainable = [core.requires_grad for core in layer.cores]
        layer.set_mpo(cut)
        for core, flag in zip(layer.cores, trainable, strict=True):
            core.requires_grad_(flag)


def _fit_layer(layer: MPOLinear, cut: MPO, moments: Moments, sweeps: int) -> MPO:
    """The cut MPO, fitted to the layer's inputs. The layer's bias takes up, in place, the mean of the error that is left."""
    matrix, has_bias = layer.mpo.to_matrix(), layer.bias is not None
    fitted = fit(cut, matrix, moments.metric(centred=has_bias), sweeps)
    if has_bias:
        error = matrix - fitted.to_matrix()
        with torch.no_grad():
            layer.bias += moments.mean.to(error) @ error
    return fitted


def bonds_of_ratio(name: str, shape: Shape, ratio: float) -> tuple[int, ...]:
    """The bonds under the largest cap that keeps a matrix's cores within a share of its parameters."""
    allowed, full = ratio * shape.in_size * shape.out_size, shape.full_bonds

    def size(cap: int) -> int:
        return shape.n_params([min(cap, bond) for bond in full])

    if not allowed >= size(1):
        least = size(1) / (shape.in_size * shape.out_size)
        raise ValueError(f"the ratio cannot be below {least:.3g} for {name}, with all bonds at 1, got {ratio!r}")
    cap = bisect_right(range(1, max(full) + 1), allowed, key=size)
    return tuple(min(cap, bond) for bond in full)


def _check_moments(moments: Mapping[str, Moments], model: nn.Module) -> None:
    sizes = {name: m.mpo.shape.in_size for name, m in model.named_modules() if isinstance(m, MPOLinear)}
    for name, found in moments.items():
        if len(found.mean) != sizes.get(name):
            raise ValueError(
                f"the moments must be of this model: they have {name} with {len(found.mean)} inputs, the model "
                f"{sizes.get(name, 'no such MPOLinear')}; take those that input_moments returns for it"
            )
