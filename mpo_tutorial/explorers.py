"""What a widget knows, without the widget: settings in, numbers, words and a figure out."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mpo_tutorial import plots, results, states
from mpo_tutorial.entropy import Spectra, entropy
from mpo_tutorial.linalg import relative_error
from mpo_tutorial.model import matrices, place
from mpo_tutorial.mpo import MPO
from mpo_tutorial.shapes import Shape, balanced_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.tradeoff import Tuned


class RankExplorer:
    """A matrix and its best approximations of every rank, from one singular value decomposition.

    >>> explorer = RankExplorer(np.diag([3.0, 4.0]))
    >>> explorer.error(1), explorer.n_params(1), explorer.n_params(2)
    (0.6, 4, 8)
    >>> explorer.in_words(1)
    'Rank 1 of 2: 4 numbers instead of 4 (100 %), error 60.0 % of the norm.'

    Parameters
    ----------
    matrix : array of shape (rows, columns)

    Raises
    ------
    ValueError
        If it is no matrix of finite real numbers.
    """

    def __init__(self, matrix: np.ndarray):
        matrix = np.asarray(matrix)
        if matrix.ndim != 2 or not matrix.size or matrix.dtype.kind not in "iuf":
            raise ValueError(f"a matrix of real numbers is needed, got {matrix.dtype} of shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            raise ValueError(f"a matrix must be finite, got {matrix[row, column]} in row {row}, column {column}")
        self.matrix = matrix
        self.u, self.values, self.vh = np.linalg.svd(matrix.astype(float), full_matrices=False)

    @property
    def largest_rank(self) -> int:
        return len(self.values)

    def approximation(self, rank: int) -> np.ndarray:
        """The best approximation of this rank (Eckart and Young 1936)."""
        return self.u[:, :rank] * self.values[:rank] @ self.vh[:rank]

    def error(self, rank: int) -> float:
        """Its relative error in the Frobenius norm, from the singular values alone."""
        norm = np.linalg.norm(self.values)
        return float(np.linalg.norm(self.values[rank:]) / norm) if norm else 0.0

    def n_params(self, rank: int) -> int:
        """Numbers in the two factors."""
        return rank * sum(self.matrix.shape)

    @property
    def break_even(self) -> int:
        """The largest rank at which the factors hold fewer numbers than the matrix; 0 if there is none."""
        return (self.matrix.size - 1) // sum(self.matrix.shape)

    def in_words(self, rank: int) -> str:
        numbers, dense = self.n_params(rank), self.matrix.size
        return (
            f"Rank {rank} of {self.largest_rank}: {numbers:,} numbers instead of {dense:,} ({100 * numbers / dense:.0f} %), "
            f"error {100 * self.error(rank):.1f} % of the norm."
        )

    def figure(self, rank: int) -> Figure:
        return plots.low_rank_picture(self.matrix, self.approximation(rank), self.values, rank)


class EntropyExplorer:
    """A periodic Ising chain in a transverse field: its ground state with even parity, and the entropy of half of it.

    >>> EntropyExplorer(4, fields=(0.5, 1.0)).in_words(field=1000.0)
    'Field 1000.00 J: half of the 4 sites has the entropy 0.0000 nats; the largest weight is 1.000, the next 0.000.'

    Parameters
    ----------
    n_sites : int, 3 to 20
    fields : sequence of float
        Where the curve behind the moving point is computed, in units of the coupling.
    """

    def __init__(self, n_sites: int, fields: Sequence[float] = tuple(np.linspace(0.05, 2, 40))):
        self.n_sites = n_sites
        self.fields = fields
        self.entropies = [entropy(self.schmidt_values(field)) for field in fields]

    def schmidt_values(self, field: float) -> np.ndarray:
        """Of the cut into two halves."""
        state = states.ising_ground_state(self.n_sites, field)[1]
        return states.schmidt_values(state, (2,) * self.n_sites, self.n_sites // 2)

    def in_words(self, field: float) -> str:
        values = self.schmidt_values(field)
        first, second = values[:2] ** 2
        return (
            f"Field {field:.2f} J: half of the {self.n_sites} sites has the entropy {entropy(values):.4f} nats; "
            f"the largest weight is {first:.3f}, the next {second:.3f}."
        )

    def figure(self, field: float) -> Figure:
        values = self.schmidt_values(field)
        with plots.styled(2, (13, 4.6)) as (figure, (left, right)):
            plots.entropy_against_field(left, self.fields, {f"{self.n_sites} sites": self.entropies})
            left.plot(field, entropy(values), "o", ms=14, color=plots.ORANGE)
            plots.weights(right, values**2)
        return figure


class BondExplorer:
    """A matrix as an MPO, each of its bonds to be cut by itself.

    Parameters
    ----------
    matrix : Tensor of shape (in, out)
    shape : Shape, or a pair of tuples (in legs, out legs)

    Raises
    ------
    ValueError
        As in `MPO.from_matrix`.
    """

    def __init__(self, matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]]):
        self.matrix = matrix
        self.mpo = MPO.from_matrix(matrix, shape)
        self.spectra = Spectra.of(matrix, shape)
        self._last: dict[tuple[int, ...], MPO] = {}

    @property
    def full_bonds(self) -> tuple[int, ...]:
        return self.mpo.full_bonds

    def presets(self) -> dict[str, tuple[int, ...]]:
        """Bonds by name."""
        parts = {"full": 1, "half": 2, "quarter": 4}
        presets = {name: tuple(max(1, bond // part) for bond in self.full_bonds) for name, part in parts.items()}
        return {**presets, "one": (1,) * len(self.full_bonds)}

    def cut(self, bonds: Sequence[int]) -> MPO:
        """The MPO with these bonds; one that its neighbours cannot use comes out smaller. The last one is kept."""
        bonds = tuple(bonds)
        if bonds not in self._last:
            self._last = {bonds: self.mpo.compress(bonds)}
        return self._last[bonds]

    def in_words(self, *bonds: int) -> str:
        mpo = self.cut(bonds)
        numbers, dense = mpo.n_params, self.matrix.numel()
        error, bound = relative_error(mpo.to_matrix(), self.matrix), self.spectra.bound(bonds, relative=True)
        kept = [entropy(values[:bond]) for values, bond in zip(self.spectra.values, mpo.bonds, strict=True)]
        smaller = "" if mpo.bonds == tuple(bonds) else f" (asked {_listed(bonds)}; the neighbours cannot use more)"
        return (
            f"Bonds {_listed(mpo.bonds)}{smaller}: {numbers:,} numbers instead of {dense:,} ({100 * numbers / dense:.0f} %). "
            f"Error {100 * error:.1f} % of the norm, bound {100 * bound:.1f} %. "
            f"Entropies {_listed(f'{value:.2f}' for value in kept)} nats, "
            f"uncut {_listed(f'{value:.2f}' for value in self.spectra.entropies())}."
        )

    def figure(self, *bonds: int) -> Figure:
        mpo = self.cut(bonds)
        lost = self.matrix - mpo.to_matrix()
        limit = 3 * float(self.matrix.std(correction=0)) or 1.0
        with plots.styled(3, (16, 4.4), (1.6, 1, 1)) as (figure, (left, middle, right)):
            plots.chain(left, mpo.shape, mpo.bonds)
            plots.matrix_image(middle, self.matrix - lost, limit, "What the chain keeps")
            plots.matrix_image(right, lost, limit, "What is lost")
        return figure


class ModelMap:
    """Every matrix of a model: the size of its cores and the entropy of its bonds, beside random weights.

    Parameters
    ----------
    model : a transformers model
        With dense matrices, as it was loaded.
    n_cores : int
    seed : int
        Of the re-initialised model that the trained one is compared with.
    """

    def __init__(self, model: "PreTrainedModel", n_cores: int = 5, seed: int = 0):
        torch.manual_seed(seed)
        blank = type(model)(model.config)
        self.trained, self.random = ({n: self._spectra(m, n_cores) for n, m in matrices(x)} for x in (model, blank))
        self._names = {place(name): name for name in self.trained}

    @staticmethod
    def _spectra(linear: nn.Linear, n_cores: int) -> Spectra:
        matrix = linear.weight.detach().T
        return Spectra.of(matrix, balanced_shape(*matrix.shape, n_cores))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self._names if layer is not None}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of matrices, in the order in which the model has them."""
        return tuple(dict.fromkeys(kind for _, kind in self._names))

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """Those that layers have."""
        return tuple(dict.fromkeys(kind for layer, kind in self._names if layer is not None))

    def name(self, layer: int, kind: str) -> str:
        """The model's own name for a matrix; those that no layer owns are found with any."""
        return self._names.get((layer, kind)) or self._names[None, kind]

    def entropies(self, cut: int, of: dict[str, Spectra] | None = None) -> np.ndarray:
        """Entropy of one bond, cut 1 being the first, of every layer's matrix of every kind, in nats."""
        of = self.trained if of is None else of
        names = [[self._names[layer, kind] for kind in self.layer_kinds] for layer in self.layers]
        return np.array([[of[name].entropies()[cut - 1] for name in row] for row in names])

    def in_words(self, layer: int, kind: str) -> str:
        name = self.name(layer, kind)
        shape = self.trained[name].shape
        sizes = shape.n_params_each(shape.full_bonds)
        share = 100 * sizes[shape.central] / sum(sizes)
        pairs = zip(self.trained[name].entropies(), self.random[name].entropies(), strict=True)
        return (
            f"{name}: {shape.in_size} x {shape.out_size}, bonds {_listed(shape.full_bonds)}. The central core holds {share:.1f} % "
            f"of the numbers. Entropies, trained and random: {_listed(f'{a:.2f} / {b:.2f}' for a, b in pairs)} nats."
        )

    def figure(self, layer: int, kind: str) -> Figure:
        name = self.name(layer, kind)
        spectra = {"trained": self.trained[name], "random": self.random[name]}
        shape = self.trained[name].shape
        with plots.styled(3, (16, 4.6)) as (figure, (left, middle, right)):
            plots.core_parameters(left, shape.n_params_each(shape.full_bonds), shape.central)
            plots.bond_entropies(middle, {k: s.entropies() for k, s in spectra.items()}, shape.full_bonds)
            plots.spectrum(right, {k: s.values[shape.central - 1] / s.norm for k, s in spectra.items()})
            right.set_title(f"Schmidt values of bond {shape.central}")
            right.set_ylabel("share of the norm")
        return figure


