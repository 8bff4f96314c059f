"""Figures. Each function draws into the axes that it is given and returns them; none trains."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO

import numpy as np
from matplotlib import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from mpo_tutorial.maths.shapes import Shape

# Okabe and Ito's palette, made to be told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
YELLOW, BLACK = "#E69F00", "black"
COLOURS = (BLUE, ORANGE, GREEN, GREY, YELLOW, "#56B4E9")  # in the order in which unnamed lines get them
WIDEST = 10  # inches; on a page of 720 pixels the text of such a figure is as tall as the page's
STYLE = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "font.size": 15.5,
    "axes.titlesize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def ends_of(found: dict) -> Sequence[float]:
    """The ends of an interval over seeds; where a single seed gives none, the mean twice."""
    return found["interval"] or (found["mean"], found["mean"])


def ellipse(ax: Axes, matrix: np.ndarray) -> Axes:
    """What a 2 x 2 matrix makes of the unit circle: an ellipse whose half axes are the singular values."""
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    ax.plot(*circle, color=GREY, lw=2, ls="--")
    ax.plot(*(matrix @ circle), color=BLUE, lw=3)
    u, s, vh = np.linalg.svd(matrix)
    for k, colour in enumerate((ORANGE, GREEN)):
        ax.annotate(
            "", vh[k], (0, 0), arrowprops={"arrowstyle": "->", "shrinkB": 0, "color": colour, "lw": 2, "ls": "--"}
        )
        ax.annotate("", s[k] * u[:, k], (0, 0), arrowprops={"arrowstyle": "->", "shrinkB": 0, "color": colour, "lw": 3})
    ax.set_aspect("equal")
    ax.set_title("Circle in, ellipse out")
    ax.set_xlabel("first coordinate")
    ax.set_ylabel("second coordinate")
    return ax


def spectrum(ax: Axes, spectra: dict[str, np.ndarray], cut: int | None = None) -> Axes:
    """Singular values of some matrices, by name, and where a cut keeps those to the left of it."""
    for (name, values), colour, style in zip(spectra.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=False):
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, lw=3, ls=style, label=name)
    if cut is not None:
        ax.axvline(cut + 0.5, color=GREY, lw=2)
        ax.axvspan(cut + 0.5, max(map(len, spectra.values())), color=GREY, alpha=0.12, lw=0)
    if len(spectra) > 1:
        ax.legend()
    ax.set_ylim(bottom=0)
    ax.set_title("Singular values")
    ax.set_xlabel("number, largest first")
    ax.set_ylabel("singular value")
    return ax


def matrix_image(ax: Axes, matrix: np.ndarray, limit: float, title: str) -> Axes:
    """A matrix as an image: white is 0, the darkest orange and blue are minus and plus `limit`."""
    colours = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, "#FFFFFF", BLUE])
    ax.imshow(np.asarray(matrix), cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.locator_params(nbins=3)
    ax.grid(False)
    ax.set_title(title)
    ax.set_xlabel("column")
    ax.set_ylabel("row")
    return ax


def chain(ax: Axes, shape: Shape, bonds: Sequence[int]) -> Axes:
    """An MPO drawn: bonds as wide as their dimension, their full width behind them, cores as large as what they hold.

    Out legs point up and in legs down. The central core is a square.
    """
    ends, full = (1, *bonds, 1), shape.full_bonds
    for k, (bond, whole) in enumerate(zip(bonds, full, strict=True)):
        for size, colour in ((whole, "#DDDDDD"), (bond, BLUE)):
            ax.plot([k, k + 1], [0, 0], color=colour, lw=1 + 17 * size / max(full), solid_capstyle="butt", zorder=1)
        ax.annotate(bond, (k + 0.5, 0), (0, 13), textcoords="offset points", ha="center", color=BLUE, weight="bold")
    for k, (in_leg, out_leg) in enumerate(zip(shape.in_legs, shape.out_legs, strict=True)):
        size = ends[k] * in_leg * out_leg * ends[k + 1]
        central = k == shape.central
        ax.plot([k, k], [-1, 1], color=GREY, lw=2, zorder=0)
        look = {"color": ORANGE, "marker": "s"} if central else {"color": GREEN, "marker": "o"}
        ax.scatter(k, 0, s=500 + 8 * size**0.5, zorder=2, **look)
        ax.annotate(f"{size:,}", (k, -0.52), (8, 0), textcoords="offset points", va="center", size=12)
        for leg, height, side in ((in_leg, -1.05, "top"), (out_leg, 1.05, "bottom")):
            ax.annotate(leg, (k, height), ha="center", va=side)
    ax.set_xlim(-0.4, shape.n_cores - 0.4)
    ax.set_ylim(-1.5, 1.5)
    ax.axis("off")
    ax.set_title("Out legs up, in legs down, numbers per core")
    return ax


def contraction(ax: Axes, n_cores: int) -> Axes:
    """The definition of an MPO: above, cores whose common bonds are summed over; below, one entry as a product of matrices."""
    last = n_cores - 1
    for k in range(n_cores):
        ax.plot([k, k], [-0.75, 0.75], color=GREY, lw=2, zorder=0)
        ax.scatter(k, 0, s=1500, color=GREEN, zorder=2)
        ax.annotate(f"$T_{k}$", (k, 0), ha="center", va="center", color="white", zorder=3)
        for letter, height, side in (("i", -0.8, "top"), ("j", 0.8, "bottom")):
            ax.annotate(f"${letter}_{k + 1}$", (k, height), ha="center", va=side)
        rows, columns = (0.12 if edge else 0.42 for edge in (k == 0, k == last))
        ax.add_patch(Rectangle((k - columns / 2, -2.1 - rows), columns, 2 * rows, color=BLUE, alpha=0.35))
        names = ("1" if k == 0 else f"d_{k}", "1" if k == last else f"d_{k + 1}")
        ax.annotate(f"${names[0]} \\times {names[1]}$", (k, -2.65), ha="center", va="top", color=BLUE)
        ax.annotate(f"$T_{k}[i_{k + 1}, j_{k + 1}]$", (k, -1.58), ha="center", va="bottom")
    for k in range(last):
        ax.plot([k, k + 1], [0, 0], color=BLUE, lw=4, zorder=1)
        ax.annotate(f"$a_{k + 1}$", (k + 0.5, 0.08), ha="center", va="bottom", color=BLUE)
    ax.set_xlim(-0.5, last + 0.5)
    ax.set_ylim(-3.1, 1.25)
    ax.axis("off")
    return ax


def core_parameters(ax: Axes, sizes: Sequence[int], central: int) -> Axes:
    """How many numbers each core holds, with its share of them all."""
    colours = [ORANGE if k == central else GREEN for k in range(len(sizes))]
    bars = ax.bar(range(len(sizes)), sizes, color=colours)
    shares = [100 * size / sum(sizes) for size in sizes]
    ax.bar_label(bars, [f"{share:.1f} %" if share >= 0.1 else "<0.1 %" for share in shares], padding=3)
    ax.set_xticks(range(len(sizes)))
    ax.margins(y=0.15)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    ax.set_title("Numbers per core")
    ax.set_xlabel("core (orange: the central one)")
    ax.set_ylabel("parameters")
    return ax


def bond_entropies(ax: Axes, entropies: dict[str, Sequence[float]], bonds: Sequence[int]) -> Axes:
    """Entropies of the bonds of some matrices, by name, and the most that each bond can have, ln d."""
    places = np.arange(1, len(bonds) + 1)
    ax.bar(places, np.log(bonds), color="#DDDDDD", label="most: ln d")
    for (name, values), colour, marker in zip(entropies.items(), (BLUE, ORANGE), "os", strict=False):
        ax.plot(places, values, marker, color=colour, ms=11, label=name)
    ax.set_xticks(places, [f"{place}\nd = {bond}" for place, bond in zip(places, bonds, strict=True)])
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, columnspacing=1, handletextpad=0.4)
    ax.set_title("Entropy of each bond")
    ax.set_xlabel("bond")
    ax.set_ylabel("entropy (nats)")
    return ax


def heat_map(ax: Axes, values: np.ndarray, rows: Sequence[int], columns: Sequence[str], label: str) -> Axes:
    """A table as colours, its numbers written in: bright is much."""
    low, high = values.min(), values.max()
    image = ax.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < (low + high) / 2 else "black"
        ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, size=13)
    ax.set_xticks(range(len(columns)), [column.replace(" ", "\n").replace("-", "-\n") for column in columns], size=13)
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set_xlabel("matrix")
    ax.set_ylabel("layer")
    return ax


def error_against_bound(ax: Axes, bonds: Sequence[int], errors: Sequence[float], bounds: Sequence[float]) -> Axes:
    """Relative errors of truncations to some bond dimensions, and what the Schmidt values promise (Eq. 4)."""
    ax.plot(bonds, 100 * np.asarray(bounds), "s--", color=ORANGE, ms=8, lw=2.5, label="bound")
    ax.plot(bonds, 100 * np.asarray(errors), "o-", color=BLUE, ms=8, lw=2.5, label="error")
    ax.legend()
    ax.set_ylim(bottom=0)
    ax.set_title("What a cut costs")
    ax.set_xlabel("largest bond dimension")
    ax.set_ylabel("error (% of the norm)")
    return ax


def entropy_against_field(ax: Axes, fields: Sequence[float], curves: dict[str, Sequence[float]]) -> Axes:
    """Entropy of half an Ising ring against the field, a curve a size."""
    styles = zip(curves.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=False)
    for (name, entropies), colour, style in styles:
        ax.plot(fields, entropies, color=colour, lw=3, ls=style, label=name)
    ax.set_ylim(bottom=0)
    ax.set_title("Entropy of half the ring")
    ax.set_xlabel("field h (units of J)")
    ax.set_ylabel("entropy (nats)")
    return ax


def entropy_against_cut(ax: Axes, curves: dict[str, Sequence[float]], n_sites: int) -> Axes:
    """Entropies of states at the cuts of a chain of two-level sites, by name, under the most that a cut allows."""
    cuts = np.arange(1, n_sites)
    ax.fill_between(cuts, np.minimum(cuts, n_sites - cuts) * np.log(2), color=GREY, alpha=0.15, lw=0, label="possible")
    styles = zip(curves.items(), (BLUE, ORANGE, GREEN, "black"), "osD^", strict=False)
    for (name, entropies), colour, marker in styles:
        ax.plot(cuts, entropies, marker + "-", color=colour, ms=8, lw=2.5, label=name)
    ax.legend()
    ax.set_title("Entropy, wherever one cuts")
    ax.set_xlabel("sites left of the cut")
    ax.set_ylabel("entropy (nats)")
    return ax


def weights(ax: Axes, probabilities: np.ndarray, most: int = 8) -> Axes:
    """The largest squared Schmidt values of a cut."""
    shown = np.zeros(most)
    shown[: len(probabilities[:most])] = probabilities[:most]
    ax.bar(np.arange(1, most + 1), shown, color=BLUE)
    ax.set_ylim(0, 1.05)
    ax.set_title("Where the weight sits")
    ax.set_xlabel("Schmidt value, largest first")
    ax.set_ylabel("squared Schmidt value")
    return ax


@contextmanager
def styled(
    columns: int, size: tuple[float, float], widths: Sequence[float] | None = None, rows: int = 1
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure of some panels in a row, or in several, in the course's style.

    Raises
    ------
    ValueError
        If it is wider than `WIDEST`, so that its text would be smaller than the page's.
    """
    import matplotlib.pyplot as plt

    _require_narrow(size)
    with plt.rc_context(STYLE):
        options = {"layout": "constrained", "width_ratios": widths, "squeeze": False}
        figure, axes = plt.subplots(rows, columns, figsize=size, **options)
        yield figure, axes.ravel()


