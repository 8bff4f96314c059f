"""Cutting a whole model: which bonds to keep, by a cap, a cutoff, a share or a total, and with which cores."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mpo_tutorial.maths.budget import allocate
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.metric import output_spectra
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, is_integer
from mpo_tutorial.models.activations import Inputs, Moments
from mpo_tutorial.models.families import mpo_matrices, split_words
from mpo_tutorial.models.layers import MPOLayer, MPOLinear

ERRORS = ("weights", "outputs")


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
    moments: Mapping[str, Moments] | Inputs | None = None,
    sweeps: int | None = None,
    allot_by: str = "weights",
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
    moments : mapping of layers' names to Moments, or Inputs, optional
        What `input_moments` returned for the uncut model. Without it each matrix is cut by its own singular values, the plain
        way; with it the outputs on such inputs are brought close to what they were. Layers without an entry, such as
        embeddings, are cut the plain way. With `Inputs` the model is looked at layer after layer, as it is cut: each matrix is
        fitted to what reaches it now.
    sweeps : int, optional
        As in `fit`, with moments; None: until it has settled. With 0 they only correct the biases.
    allot_by : {"weights", "outputs"}
        What counts as a matrix's error where bonds are allotted: of its numbers, or of its outputs, by the moments.
    progress : bool
        Show a bar.

    Raises
    ------
    ValueError
        If not exactly one limit is given, it cannot be kept to (the message says how far it can go), the matrices are unknown
        or none is an MPO, the moments are of other layers, or outputs are to be judged without moments.
    """
    Cut(max_bond, cutoff, ratio, n_params, matrices)
    layers = mpo_matrices(model, matrices)
    if not layers:
        raise ValueError(f"there is nothing to truncate, the model has no MPO layer among {matrices!r}")
    if allot_by not in ERRORS:
        raise ValueError(f"bonds are allotted by one of {', '.join(ERRORS)}, got {allot_by!r}")
    caps = dict.fromkeys(layers, max_bond)
    if ratio is not None:
        caps = {name: bonds_of_ratio(name, layer.mpo.shape, ratio) for name, layer in layers.items()}
    elif n_params is not None:
        caps = allocate(_spectra(model, layers, moments, allot_by), n_params=n_params).bonds
    bar = tqdm(total=len(layers), desc="cutting", unit="matrix", disable=not progress)
    for names, found in _stages(model, layers, moments):
        for name in names:
            cut = layers[name].mpo.truncate(caps[name], cutoff)
            put_cut(layers[name], fitted_to(layers[name], cut, found[name], sweeps) if name in found else cut)
            bar.update()
    bar.close()


def _stages(model: nn.Module, names: Iterable[str], moments: Mapping[str, Moments] | Inputs | None):
    """Which layers are cut when, and the moments by which they are: of one look at the model, or of one for each stage."""
    if isinstance(moments, Inputs):
        return moments.stages(model, list(names))
    require_moments(moments or {}, model)
    return [(list(names), moments or {})]


def _spectra(
    model: nn.Module,
    layers: Mapping[str, MPOLayer],
    moments: Mapping[str, Moments] | Inputs | None,
    allot_by: str,
) -> dict[str, Spectra]:
    if allot_by == "weights":
        return {name: spectra_of(layer) for name, layer in layers.items()}
    found = (moments.of(model, list(layers)) if isinstance(moments, Inputs) else moments) or {}
    require_moments(found, model)
    if lacking := [name for name in layers if name not in found]:
        raise ValueError(f"errors of the outputs need moments of every layer, there are none of {lacking[0]}")
    return {name: spectra_of(layer, found[name]) for name, layer in layers.items()}


def put_cut(layer: MPOLayer, cut: MPO) -> None:
    """Give a layer its cut cores. What was frozen stays so."""
    trainable = [core.requires_grad for core in layer.cores]
    layer.set_mpo(cut)
    for core, flag in zip(layer.cores, trainable, strict=True):
        core.requires_grad_(flag)


def fitted_to(layer: MPOLinear, cut: MPO, moments: Moments, sweeps: int | None = None) -> MPO:
    """A layer's cut MPO, fitted to its inputs. The layer's bias takes up, in place, the mean of the error that is left.

    Parameters
    ----------
    cut : MPO
        Where to start, with the bonds that it will have.
    sweeps : int, optional
        As in `fit`.
    """
    matrix, has_bias = layer.mpo.to_matrix(), layer.bias is not None
    fitted = fit(cut, matrix, moments.metric(centred=has_bias).to(matrix.device), sweeps)
    if has_bias:
        error = matrix - fitted.to_matrix()
        with torch.no_grad():
            layer.bias += moments.mean.to(error) @ error
    return fitted


