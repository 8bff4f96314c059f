"""Schmidt values of a matrix, and what follows from them: bond entropies, truncation errors, the cheapest truncation.

Cut the chain of legs in two, and write the matrix as one with the legs left of the cut as rows and those right of it as
columns. The singular values of that are the Schmidt values of the cut.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from mpo_tutorial.maths.linalg import require_floating, scale_of, singular_values
from mpo_tutorial.maths.shapes import Shape, is_integer

CONVENTIONS = ("physics", "paper")


def entropy(schmidt_values: np.ndarray, convention: str = "physics") -> float:
    """Entanglement entropy of a cut, -sum p ln p, in nats.

    Parameters
    ----------
    schmidt_values : array of shape (n,), not negative
        Need not be normalised.
    convention : {"physics", "paper"}
        "physics": p = s^2 / sum s^2, the eigenvalues of the density matrix. "paper": p = s / sum s, as Eq. 6 of Liu et
        al. 2021 reads; the authors' own script uses the squares.

    Returns
    -------
    float : 0 if all values but one are zero, at most ln n. A zero matrix has entropy 0.

    >>> round(entropy(np.array([1.0, 1.0])), 4), round(math.log(2), 4)
    (0.6931, 0.6931)
    >>> round(entropy(np.array([3.0, 1.0])), 4), round(entropy(np.array([3.0, 1.0]), "paper"), 4)
    (0.3251, 0.5623)
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"the conventions are {', '.join(CONVENTIONS)}, got {convention!r}")
    weights = np.asarray(schmidt_values)
    if weights.dtype.kind not in "iuf" or weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"Schmidt values are a list of finite numbers that are not negative, got {schmidt_values!r}")
    weights = weights / max(weights.max(initial=0), np.finfo(float).tiny)
    if convention == "physics":
        weights = weights**2
    p = weights[weights > 0]
    p = p / p.sum()
    return float(-(p * np.log(p)).sum()) + 0.0


def schmidt_values(matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]], cut: int) -> np.ndarray:
    """Schmidt values of a matrix at one cut; nothing is decomposed at the others.

    Parameters
    ----------
    matrix : Tensor of shape (in, out)
    shape : Shape, or a pair of tuples (in legs, out legs)
    cut : int
        Number of cores left of it, 1 to n - 1: cut k is the bond d_k.

    Returns
    -------
    float64 array of shape (full bond of the cut,), descending

    Raises
    ------
    ValueError
        If the legs do not multiply out to the matrix, it is not finite, or the cut is out of range.
    """
    shape = Shape.of(shape)
    require_floating(matrix)
    if tuple(matrix.shape) != (shape.in_size, shape.out_size):
        raise ValueError(f"{shape} is of {shape.in_size} x {shape.out_size} matrices, got {tuple(matrix.shape)}")
    check_cut(cut, shape.n_cores)
    scale = scale_of(matrix)
    rows, columns = shape.padding
    legs = pad(matrix.detach() / scale, (0, columns, 0, rows)).reshape(
        math.prod(shape.in_legs[:cut]), -1, math.prod(shape.out_legs[:cut]), math.prod(shape.out_legs[cut:])
    )
    unfolded = legs.transpose(1, 2).reshape(legs.shape[0] * legs.shape[2], -1)
    return scale * singular_values(unfolded.cpu()).numpy()  # a GPU takes far longer


def check_cut(cut: int, n: int) -> None:
    """Refuse a cut that does not leave some of the n cores or sites on each side."""
    if not is_integer(cut) or not 1 <= cut < n:
        raise ValueError(f"a cut has at least one of the {n} on each side: 1 to {n - 1}, got {cut!r}")


