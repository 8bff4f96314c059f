"""Figures of comparisons of ways of fine-tuning, and the explorer of their rates."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpo_tutorial.course import plots
from mpo_tutorial.course.plots import BLUE, COLOURS, GREY, ORANGE, ends_of

MARKERS = ("o", "s", "D", "^", "v", "P")


def rates(ax: Axes, summary: dict, names: Sequence[str]) -> Axes:
    """Accuracy while tuning against the learning rate, a line for each of the named variants.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` returns it.
    """
    all_means = [found["mean"] for name in names for found in summary["rates"][name].values()]
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        of_rate = dict(sorted(summary["rates"][name].items()))
        means = np.array([found["mean"] for found in of_rate.values()])
        ends = np.array([ends_of(found) for found in of_rate.values()]).T
        ax.errorbar(
            [*of_rate], 100 * means, 100 * np.abs(ends - means), color=colour, marker=marker, ms=8, lw=2.5, label=name
        )
    ax.set_xscale("log")
    # The longest bars, of a few seeds that lie far apart, leave the picture.
    ax.set_ylim(100 * min(all_means) - 5, 100 * max(all_means) + 8)
    ax.legend(loc="lower left")
    ax.set_title("Accuracy while tuning")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("% right, 95 % over seeds")
    return ax


def differences(ax: Axes, summary: dict, names: Sequence[str], margin: float) -> Axes:
    """By how much each of the named variants is better than what it is set against, on the test set, and the margin.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` returns it.
    margin : float
        As in `Comparison`.
    """
    for k, name in enumerate(names):
        found = summary["variants"][name]["minus_beside"]
        low, high = (100 * end for end in ends_of(found))
        mean = 100 * found["mean"]
        ax.errorbar([mean], [k], xerr=[[mean - low], [high - mean]], fmt="o", color=BLUE, ms=9, lw=3, capsize=5)
    ax.axvline(0, color="black", lw=1.5)
    ax.axvline(-100 * margin, color=ORANGE, ls="--", lw=2, label=f"margin, {100 * margin:g} point")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16))
    ax.set_title("Test accuracy, minus full fine-tuning's")
    ax.set_xlabel("points, 95 % over seeds")
    ax.set_ylabel("")
    return ax


def differences_in_words(summary: dict, names: Sequence[str]) -> str:
    """The figure of `differences` as a sentence."""
    found = {name: summary["variants"][name]["minus_beside"] for name in names}
    said = (
        f"{name} {100 * f['mean']:+.1f} [{100 * ends_of(f)[0]:+.1f}, {100 * ends_of(f)[1]:+.1f}]"
        for name, f in found.items()
    )
    return f"Points of test accuracy, minus full fine-tuning's, with 95 % intervals over seeds: {'; '.join(said)}."


class RateExplorer:
    """What a learning rate makes of a variant, on record, beside the others.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` returns it.
    names : mapping of str to str
        Variants that share a grid of rates, by what the reader is told.
    """

    def __init__(self, summary: dict, names: dict[str, str]):
        self._found = {told: summary["rates"][name] for told, name in names.items()}
        self.names = (*names,)
        self.rates = tuple(sorted(set.intersection(*(set(of) for of in self._found.values()))))

    def in_words(self, name: str, rate: float) -> str:
        found, best = self._found[name][rate], self.best(name)
        low, high = (100 * end for end in ends_of(found))
        other = self._found[name][best]["mean"]
        said = f"{name} at the rate {rate:g}: {100 * found['mean']:.1f} % right [{low:.1f}, {high:.1f}], {found['seeds']} seeds. "
        if rate == best:
            return said + "That is its best rate."
        return said + f"Its best rate is {best:g}, with {100 * other:.1f} %."

    def best(self, name: str) -> float:
        return max(self._found[name], key=lambda rate: self._found[name][rate]["mean"])

    def figure(self, name: str, rate: float) -> Figure:
        with plots.styled(1, (10, 5)) as (figure, (ax,)):
            rates(ax, {"rates": self._found}, self.names)
            ax.axvline(rate, color=GREY, ls=":", lw=2)
            ax.plot([rate], [100 * self._found[name][rate]["mean"]], "o", ms=18, mfc="none", mec="black", mew=2)
        return figure
