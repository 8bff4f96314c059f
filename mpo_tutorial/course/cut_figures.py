"""Figures of what cutting costs: what a model still tells apart against what is left of its matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mpo_tutorial.course.plots import BLACK, BLUE, GREEN, GREY, ORANGE, YELLOW, ends_of
from mpo_tutorial.experiments.cut_results import MEASURES

# Ways of cutting: colour, marker, and what they are called.
WAYS = {
    "plain": (BLUE, "o", "plain"),
    "allotted": (GREY, "^", "plain, allotted"),
    "bias": (ORANGE, "s", "means corrected"),
    "fitted": (GREEN, "D", "fitted chain"),
    "fitted, allotted": (YELLOW, "v", "fitted, allotted"),
    "two factors": (BLACK, "P", "two fitted factors"),
}
# What a cut model is judged by: colour, marker, and what it is called.
JUDGED_BY = {
    "accuracy": (BLUE, "o", "accuracy"),
    "refitted": (GREEN, "D", "accuracy, bias fitted again"),
    "auc": (ORANGE, "s", "AUC"),
}


def truncation_curve(ax: Axes, curve: list[dict], chance: float) -> Axes:
    """What is left of a model when the bonds of its matrices are cut, without retraining: accuracy, fitted bias, AUC.

    Parameters
    ----------
    curve : list of dict
        As in a demo's record: "max_bond", "ratio" and "validation" of each point.
    chance : float
        Accuracy of always giving the commonest answer.
    """
    ratios = [100 * point["ratio"] for point in curve]
    lows, highs = zip(*([100 * end for end in point["validation"]["interval"]] for point in curve), strict=True)
    ax.fill_between(ratios, lows, highs, color=BLUE, alpha=0.15, lw=0)
    tops = [*highs]
    for measure, (colour, marker, name) in JUDGED_BY.items():
        found = [MEASURES[measure](point["validation"]) for point in curve]
        if None not in found:
            ax.plot(ratios, [100 * value for value in found], marker + "-", color=colour, ms=8, lw=2.5, label=name)
            tops += [100 * value for value in found]
    for k, point in enumerate(curve):
        place = (ratios[k], 100 * point["validation"]["accuracy"])
        style = {"textcoords": "offset points", "ha": "center", "va": "top", "color": BLUE}
        ax.annotate(point["max_bond"], place, (0, -12), **style)
    ax.axhline(100 * chance, color=GREY, ls=":", lw=2)
    ax.annotate("guessing", (97, 100 * chance), (0, -6), textcoords="offset points", ha="right", va="top", color=GREY)
    ax.axvline(100, color=GREY, ls="--", lw=1.5)
    ax.annotate("size of the \ndense matrices ", (100, max(tops) + 2), ha="right", va="bottom", color=GREY)
    ax.set_ylim(100 * chance - 8, max(tops) + 10)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    ax.set_title("Cut the bonds, no more training")
    ax.set_xlabel("parameters left in the matrices (% of dense)")
    ax.set_ylabel("on validation sentences (%)")
    return ax


def tradeoff(
    ax: Axes,
    curves: dict[str, list[dict]],
    chance: float,
    chosen: dict,
    measured: Sequence[tuple[dict, dict]] = (),
    measure: str = "accuracy",
) -> Axes:
    """What is left against parameters as bonds are cut in some part of a model, with one point chosen.

    Parameters
    ----------
    curves : dict of lists of points
        By part; points as in `cut_results.summarise`, under "bonds".
    chance : float
        Accuracy of always giving the commonest answer.
    chosen : dict
        The point to mark.
    measured : pairs of a point and what `threshold.judge` gives
        The same settings, measured anew.
    measure : str
        Of `cut_results.MEASURES`.
    """

    def height(judged: dict) -> float:
        return 100 * MEASURES[measure](judged)

    for (part, points), colour, marker in zip(curves.items(), (BLUE, ORANGE, GREEN), "osD", strict=False):
        x, y = [100 * p["ratio"] for p in points], [height(p["validation"]) for p in points]
        wide = 5 if part == "all" else 2  # where curves coincide, the one beneath is seen
        ax.plot(x, y, marker + "-", color=colour, ms=3 * wide**0.5 + 2, lw=wide, label=f"cut: {part}")
    x, y = 100 * chosen["ratio"], height(chosen["validation"])
    low, high = (100 * end for end in interval_of(chosen["validation"], measure) or (y / 100, y / 100))
    ax.errorbar(x, y, [[y - low], [high - y]], fmt="o", ms=17, mfc="none", mew=3, color="black", capsize=8, lw=2.5)
    for k, (point, judged) in enumerate(measured):
        label = "measured here" if k == 0 else None
        ax.plot(100 * point["ratio"], height(judged), "X", ms=14, color="black", mec="white", label=label)
    level = 100 * guessing(chance, measure)
    ax.axhline(level, color=GREY, ls=":", lw=2)
    ax.annotate("guessing", (0, level), (0, -6), textcoords="offset points", va="top", color=GREY)
    ax.axvline(100, color=GREY, ls="--", lw=1.5)
    ax.annotate("dense ", (100, level), (0, 4), textcoords="offset points", ha="right", color=GREY)
    ax.set_ylim(level - 6, 95)
    ax.legend(loc="upper left")
    ax.set_title("Cut the bonds of a tuned model")
    ax.set_xlabel("parameters left in the matrices (% of dense)")
    ax.set_ylabel(f"{JUDGED_BY[measure][2]} (%), validation")
    return ax


def guessing(chance: float, measure: str) -> float:
    """What always giving the commonest answer, of accuracy `chance`, is judged to be."""
    return 0.5 if measure == "auc" else chance


def interval_of(judged: dict, measure: str) -> Sequence[float] | None:
    """The 95 % interval over sentences of an accuracy, as it is or with the bias fitted again; an AUC has none here."""
    return {"accuracy": judged, "refitted": judged["refitted"]}.get(measure, {}).get("interval")


def shares_kept(ax: Axes, whole: dict, chosen: dict, entropy: float) -> Axes:
    """Shares of central and auxiliary numbers and of entropy that a point of a tradeoff keeps."""
    shares = [100 * chosen[name] / whole[name] for name in ("central", "auxiliary")] + [100 * entropy]
    bars = ax.barh(["central\ncores", "auxiliary\ncores", "entropy"], shares, color=GREY)
    ax.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4)
    ax.invert_yaxis()
    ax.set_xlim(0, 118)
    ax.set_title("What the cut keeps")
    ax.set_xlabel("% of what it was at full bond")
    ax.set_ylabel("")
    return ax


def ways_compared(ax: Axes, record: dict, part: str, ratio: float | None = None, measure: str = "accuracy") -> Axes:
    """What is left of a model against what is left of a part's matrices, a line for each way of cutting, with intervals.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    ratio : float, optional
        Marked.
    measure : str
        Of `cut_results.MEASURES`.
    """
    rows = [row for row in record["summary"] if row["part"] == part]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    for k, way in enumerate(ways):
        colour, marker, name = WAYS[way]
        found = [row for row in rows if row["way"] == way]
        x = [100 * row["ratio"] + 0.6 * (k - (len(ways) - 1) / 2) for row in found]  # side by side
        y = np.array([row[measure]["mean"] for row in found])
        ends = np.array([ends_of(row[measure]) for row in found]).T
        style = {"fmt": marker + "-", "color": colour, "ms": 8, "lw": 2, "capsize": 4, "label": name}
        ax.errorbar(x, 100 * y, 100 * np.abs(ends - y), **style)
    uncut = next(row for row in record["summary"] if row["way"] == "uncut")[measure]["mean"]
    chance = guessing(record["chance"]["unused"], measure)
    for level, name, place, side in (
        (uncut, "uncut", 0.02, "left"),
        (chance, "guessing", 1, "right"),
    ):  # where no curve is
        ax.axhline(100 * level, color=GREY, ls=":", lw=2)
        at = (place, 100 * level)
        ax.annotate(name, at, (0, 3), ax.get_yaxis_transform(), textcoords="offset points", ha=side, color=GREY)
    if ratio is not None:
        ax.axvline(100 * ratio, color=GREY, lw=6, alpha=0.3, zorder=0)
    ax.set_xlim(right=88)
    ax.set_ylim(45, 95)
    if len(ways) > 1:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.set_title(f"{_capital(JUDGED_BY[measure][2])}, cut: {part}")
    ax.set_xlabel("numbers left in the part (%)")
    ax.set_ylabel(f"{JUDGED_BY[measure][2]} (%; bars: 95 %)")
    return ax


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def losses(ax: Axes, record: dict, parts: Sequence[str], measure: str = "accuracy") -> Axes:
    """What is lost when single parts are cut, by way of cutting, with intervals; by a measure of `cut_results.MEASURES`."""
    rows = {(row["part"], row["way"]): row for row in record["summary"] if row["ratio"] == record["layer_ratio"]}
    ways = [way for way in ("plain", "fitted") if all((part, way) in rows for part in parts)]
    for k, way in enumerate(ways):
        colour, marker, name = WAYS[way]
        found = [rows[part, way]["minus_uncut"][measure] for part in parts]
        y, ends = np.array([loss["mean"] for loss in found]), np.array([ends_of(loss) for loss in found]).T
        x = np.arange(len(parts)) + 0.2 * (k - (len(ways) - 1) / 2)
        ax.errorbar(x, 100 * y, 100 * np.abs(ends - y), fmt=marker, color=colour, ms=10, lw=2.5, capsize=5, label=name)
    ax.axhline(0, color=GREY, ls=":", lw=2)
    ax.set_xticks(range(len(parts)), [part.replace("-", "-\n").replace(" ", "\n") for part in parts])
    if len(ways) > 1:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    ax.set_title(f"{_capital(JUDGED_BY[measure][2])}, one cut to {100 * record['layer_ratio']:.0f} %")
    ax.set_xlabel("")
    ax.set_ylabel(f"change of {JUDGED_BY[measure][2]}\n(points; bars: 95 %)")
    return ax


def errors_by_layer(ax: Axes, errors: dict[str, Sequence[float]]) -> Axes:
    """Relative error of the states after each layer of the encoder, a line for each way of cutting."""
    for way, values in errors.items():
        colour, marker, name = WAYS[way]
        ax.plot(range(len(values)), values, marker + "-", color=colour, ms=9, lw=2.5, label=name)
    ax.set_ylim(0, 1.45)
    if len(errors) > 1:
        ax.legend(loc="best")
    ax.set_title("Error through the depth")
    ax.set_xlabel("after layer")
    ax.set_ylabel("error / norm of the states")
    return ax
