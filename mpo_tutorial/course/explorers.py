"""What a widget knows, without the widget: settings in, numbers, words and a figure out."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mpo_tutorial.course import movement_figures, plots
from mpo_tutorial.experiments.movement import RANKS, UPDATE, USUAL
from mpo_tutorial.experiments.movement_results import LARGE, SMALL, table_1_of
from mpo_tutorial.maths import states
from mpo_tutorial.maths.entropy import Spectra, entropy
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


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

    def figure(self, field: float, whole: bool = False) -> Figure:
        """The curve from the strongest field down to this one, or the whole of it beside the cat state's ln 2, and the weights."""
        values = self.schmidt_values(field)
        shown = [
            value if whole or at >= field else np.nan for at, value in zip(self.fields, self.entropies, strict=True)
        ]
        with plots.styled(2, (10, 4.6)) as (figure, (left, right)):
            plots.entropy_against_field(left, self.fields, {f"{self.n_sites} sites": shown})
            if whole:
                left.axhline(np.log(2), color=plots.GREY, lw=2, ls=":", label="ln 2")
            left.legend()
            left.set_xlim(0, 1.03 * max(self.fields))
            left.set_ylim(0, 1.15 * max(self.entropies))
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
            self._last = {bonds: self.mpo.truncate(bonds)}
        return self._last[bonds]

    def in_words(self, *bonds: int) -> str:
        mpo = self.cut(bonds)
        numbers, dense = mpo.n_params, self.matrix.numel()
        error, bound = relative_error(mpo.to_matrix(), self.matrix), self.spectra.bound(bonds, relative=True)
        kept = [entropy(values[:bond]) for values, bond in zip(self.spectra.values, mpo.bonds, strict=True)]
        smaller = "" if mpo.bonds == tuple(bonds) else f" (asked {listed(bonds)}; the neighbours cannot use more)"
        return (
            f"Bonds {listed(mpo.bonds)}{smaller}: {numbers:,} numbers instead of {dense:,} "
            f"({100 * numbers / dense:.{1 if numbers < dense / 100 else 0}f} %). "
            f"Error {100 * error:.1f} % of the norm, bound {100 * bound:.1f} %. "
            f"Entropies {listed(f'{value:.2f}' for value in kept)} nats, "
            f"uncut {listed(f'{value:.2f}' for value in self.spectra.entropies())}."
        )

    def figure(self, *bonds: int) -> Figure:
        mpo = self.cut(bonds)
        lost = self.matrix - mpo.to_matrix()
        limit = 3 * float(self.matrix.std(correction=0)) or 1.0
        with plots.wide_and_two((10, 9)) as (figure, (above, left, right)):
            plots.chain(above, mpo.shape, mpo.bonds)
            plots.matrix_image(left, self.matrix - lost, limit, "What the chain keeps")
            plots.matrix_image(right, lost, limit, "What is lost")
        return figure


class MovementExplorer:
    """How full fine-tuning moved a matrix of a model, on record: the mean over seeds.

    Parameters
    ----------
    record : dict
        As `movement_results.summarise` returns it.
    reach : bool
        Tell how much of the update is in reach, and show it by rank.
    """

    def __init__(self, record: dict, *, reach: bool = True):
        self._tells_reach = reach
        self._rows: dict[tuple[int | None, str], list[dict]] = {}
        for row in record["matrices"]:
            self._rows.setdefault((row["layer"], row["kind"]), []).append(row)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self._rows if layer is not None}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of matrices, in the order in which the model has them."""
        return tuple(dict.fromkeys(kind for _, kind in self._rows))

    def rows(self, layer: int, kind: str) -> list[dict]:
        """Of a matrix what each seed says; one that no layer owns is found with any."""
        return self._rows.get((layer, kind)) or self._rows[None, kind]

    def mean(self, layer: int, kind: str, what: str) -> np.ndarray:
        """Over the seeds, of "moved", "rows", "sizes" or "spectrum"."""
        return np.mean([row[what] for row in self.rows(layer, kind)], axis=0)

    def in_reach(self, layer: int, kind: str) -> tuple[float, float, float] | None:
        """Of the update the share in reach of trained cores, the share of dimensions, and that of a matrix of low rank."""
        rows = self.rows(layer, kind)
        if "gains" not in rows[0]:
            return None
        dimension = rows[0]["dimension"]
        share = dimension * float(np.mean([row["gains"][UPDATE][USUAL] for row in rows]))
        return share, dimension, float(np.mean([row["low_rank"][UPDATE] for row in rows]))

    def in_words(self, layer: int, kind: str) -> str:
        first, *_ = rows = self.rows(layer, kind)
        norm, touched = (100 * self.mean(layer, kind, what) for what in ("moved", "rows"))
        small, middle, large = (100 * share for share in table_1_of(self.mean(layer, kind, "sizes")))
        said = (
            f"{first['name']}, {' x '.join(map(str, first['size']))}, mean of {len(rows)} seeds: full fine-tuning moved it by "
            f"{norm:.2f} % of its norm. {small:.0f} % of its numbers changed by at most {SMALL:g}, {middle:.0f} % by at most "
            f"{LARGE:g}, {large:.0f} % by more."
        )
        if touched < 100:
            in_moved = 100 * table_1_of(self.mean(layer, kind, "sizes"), touched / 100)[0]
            said += f" {100 - touched:.0f} % of its rows did not change at all; of the numbers in the others "
            said += f"{in_moved:.0f} % changed by at most {SMALL:g}."
        if self._tells_reach and (found := self.in_reach(layer, kind)):
            share, dimension, low_rank = (100 * value for value in found)
            said += (
                f" Trained cores have {share:.1f} % of the update in reach, with {dimension:.1f} % of the dimensions; the best "
                f"matrix of low rank with as many holds {low_rank:.0f} %."
            )
        return said

    def figure(self, layer: int, kind: str) -> Figure:
        with plots.styled(2 if self._tells_reach else 1, (10 if self._tells_reach else 6.5, 4.8)) as (figure, axes):
            movement_figures.sizes_of_changes(axes[0], self.mean(layer, kind, "sizes"))
            if self._tells_reach:
                kept, found = self.mean(layer, kind, "spectrum"), self.in_reach(layer, kind)
                movement_figures.update_by_rank(axes[1], RANKS, kept, found and found[0])
        return figure


def listed(items: Iterable) -> str:
    """Items in a sentence."""
    return ", ".join(map(str, items))
