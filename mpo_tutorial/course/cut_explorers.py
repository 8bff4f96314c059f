"""Explorers of what cutting a tuned model costs: by the bonds of its parts, and layer after layer."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mpo_tutorial.course import cut_figures, plots
from mpo_tutorial.course.cut_figures import JUDGED_BY, WAYS
from mpo_tutorial.course.explorers import listed
from mpo_tutorial.course.tables import per_cent
from mpo_tutorial.experiments import statistics
from mpo_tutorial.experiments.cut_results import MEASURES
from mpo_tutorial.models.families import KINDS
from mpo_tutorial.models.truncation import Cut

if TYPE_CHECKING:
    from mpo_tutorial.experiments.tuned import Tuned


class TradeoffExplorer:
    """What is left against parameters as the bonds of a tuned model are cut, on record and measured anew.

    A measure is one of `cut_results.MEASURES`.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    tuned : callable, optional
        Gives the tuned model, when a first measurement asks for it; without it, the one that is shipped.
    """

    def __init__(self, record: dict, tuned: "Callable[[], Tuned] | None" = None):
        self.record = record
        self.points = {(point["part"], point["max_bond"]): point for point in record["bonds"]}
        self.measured: dict[tuple[str, int], dict] = {}
        self._tuned = cache(tuned or shipped_model)

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
        dict : as `threshold.judge` gives it
        """
        tuned = self._tuned()
        cut = tuned.truncated(Cut(max_bond=bond, matrices=part))
        self.measured[part, bond] = tuned.judge(cut, n, advance)
        return self.measured[part, bond]

    def entropy_kept(self, part: str, bond: int) -> float:
        """Mean entropy of the cut central bonds, as a share of what it was before the cut."""
        return self.points[part, bond]["entropy"] / self.points[part, max(self.bonds)]["entropy"]

    def in_words(self, part: str, bond: int, measure: str = "accuracy") -> str:
        point = self.points[part, bond]
        where = "all matrices" if part == "all" else f"the {part} matrices"
        said = (
            f"Bonds of {where} at most {bond}: {point['central'] / 1e6:.2f} M central and {point['auxiliary'] / 1e6:.2f} M "
            f"auxiliary numbers, {100 * point['ratio']:.0f} % of the dense {self.record['dense'] / 1e6:.2f} M. "
            f"{100 * self.entropy_kept(part, bond):.0f} % of the central bonds' entropy kept. "
            f"On record, on {point['validation']['n']} validation sentences: {_judged(point['validation'], measure)}."
        )
        if live := self.measured.get((part, bond)):
            said += (
                f" Measured here, on {live['n']} of them: {_judged(live, measure)}{self._beside(point, live, measure)}."
            )
        return said

    @staticmethod
    def _beside(point: dict, live: dict, measure: str) -> str:
        """What the record says of the sentences that were measured; of some sentences alone it knows no AUC."""
        parts = {"accuracy": point["validation"], "refitted": point["validation"]["refitted"]}
        if measure not in parts:
            return ""
        recorded = statistics.correct_sentences(parts[measure])[: live["n"]]
        return f", on record {100 * recorded.mean():.1f} %"

    def figure(self, part: str, bond: int, measure: str = "accuracy") -> Figure:
        with plots.styled(2, (10, 5.6), (1.6, 1)) as (figure, (left, right)):
            curves = {part: [point for point in self.record["bonds"] if point["part"] == part] for part in self.parts}
            measured = [(self.points[setting], judged) for setting, judged in self.measured.items()]
            chance = self.record["chance"]["validation"]
            cut_figures.tradeoff(left, curves, chance, self.points[part, bond], measured, measure)
            cut_figures.shares_kept(
                right, self.points[part, max(self.bonds)], self.points[part, bond], self.entropy_kept(part, bond)
            )
        return figure