def spectra_of(layer: MPOLayer, moments: Moments | None = None, centred: bool = True) -> Spectra:
    """The Schmidt values of a layer's matrix or, with moments, as far as its outputs go (`metric.output_spectra`).

    Parameters
    ----------
    centred : bool
        Whether a bias, if the layer has one, takes up the mean of the error.
    """
    matrix = layer.mpo.to_matrix()
    if moments is None:
        return Spectra.of(matrix, layer.mpo.shape)
    return output_spectra(matrix, layer.mpo.shape, metric_of(layer, moments, centred))


def metric_of(layer: MPOLayer, moments: Moments, centred: bool = True) -> Tensor:
    """Of a layer's inputs, on its device; about their mean if `centred` and it has a bias, which takes that up."""
    return moments.metric(centred and getattr(layer, "bias", None) is not None).to(layer.central.device)


def two_factors(matrix: Tensor, metric: Tensor | None, n_params: int) -> tuple[Tensor, Tensor]:
    """A matrix as the product of two, by the SVD that loses least of the output: the rival of a chain with as many parameters.

    With C the metric, C^(1/2) M is cut by its SVD and C^(1/2) divided out again, which two factors allow (as DRONE, 2021).

    Parameters
    ----------
    matrix : Tensor of shape (in, out)
    metric : Tensor of shape (in, in), symmetric and positive definite, optional
        None: all inputs alike, the plain SVD.
    n_params : int
        That both factors have together at most.

    Returns
    -------
    Tensor of shape (in, rank), Tensor of shape (rank, out)

    Raises
    ------
    ValueError
        If not even rank 1 fits.
    """
    rank = n_params // sum(matrix.shape)
    if rank < 1:
        raise ValueError(f"two factors of rank 1 have {sum(matrix.shape)} parameters, got room for {n_params}")
    weighted, back = matrix.detach().double(), None
    if metric is not None:
        values, vectors = torch.linalg.eigh(metric.double().to(matrix.device))
        roots = values.clamp(min=torch.finfo(values.dtype).eps * values[-1].item()).sqrt()
        weighted, back = (vectors * roots) @ (vectors.T @ weighted), vectors / roots @ vectors.T
    u, s, vh = torch.linalg.svd(weighted, full_matrices=False)
    left, right = u[:, :rank] * s[:rank].sqrt(), s[:rank, None].sqrt() * vh[:rank]
    return (left if back is None else back @ left).to(matrix.dtype), right.to(matrix.dtype)


def two_cores(first: Tensor, second: Tensor) -> MPO:
    """Two factors, of shapes (in, rank) and (rank, out), as a chain of two cores."""
    return MPO((first[None, :, None, :], second[:, None, :, None]))


def factorise(
    model: nn.Module,
    n_params: Mapping[str, int],
    moments: Mapping[str, Moments] | Inputs,
) -> None:
    """Put in the place of MPO layers chains of two cores, which are two factors, by the aware SVD; in place, all of it trainable.

    Parameters
    ----------
    n_params : mapping of layers' names to int
        How many parameters each may keep.
    moments
        As in `truncate`. A layer that they do not know is refused by a ValueError.
    """
    for names, found in _stages(model, n_params, moments):
        for name in names:
            if name not in found:
                raise ValueError(f"two factors are fitted to inputs, there are no moments of {name}")
            layer, of_layer = model.get_submodule(name), found[name]
            matrix = layer.mpo.to_matrix()
            first, second = two_factors(matrix, of_layer.metric(layer.bias is not None), n_params[name])
            if layer.bias is not None:
                with torch.no_grad():
                    layer.bias += of_layer.mean.to(matrix) @ (matrix - first @ second)
            layer.set_mpo(two_cores(first, second))


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


def require_moments(moments: Mapping[str, Moments], model: nn.Module) -> None:
    """Refuse, by a ValueError, moments of other layers than the model has."""
    sizes = {name: m.mpo.shape.in_size for name, m in model.named_modules() if isinstance(m, MPOLinear)}
    for name, found in moments.items():
        if len(found.mean) != sizes.get(name):
            raise ValueError(
                f"the moments must be of this model: they have {name} with {len(found.mean)} inputs, the model "
                f"{sizes.get(name, 'no such MPOLinear')}; take those that input_moments returns for it"
            )