@contextmanager
def wide_and_two(size: tuple[float, float]) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure of a panel as wide as it is and two below it, in the course's style. Errors as in `styled`."""
    import matplotlib.pyplot as plt

    _require_narrow(size)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplot_mosaic("AA;BC", figsize=size, layout="constrained")
        yield figure, [*axes.values()]


def _require_narrow(size: tuple[float, float]) -> None:
    if size[0] > WIDEST:
        raise ValueError(f"a figure is at most {WIDEST} inches wide, got {size[0]}; put its panels below each other")


def low_rank_picture(matrix: np.ndarray, approximation: np.ndarray, values: np.ndarray, rank: int) -> Figure:
    """A matrix, its approximation, what is lost, and the singular values with the cut."""
    limit = 3 * float(matrix.std()) or 1.0
    with styled(2, (10, 8.6), rows=2) as (figure, axes):
        matrix_image(axes[0], matrix, limit, "The matrix")
        matrix_image(axes[1], approximation, limit, f"Rank {rank}")
        matrix_image(axes[2], matrix - approximation, limit, "What is lost")
        spectrum(axes[3], {"matrix": values}, rank)
    return figure


def html(figure: Figure, alt_text: str) -> str:
    """A figure as HTML: an image with its description, which JupyterLab shows no other way. The figure is closed."""
    import matplotlib.pyplot as plt

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=104)
    plt.close(figure)
    picture = b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(alt_text)}" style="max-width: 100%" src="data:image/png;base64,{picture}">'


def show(figure: Figure, alt_text: str, caption: bool = False) -> None:
    """Display a figure in a notebook, with its description for those who cannot see it, and close it.

    With a `caption` the description stands above the picture, too, for all to read.
    """
    from IPython.display import HTML, display

    above = f"<p>{escape(alt_text)}</p>" if caption else ""
    display(HTML(above + html(figure, alt_text)))
