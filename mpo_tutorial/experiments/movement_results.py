"""What the study of movement says: how far each kind of matrix moved, and how much is in reach, over seeds."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import mean

from mpo_tutorial.experiments.movement import CHANGES, DRAWN, EDGES, USUAL, shape_of, ways_of
from mpo_tutorial.experiments.statistics import over_seeds
from mpo_tutorial.experiments.study import Point
from mpo_tutorial.maths.reach import dimension
from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models.families import place

# Liu et al. 2021, Table 1, BERT on SST-2: the bounds of small and of large changes, and the shares of numbers that changed little,
# more, and much.
SMALL, LARGE = 1e-4, 1e-3
SIZES = ("small", "middle", "large")
TABLE_1 = {"embedding": (0.66, 0.26, 0.09), "feed-forward": (0.09, 0.64, 0.27), "attention": (0.09, 0.64, 0.27)}
MOVED_ROWS = "rows that moved"
# What a reader calls ways of putting a matrix between two blocks; draws go together.
NAMES = {
    **dict.fromkeys(DRAWN, "random order"),
    **{name: f"legs {name}" for name in ("in, out", "out, in", "centre in", "centre out")},
    **{name: f"order by {name}" for name in ("norms", "singular vectors")},
    "gradient": "order by the gradient",
}


def summarise(points: Sequence[Point]) -> dict:
    """The study's points in the form that explorers and figures take.

    Returns
    -------
    dict
        "seeds". "matrices": rows with seed, name, layer, kind, part, size, moved, rows, sizes, spectrum; those in reach's account
        with "gains", of each change by way the share in reach over the share of dimensions, and "dimension", the share of
        dimensions with the usual legs, and "low_rank". "kinds" and "parts": of each, over seeds, "moved", "small", "middle",
        "large", "rows": means over its matrices, those of `table_1_of` weighted by their sizes; "in_moved_rows" the three of the
        rows that changed at all, where not all did. "reach": of each change and way "gain" and
        "minus_usual", over seeds the mean over matrices of the gain and of its difference from the usual legs', and "least" and
        "most" of the matrices' own means over seeds. "low_rank": of each change, over seeds, the mean over matrices.
    """
    rows = [_row(point, name) for point in points for name in point["result"]["matrices"]]
    seeds = sorted({row["seed"] for row in rows})
    reached = [row for row in rows if "gains" in row]
    ways = list(dict.fromkeys(way for row in reached for way in row["gains"][CHANGES[0]]))
    return {
        "seeds": seeds,
        "matrices": rows,
        "kinds": {kind: _movement([row for row in rows if row["kind"] == kind]) for kind in _each(rows, "kind")},
        "parts": {part: _movement([row for row in rows if row["part"] == part]) for part in _each(rows, "part")},
        "reach": {change: {way: _gain(reached, change, way) for way in ways} for change in CHANGES},
        "low_rank": {change: _over(reached, lambda row, c=change: row["low_rank"][c]) for change in CHANGES},
    }


def table_1_of(sizes: Sequence[float], rows: float = 1) -> tuple[float, float, float]:
    """Of the numbers in the rows that changed at all: the shares that changed by at most `SMALL`, by at most `LARGE`, by more.

    Parameters
    ----------
    sizes : sequence of float
        As in `movement.moved`, of all numbers.
    rows : float
        The share of rows that changed; 1 gives the shares of all numbers.
    """
    small, large = (sum(sizes[: EDGES.index(bound) + 1]) for bound in (SMALL, LARGE))
    return (small - (1 - rows)) / rows, (large - small) / rows, (sum(sizes) - large) / rows


def _row(point: Point, name: str) -> dict:
    setting, result = point["setting"], point["result"]["matrices"][name]
    row = {"seed": setting["config"]["seed"], "name": name, **place(name)._asdict(), **result}
    if "shares" not in result:
        return row
    dimensions = {way: _dimension(setting["legs"].get(way, N_CORES), tuple(result["size"])) for way in ways_of(setting)}
    gains = {}
    for change, shares in row.pop("shares").items():
        found: dict[str, list[float]] = {}
        for way, share in zip(ways_of(setting), shares, strict=True):
            if share is not None:
                found.setdefault(NAMES.get(way, way), []).append(share / dimensions[way])
        gains[change] = {way: mean(values) for way, values in found.items()}
    return {**row, "dimension": dimensions[USUAL], "gains": gains}


@lru_cache
def _dimension(legs: int | str, size: tuple[int, int]) -> float | None:
    """The share of dimensions that are in reach; None where the legs are for other sizes."""
    shape = shape_of(legs, size)
    return shape and dimension(shape) / (size[0] * size[1])


def _each(rows: Sequence[dict], what: str) -> list[str]:
    return list(dict.fromkeys(row[what] for row in rows))


def _over(rows: Sequence[dict], value: Callable[[dict], float], weight: Callable[[dict], float] = lambda _: 1) -> dict:
    """Over seeds, the mean over matrices."""
    seeds = sorted({row["seed"] for row in rows})
    weights = {seed: sum(weight(row) for row in rows if row["seed"] == seed) for seed in seeds}
    return over_seeds(
        [sum(weight(row) * value(row) for row in rows if row["seed"] == seed) / weights[seed] for seed in seeds]
    )


def _movement(rows: Sequence[dict]) -> dict:
    def size(row: dict) -> int:
        return row["size"][0] * row["size"][1]

    found: dict = {name: _over(rows, lambda row, name=name: row[name]) for name in ("moved", "rows")}
    for k, name in enumerate(SIZES):
        found[name] = _over(rows, lambda row, k=k: table_1_of(row["sizes"])[k], size)
    if found["rows"]["mean"] < 1:
        found["in_moved_rows"] = {
            name: _over(rows, lambda row, k=k: table_1_of(row["sizes"], row["rows"])[k], size)
            for k, name in enumerate(SIZES)
        }
    return found


def _gain(rows: Sequence[dict], change: str, way: str) -> dict:
    rows = [row for row in rows if way in row["gains"][change]]
    by_name: dict[str, list[float]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row["gains"][change][way])
    means = [mean(values) for values in by_name.values()]
    return {
        "gain": _over(rows, lambda row: row["gains"][change][way]),
        "minus_usual": _over(rows, lambda row: row["gains"][change][way] - row["gains"][change][USUAL]),
        "least": min(means),
        "most": max(means),
    }


def movement_table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of how far each kind moved, as text; the paper's Table 1 for our model."""
    head = ("matrix", "moved (%) [95 %]", f"up to {SMALL:g} (%)", "between (%)", f"above {LARGE:g} (%)")
    rows = []
    for kind, found in summarise(points)["kinds"].items():
        rows.append((kind, _text(found["moved"], 100, 2), *(_text(found[name], 100, 1) for name in SIZES)))
        if among := found.get("in_moved_rows"):
            rows.append((f"{kind}, {MOVED_ROWS}", "", *(_text(among[name], 100, 1) for name in SIZES)))
    return head, rows


def reach_table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of what is in reach, in shares of the dimensions, as text."""
    reach = summarise(points)["reach"]
    head = ("way", *(f"{change}: times the dimensions' share [95 %]" for change in CHANGES))
    ways = reach[CHANGES[0]]
    return head, [(way, *(_text(reach[change][way]["gain"], 1, 3) for change in CHANGES)) for way in ways]


def _text(found: dict, scale: float, digits: int) -> str:
    ends = (
        ""
        if found["interval"] is None
        else " [{:.{d}f}, {:.{d}f}]".format(*(scale * e for e in found["interval"]), d=digits)
    )
    return f"{scale * found['mean']:.{digits}f}{ends}"
