"""The ledger: what each matrix of a model holds before and after it becomes an MPO."""

from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from torch import nn

from mpo_tutorial.models.families import matches, place
from mpo_tutorial.models.layers import MPOLayer


@dataclass(frozen=True)
class Row:
    """One matrix. `error` is relative, in the Frobenius norm, None if there are no weights; `padding` as in `Shape`."""

    name: str
    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]
    bonds: tuple[int, ...]
    dense: int
    central: int
    auxiliary: int
    error: float | None
    padding: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, name: str, layer: MPOLayer, error: float | None) -> "Row":
        mpo = layer.mpo
        shape, central = mpo.shape, mpo.central.numel()
        return cls(
            name=name,
            in_legs=shape.in_legs,
            out_legs=shape.out_legs,
            bonds=mpo.bonds,
            dense=shape.in_size * shape.out_size,
            central=central,
            auxiliary=mpo.n_params - central,
            error=error,
            padding=mpo.padding,
        )

    @property
    def label(self) -> str:
        """Layer and kind, as in "3 query"."""
        where = place(self.name)
        return where.kind if where.layer is None else f"{where.layer} {where.kind}"


@dataclass(frozen=True)
class Ledger:
    """Parameters of a model's matrices before and after they became MPOs."""

    HEAD: ClassVar = ("count", "in legs x out legs", "bonds", "dense", "central", "auxil.", "ratio", "error")
    MATRIX_HEAD: ClassVar = ("matrix", *HEAD[1:])

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "Ledger":
        """Of a model that has MPO layers already, shared ones once; what its matrices were is not known any more."""
        named = ((name, module) for name, module in model.named_modules() if isinstance(module, MPOLayer))
        return cls(tuple(Row.of(name, layer, None) for name, layer in named))

    def only(self, matrices: str) -> "Ledger":
        """The rows of some matrices, chosen as in `families.split_words`."""
        return Ledger(tuple(row for row in self.rows if matches(row.name, matrices)))

    def by_kind(self) -> dict[str, "Ledger"]:
        """The matrices of all layers together, query, key and so on each for itself."""
        kinds: dict[str, list[Row]] = {}
        for row in self.rows:
            kinds.setdefault(place(row.name).kind.partition(",")[0], []).append(row)
        return {kind: Ledger(tuple(rows)) for kind, rows in kinds.items()}

    @property
    def dense(self) -> int:
        return sum(row.dense for row in self.rows)

    @property
    def central(self) -> int:
        return sum(row.central for row in self.rows)

    @property
    def auxiliary(self) -> int:
        return sum(row.auxiliary for row in self.rows)

    @property
    def total(self) -> int:
        return self.central + self.auxiliary

    @property
    def ratio(self) -> float:
        """Parameters of all cores over those of the dense matrices."""
        return self.total / self.dense

    @property
    def largest_error(self) -> float | None:
        return max((row.error for row in self.rows if row.error is not None), default=None)

    def totals(self) -> dict:
        """The last line of the ledger, for a record."""
        names = ("dense", "central", "auxiliary", "total", "ratio", "largest_error")
        return {"matrices": len(self.rows), **{name: getattr(self, name) for name in names}}

    def cells(self) -> list[tuple[str, ...]]:
        """The ledger as text under `HEAD`: a line for all matrices of one shape, the sum last."""

        def shape(row: Row) -> tuple:
            return row.in_legs, row.out_legs, row.bonds, row.padding

        parts = (Ledger(tuple(rows)) for _, rows in groupby(sorted(self.rows, key=shape), shape))
        return [*(part._line(str(len(part.rows))) for part in parts), self._line(str(len(self.rows)), total=True)]

    def matrix_cells(self) -> list[tuple[str, ...]]:
        """The ledger as text under `MATRIX_HEAD`: a line a matrix, the sum last."""
        return [*(Ledger((row,))._line(row.label) for row in self.rows), self._line("total", total=True)]

    def _line(self, first: str, total: bool = False) -> tuple[str, ...]:
        row, error = self.rows[0], self.largest_error
        shown = "" if error is None else f"{error:.0e}" if error < 1e-3 else f"{error:.3f}"
        legs, bonds = ("", "") if total else (f"{_dotted(row.in_legs)} x {_dotted(row.out_legs)}", _dotted(row.bonds))
        if any(row.padding) and not total:
            legs += f", padded by {_dotted(row.padding)}"
        millions = (f"{number / 1e6:.2f} M" for number in (self.dense, self.central, self.auxiliary))
        return first, legs, bonds, *millions, f"{self.ratio:.3f}", shown


@dataclass(frozen=True)
class Trained:
    """What light fine-tuning of a model trains, counted in its encoder: a classifier's size depends on the task.

    Parameters
    ----------
    name : str
    dense : int
        Parameters of the encoder before its matrices became MPOs.
    ledger : Ledger
    """

    HEAD: ClassVar = ("model", "dense", "as MPOs", "auxiliary", "of dense", "all but central", "of dense")

    name: str
    dense: int
    ledger: Ledger

    @property
    def total(self) -> int:
        return self.dense + self.ledger.total - self.ledger.dense

    @property
    def auxiliary(self) -> int:
        """What `rest="head"` trains."""
        return self.ledger.auxiliary

    @property
    def everything(self) -> int:
        """All but the central cores, which `rest="all"` trains."""
        return self.total - self.ledger.central

    def only(self, matrices: str) -> "Trained":
        """The same with some matrices alone."""
        return Trained(self.name, self.dense, self.ledger.only(matrices))

    def cells(self) -> tuple[str, ...]:
        """The row as text under `HEAD`."""
        dense, total, auxiliary, everything = (
            f"{number / 1e6:.2f} M" for number in (self.dense, self.total, self.auxiliary, self.everything)
        )
        shares = (f"{100 * number / self.dense:.1f} %" for number in (self.auxiliary, self.everything))
        return self.name, dense, total, auxiliary, next(shares), everything, next(shares)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