@dataclass(frozen=True, eq=False)
class Spectra:
    """The Schmidt values of a matrix at every cut, computed once: what can be said about its truncations without one.

    >>> import torch
    >>> spectra = Spectra.of(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])), ((2, 2), (2, 2)))
    >>> spectra.values[0].round(4), round(spectra.bound((1,)), 4), round(spectra.entropies()[0], 4)
    (array([3.5616, 0.5616, 0.    , 0.    ]), 0.5616, 0.1142)

    Parameters
    ----------
    shape : Shape
    values : tuple of arrays, the k-th of shape (full bond of cut k + 1,), descending
    """

    shape: Shape
    values: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]]) -> "Spectra":
        """Of a matrix of shape (in, out). Errors as in `schmidt_values`."""
        shape = Shape.of(shape)
        return cls(shape, tuple(schmidt_values(matrix, shape, cut) for cut in range(1, shape.n_cores)))

    @property
    def norm(self) -> float:
        """Frobenius norm of the matrix."""
        return float(np.linalg.norm(self.values[0]))

    def entropies(self, convention: str = "physics") -> tuple[float, ...]:
        """Entropy of each bond, in nats; `convention` as in `entropy`."""
        return tuple(entropy(values, convention) for values in self.values)

    def local_errors(self, bonds: Sequence[int]) -> tuple[float, ...]:
        """What each bond alone would lose: eps_k, the root of the discarded squares (Liu et al. 2021, Eq. 3 with squares).

        Raises
        ------
        ValueError
            If the number of bonds is wrong, or one is out of range.
        """
        bonds = self.shape.one_for_each(bonds)
        return tuple(float(np.linalg.norm(values[bond:])) for bond, values in zip(bonds, self.values, strict=True))

    def bound(self, bonds: Sequence[int], relative: bool = False) -> float:
        """Bound on the error ||M - MPO||_F of these bonds (Liu et al. 2021, Eq. 4), or on its share of ||M||_F.

        With a single bond cut it is the error itself. Bonds that their neighbours force lose nothing of their own.
        """
        absolute = math.hypot(*self.local_errors(self.shape.to_cut(bonds)))
        return absolute / self.norm if relative and self.norm else absolute

    def bonds_of_cutoff(self, cutoff: float) -> tuple[int, ...]:
        """The smallest bonds that each discard at most the share `cutoff` of the squared norm."""
        if not 0 <= cutoff < 1:
            raise ValueError(f"a cutoff lies in [0, 1), got {cutoff!r}")
        return tuple(1 + int((weights > cutoff * self.norm**2).sum()) for weights in self.discarded())

    def discarded(self) -> tuple[np.ndarray, ...]:
        """For each cut an array of shape (full bond,): entry d - 1 is the sum of the squares that a bond d discards."""
        return tuple(np.append(np.square(values)[:0:-1].cumsum()[::-1], 0.0) for values in self.values)


def cheapest_truncation(
    spectra: Mapping[str, Spectra],
    bonds: Mapping[str, Sequence[int]],
    step: int = 1,
    relative: bool = False,
    per_parameter: bool = False,
) -> tuple[str, tuple[int, ...]]:
    """The matrix whose central bonds can be cut by one step at the least bound on its error, and its bonds after it.

    The choice of Algorithm 2 of Liu et al. 2021, from singular values computed once. The central bonds are the two
    beside the central core, or with two cores the only one.

    Parameters
    ----------
    spectra, bonds : mappings with the same names
        Of every matrix: Schmidt values, and the inner bonds that it has now.
    step : int
        By how much the central bonds sink; none sinks below 1.
    relative : bool
        Compare errors in units of each matrix's norm.
    per_parameter : bool
        Compare squared errors for each parameter that the step saves.

    Raises
    ------
    ValueError
        If no matrix has a central bond above 1 left, the step is below 1, or the names differ.
    """
    if not is_integer(step) or step < 1:
        raise ValueError(f"a step is a positive integer, got {step!r}")
    if spectra.keys() != bonds.keys():
        raise ValueError(f"spectra and bonds are of the same matrices, got {[*spectra]} and {[*bonds]}")
    errors = {}
    for name, spectrum in spectra.items():
        central = spectrum.shape.central
        after = tuple(
            max(1, bond - step) if k in (central - 1, central) else bond for k, bond in enumerate(bonds[name])
        )
        after = spectrum.shape.usable(after)
        if after != tuple(bonds[name]):
            error, count = spectrum.bound(after, relative), spectrum.shape.n_params
            errors[name, after] = error**2 / (count(bonds[name]) - count(after)) if per_parameter else error
    if not errors:
        raise ValueError("no central bond is left to cut: all are 1")
    return min(errors, key=errors.__getitem__)