class TradeoffExplorer:
    """Accuracy against parameters as the bonds of a tuned model are cut, on record and measured anew.

    Parameters
    ----------
    record : dict
        As `tradeoff.tradeoff` returns it.
    tuned : callable, optional
        Gives the tuned model, when a first measurement asks for it; without it, the one that is shipped.
    """

    def __init__(self, record: dict, tuned: "Callable[[], Tuned] | None" = None):
        self.record = record
        self.points = {(point["part"], point["max_bond"]): point for point in record["points"]}
        self.measured: dict[tuple[str, int], dict] = {}
        self._tuned = cache(tuned or _shipped)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part for part, _ in self.points))

    @property
    def bonds(self) -> tuple[int, ...]:
        """The bonds on record, ascending."""
        return tuple(sorted({bond for _, bond in self.points}))

    def measure(self, part: str, bond: int, n: int, advance: Callable[[float], None] = lambda _: None) -> dict:
        """Evaluate a setting on the first n validation sentences, and keep the result for the picture.

        Returns
        -------
        dict : as `results.score` gives it
        """
        self.measured[part, bond] = results.score(self._tuned().right(part, bond, n, advance))
        return self.measured[part, bond]

    def entropy_kept(self, part: str, bond: int) -> float:
        """Mean entropy of the cut central bonds, as a share of what it was before the cut."""
        return self.points[part, bond]["entropy"] / self.points[part, max(self.bonds)]["entropy"]

    def in_words(self, part: str, bond: int) -> str:
        point = self.points[part, bond]
        where = "all matrices" if part == "all" else f"the {part} matrices"
        said = (
            f"Bonds of {where} at most {bond}: {point['central'] / 1e6:.2f} M central and {point['auxiliary'] / 1e6:.2f} M "
            f"auxiliary numbers, {100 * point['ratio']:.0f} % of the dense {self.record['dense'] / 1e6:.2f} M. "
            f"{100 * self.entropy_kept(part, bond):.0f} % of the central bonds' entropy kept. "
            f"On record: {_accuracy(point['validation'])} of {point['validation']['n']} validation sentences right."
        )
        if live := self.measured.get((part, bond)):
            recorded = results.right(point["validation"])[: live["n"]]
            said += (
                f" Measured here, on {live['n']} of them: {_accuracy(live)}, on record {100 * recorded.mean():.1f} %."
            )
        return said

    def figure(self, part: str, bond: int) -> Figure:
        with plots.styled(2, (15, 5.6), (2, 1)) as (figure, (left, right)):
            curves = {part: [point for point in self.record["points"] if point["part"] == part] for part in self.parts}
            measured = [(self.points[setting], score) for setting, score in self.measured.items()]
            plots.tradeoff(left, curves, self.record["chance"], self.points[part, bond], measured)
            plots.kept(
                right, self.points[part, max(self.bonds)], self.points[part, bond], self.entropy_kept(part, bond)
            )
        return figure


def _shipped() -> "Tuned":
    from mpo_tutorial.tradeoff import Tuned  # loads transformers, which a reader who only moves the slider never needs

    return Tuned.shipped()


def _accuracy(score: dict) -> str:
    low, high = score["interval"]
    return f"{100 * score['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _listed(items: Iterable) -> str:
    return ", ".join(map(str, items))