class DepthExplorer:
    """What cutting does to a tuned model: the states' errors, layer after layer, and what it still tells apart, on record.

    A measure is one of `cut_results.MEASURES`.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    ways : sequence of str, optional
        Of cutting, that are shown; None: all.
    """

    def __init__(self, record: dict, ways: Sequence[str] | None = None):
        self.ways = tuple(WAYS if ways is None else ways)
        shown = {*self.ways, "uncut"}
        of_them = {part: [row for row in record[part] if row["way"] in shown] for part in ("ratios", "summary")}
        self.record = record = {**record, **of_them}
        self._states: dict[tuple, dict[str, list]] = {}
        for point in record["ratios"]:
            ways = self._states.setdefault((point["part"], point["ratio"]), {})
            ways.setdefault(point["way"], []).append(point["states"])
        self._rows = {(row["way"], row["part"], row["ratio"]): row for row in record["summary"]}

    @property
    def parts(self) -> tuple[str, ...]:
        """What was cut at every ratio."""
        return tuple(dict.fromkeys(part for part, ratio in self._states if len(self.ratios_of(part)) > 1))

    @property
    def layers(self) -> tuple[str, ...]:
        """Single layers, cut at one ratio alone."""
        return tuple(part for part, _ in self._states if part.startswith("layer "))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Single kinds of matrices in all layers, cut at that same ratio."""
        return tuple(part for part, _ in self._states if part in KINDS)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Those of the parts, ascending."""
        return tuple(sorted({ratio for part in self.parts for ratio in self.ratios_of(part)}))

    def ratios_of(self, part: str) -> list[float]:
        return [ratio for found, ratio in self._states if found == part and ratio is not None]

    def states(self, part: str, ratio: float) -> dict[str, list[float]]:
        """Relative errors after each layer by way, the mean over seeds."""
        return {way: np.mean(errors, axis=0).tolist() for way, errors in self._states[part, ratio].items()}

    def measured(self, way: str, part: str, ratio: float | None, measure: str = "accuracy") -> dict:
        """Mean over seeds and interval."""
        return self._rows[way, part, ratio][measure]

    def losses_in_words(self, parts: Sequence[str], ratio: float, way: str = "plain", measure: str = "accuracy") -> str:
        """What cutting costs."""
        losses = listed(
            f"{part} {per_cent(self._rows[way, part, ratio]['minus_uncut'][measure], '+')}" for part in parts
        )
        return f"Change of {JUDGED_BY[measure][2]} in points at {100 * ratio:.0f} %, {WAYS[way][2]}: {losses}."

    def gains_in_words(self, way: str, ratio: float, measure: str = "accuracy", over: str = "plain") -> str:
        """What a way brings over the plain or the fitted one at equal parameters, paired by seeds, in each part."""
        rows = [row for row in self.record["summary"] if (row["way"], row["ratio"]) == (way, ratio)]
        minus = {row["part"]: row[f"minus_{over}"] for row in rows if f"minus_{over}" in row}
        gains = listed(f"{part} {per_cent(minus[part][measure], '+')}" for part in minus if part in self.parts)
        return (
            f"{WAYS[way][2].capitalize()} minus {WAYS[over][2]} at {100 * ratio:.0f} %, "
            f"{JUDGED_BY[measure][2]} in points: {gains}."
        )

    def in_words(self, part: str, ratio: float, measure: str = "accuracy") -> str:
        found = []
        for way, errors in self.states(part, ratio).items():
            left = self.measured(way, part, ratio, measure)
            found.append(
                f"{WAYS[way][2]}: error {errors[0]:.2f} after the first layer, {errors[-1]:.2f} after the last, "
                f"{JUDGED_BY[measure][2]} {100 * left['mean']:.1f} %{_interval(left)}"
            )
        return f"Cut in {part}, {100 * ratio:.0f} % of its parameters left. {'; '.join(found)}."

    def figure(self, part: str, ratio: float, measure: str = "accuracy") -> Figure:
        with plots.styled(2, (10, 5.8)) as (figure, (left, right)):
            cut_figures.errors_by_layer(left, self.states(part, ratio))
            cut_figures.ways_compared(right, self.record, part, ratio, measure)
        return figure


def shipped_model() -> "Tuned":
    """The tuned model in the package. Only what is called loads transformers: whoever moves a slider alone never needs it."""
    from mpo_tutorial.experiments.tuned import Tuned

    return Tuned.shipped()


def _judged(judged: dict, measure: str) -> str:
    """What a measure says: an accuracy with its interval over sentences, or an AUC."""
    left = MEASURES[measure](judged)
    if left is None:
        return f"too few of a class for the {JUDGED_BY[measure][2]}"
    interval = cut_figures.interval_of(judged, measure)
    ends = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{JUDGED_BY[measure][2]} {100 * left:.1f} %{ends}"


def _interval(found: dict) -> str:
    """Its ends times 100, where there were seeds enough for one."""
    ends = (f"{100 * end:.1f}" for end in found["interval"] or ())
    return f" [{', '.join(ends)}]" if found["interval"] else ""
