"""What `make bench-gpu` has measured, as tables: if somebody has."""

from collections.abc import Sequence

from mpo_tutorial.course.bench_tables import Table
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.gpu_bench import MOST, over_lora
from mpo_tutorial.experiments.study import Point

RECORD = "gpu"
NOBODY = "No GPU has measured this yet: `make bench-gpu` does, in about half an hour."


def shipped() -> list[Point] | None:
    """The points that came with the package, if there are any."""
    try:
        return records.shipped_points(RECORD)
    except FileNotFoundError:
        return None


def tables(points: Sequence[Point]) -> list[Table]:
    """Steps, forward passes and decompositions."""
    return [
        Table(
            "A step of training",
            ("", "model", "products", "a step", "sentences a second", "peak memory"),
            _steps(points),
        ),
        Table("A forward pass, nothing trained", ("", "model", "products", "a pass", "peak memory"), _passes(points)),
        Table("All matrices decomposed", ("model", "seconds"), _decompositions(points)),
    ]


def sentences(points: Sequence[Point]) -> list[str]:
    """Whether a light step keeps to what was asked of it beside LoRA's; and where all was measured."""
    ratios = over_lora(points)
    told = [
        f"{model}, {precision}{', compiled' * compiled}: a light step takes {ratio:.2f} of LoRA's, "
        f"{'at most' if ratio <= MOST else 'more than'} the {MOST:g} that were asked for."
        for (model, precision, compiled), ratio in ratios.items()
    ]
    machines = sorted({point["hardware"]["gpu"] or point["hardware"]["cpu"] for point in points})
    days, torches = (
        sorted({*found}) for found in ([p["date"] for p in points], [p["versions"]["torch"] for p in points])
    )
    return [*told, f"Measured from {days[0]} to {days[-1]} on {' and '.join(machines)}, torch {' and '.join(torches)}."]


def markdown(points: Sequence[Point] | None) -> str:
    if points is None:
        return NOBODY
    parts = []
    for table in tables(points):
        lines = [f"**{table.title}**", "", "| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
        parts.append("\n".join(lines + ["| " + " | ".join(row) + " |" for row in table.rows]))
    return "\n\n".join([*parts, *sentences(points)])


def in_a_line(points: Sequence[Point] | None) -> str:
    """For the README."""
    if points is None:
        return "Untimed on GPUs: `make bench-gpu`."
    return " ".join(sentences(points))


def _of(points: Sequence[Point], stage: str) -> list[Point]:
    return [point for point in points if point["stage"] == stage]


def _took(result: dict) -> tuple[str, str]:
    if "missing" in result:
        return result["missing"], ""
    return f"{1000 * result['seconds']:.1f} ms", f"{result['peak_bytes'] / 1e9:.2f} GB"


def _steps(points: Sequence[Point]) -> list[tuple[str, ...]]:
    rows = []
    for point in _of(points, "steps"):
        setting, result = point["setting"], point["result"]
        seconds, peak = _took(result)
        rate = "" if "missing" in result else f"{setting['batch']['sentences'] / result['seconds']:,.0f}"
        products = setting["precision"] + ", compiled" * setting["compiled"]
        rows.append((setting["contender"], setting["model"], products, seconds, rate, peak))
    return rows


def _passes(points: Sequence[Point]) -> list[tuple[str, ...]]:
    return [
        (
            point["setting"]["contender"],
            point["setting"]["model"],
            point["setting"]["precision"],
            *_took(point["result"]),
        )
        for point in _of(points, "passes")
    ]


def _decompositions(points: Sequence[Point]) -> list[tuple[str, ...]]:
    return [
        (point["setting"]["model"], point["result"].get("missing") or f"{point['result']['seconds']:.2f}")
        for point in _of(points, "decompositions")
    ]
