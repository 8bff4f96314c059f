"""The bench's record as tables, and what it says about the speeds that were asked for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mpo_tutorial.experiments.steps import FULL, LIGHT, LONG_STEP

OURS = "MPOLinear"
PEER = "tensorly-torch"
IN_CACHED = f"{OURS} in cached"
KEPT, WITHIN = ("gradient_bytes", "optimiser_bytes"), "matrix_gradient_bytes"


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Target:
    """One asked-for figure: what was measured, the most it may be, and what the counted limit alone would give."""

    what: str
    measured: float
    most: float
    limit: float | None = None

    @property
    def verdict(self) -> str:
        if self.measured <= self.most:
            return "met"
        if self.limit is None:
            return "NOT met"
        if self.limit > self.most:
            return f"NOT met; out of reach, for the counted limit itself is at {self.limit:.2f}"
        return f"NOT met; it takes {self.most / self.limit:.2f} times the counted limit, which is at {self.limit:.2f}"


def tables(record: dict) -> list[Table]:
    """The tables of a bench record, the targets last."""
    return [
        _decomposition(record["decomposition"]),
        _passes("One layer, forward and backward, central core frozen", record["layer"]),
        _evaluation(record["evaluation"]),
        _passes("All of the model, forward and backward", record["model"]),
        _steps(record["step"]),
        _wide_layers(record["wide layer"]),
        _networks(record["network"]),
        Table(
            "Asked for",
            ("what", "measured", "at most", ""),
            [
                (target.what, f"{target.measured:.3g}", f"{target.most:.3g}", target.verdict)
                for target in targets(record)
            ],
        ),
    ]


def markdown(record: dict) -> str:
    """All tables, and how they were made."""
    parts = []
    for table in tables(record):
        lines = [f"**{table.title}**", "", "| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
        parts.append("\n".join(lines + ["| " + " | ".join(row) + " |" for row in table.rows]))
    peers = ", ".join(f"{name} {version}" for name, version in record["peers"].items())
    places: dict[str, list[str]] = {}
    for part, made in record["made"].items():
        hardware = made["hardware"]
        machine = hardware["gpu"] if record["device"] == "cuda" else f"{hardware['cpu']}, {hardware['threads']} threads"
        places.setdefault(f"on {made['date']}, {machine}", []).append(part)
    measured = "; ".join(f"{', '.join(names)}: {place}" for place, names in places.items())
    parts.append(
        f"Median of turns taken by turns, {record['repeat']} of a layer. Measured by `{record['command']}`, torch "
        f"{record['versions']['torch']}, {peers}. {measured[0].upper()}{measured[1:]}."
    )
    return "\n\n".join(parts)


def targets(record: dict) -> Iterator[Target]:
    """What the project asks of its speed, as ratios within one run; a missing peer leaves its lines out."""
    seconds = {row["library"]: row for row in record["decomposition"] if "missing" not in row}
    ours, theirs = seconds["mpo_tutorial"], seconds["tensorly"]
    yield Target("decomposition, seconds over tensorly's", ours["seconds"] / theirs["seconds"], 1 / 3)
    yield Target("decomposition, error over tensorly's", ours["error"] / theirs["error"], 1)
    for bond, tokens, passes in _groups(record["layer"]):
        where = f"{_bond(bond)}, {tokens:,} tokens"
        if bond is None:
            yield Target(f"layer at {where}, over the counted limit", passes[OURS] / passes["counted limit"], 1.2)
        peers = [value for name, value in passes.items() if name.startswith(PEER)]
        if peers:
            most, limit = 0.85 if bond is None else 1, passes["counted limit"] / min(peers)
            yield Target(f"layer at {where}, over tensorly-torch's better mode", passes[OURS] / min(peers), most, limit)
    rows = {(row["contender"], row["tokens"]): row["seconds"] for row in record["evaluation"] if "missing" not in row}
    for (name, tokens), value in rows.items():
        if name != "nn.Linear":
            yield Target(
                f"evaluation in cached, {tokens:,} tokens, over nn.Linear", value / rows["nn.Linear", tokens], 1.05
            )
    yield Target("slider, seconds for an answer", record["slider"]["answer_seconds"], 0.1)
    estimate, measured = (row["seconds"] for row in record["estimate"])
    yield Target("estimate of a cut's error, over making the cut and measuring", estimate / measured, 0.01)
    for (bond, images), rows in _wide(record["wide layer"]):
        dense, ours = (rows[name]["seconds"] for name in ("nn.Linear", IN_CACHED))
        how = "sent through the chain" if rows[IN_CACHED]["chained"] else "by the cached matrix"
        yield Target(f"VGG's layer at bond {bond}, {_images(images)}, {how}, over nn.Linear", ours / dense, 1.05)
    for where, rows, _missing in _works(record["step"]):
        full, light = rows[FULL], rows[LIGHT]
        seconds, limit = (light[name] / full["seconds"] for name in ("seconds", "limit"))
        yield Target(f"step of {where}, light over full", seconds, 1.05 if full["tokens"] >= LONG_STEP else 1.1, limit)
        kept, within = (_bytes(light, names) / _bytes(full, names) for names in (KEPT, (*KEPT, WITHIN)))
        yield Target("its gradients and AdamW's state, light over full", kept, 0.1)
        yield Target("the same, with gradients of rebuilt matrices", within, 0.1)


def _works(rows: list[dict]) -> Iterator[tuple[str, dict[str, dict], list[dict]]]:
    """What each step is of, in words; its rows by contender, with the limit that their multiplications set; who is missing."""
    for full in (row for row in rows if row["contender"] == FULL):
        work = full["work"]
        same = [row for row in rows if row["work"] == work]
        per_multiplication = full["seconds"] / full["multiplications"]
        count = work["batch_size"] // work["micro_batch_size"]
        yield (
            f"{full['tokens']:,} tokens, micro-batches: {count}, {work['model']}",
            {
                row["contender"]: {**row, "limit": per_multiplication * row["multiplications"]}
                for row in same
                if "missing" not in row
            },
            [row for row in same if "missing" in row],
        )


def _wide(rows: list[dict]) -> Iterator[tuple[tuple[int, int], dict[str, dict]]]:
    """Rows by contender, for each bond and number of images."""
    for where in dict.fromkeys((row["bond"], row["images"]) for row in rows):
        yield where, {row["contender"]: row for row in rows if (row["bond"], row["images"]) == where}


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def _bytes(row: dict, names: tuple[str, ...]) -> int:
    return sum(row[name] for name in names)


def _groups(rows: list[dict]) -> Iterator[tuple[int | None, int, dict[str, float]]]:
    """Seconds by contender, for each bond and number of tokens."""
    for bond, tokens in dict.fromkeys((row["bond"], row["tokens"]) for row in rows):
        chosen = [row for row in rows if (row["bond"], row["tokens"]) == (bond, tokens) and "missing" not in row]
        yield bond, tokens, {row["contender"]: row["seconds"] for row in chosen}


def _bond(bond: int | None) -> str:
    return "full bond" if bond is None else f"bond {bond}"


def _memory(row: dict) -> str:
    return f"{row['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in row else ""


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _decomposition(rows: list[dict]) -> Table:
    reference = next(row["seconds"] for row in rows if row["library"] == "tensorly")
    lines = []
    for row in rows:
        if "missing" in row:
            lines.append((row["library"], row["missing"], "", "", ""))
        else:
            numbers = _seconds(row["seconds"]), f"{row['seconds'] / reference:.2f}", f"{row['error']:.1e}"
            lines.append((row["library"], *numbers, _memory(row)))
    head = ("library", "every matrix of the model", "over tensorly", "largest relative error", "peak memory, embedding")
    return Table("Decomposition at full bond", head, lines)


def _passes(title: str, rows: list[dict]) -> Table:
    lines = []
    for bond, tokens, seconds in _groups(rows):
        for row in rows:
            if (row["bond"], row["tokens"]) != (bond, tokens):
                continue
            start = (_bond(bond), f"{tokens:,}", row["contender"])
            if "missing" in row:
                lines.append((*start, row["missing"], "", "", ""))
            else:
                ratios = (row["seconds"] / seconds[base] for base in ("nn.Linear", "counted limit"))
                lines.append((*start, _seconds(row["seconds"]), *(f"{ratio:.2f}" for ratio in ratios), _memory(row)))
    head = ("bond", "tokens", "", "seconds", "over nn.Linear", "over the counted limit", "peak memory")
    return Table(title, head, lines)


def _steps(rows: list[dict]) -> Table:
    lines = []
    for where, found, missing in _works(rows):
        for name, row in found.items():
            ratios = (f"{row['seconds'] / base:.2f}" for base in (found[FULL]["seconds"], row["limit"]))
            held = (f"{count / 1e6:.1f} MB" for count in (_bytes(row, KEPT), row[WITHIN]))
            lines.append((where, name, _seconds(row["seconds"]), *ratios, *held, _memory(row)))
        lines += [(where, row["contender"], row["missing"], *("",) * 5) for row in missing]
    memory = ("gradients and AdamW's state", "gradients of rebuilt matrices", "peak memory")
    return Table(
        "A step of the optimiser, as in training",
        ("step", "", "seconds", "over full", "over the counted limit", *memory),
        lines,
    )


def _wide_layers(rows: list[dict]) -> Table:
    lines = []
    for (bond, images), found in _wide(rows):
        for name, row in found.items():
            start = (f"bond {bond}", str(images), name)
            if "missing" in row:
                lines.append((*start, row["missing"], ""))
            else:
                ratio = row["seconds"] / found["nn.Linear"]["seconds"]
                lines.append((*start, _seconds(row["seconds"]), f"{ratio:.2f}"))
    sizes = " x ".join(f"{math.prod(rows[0][side]):,}" for side in ("in_legs", "out_legs"))
    return Table(
        f"A layer of {sizes}, as VGG has it, evaluated", ("bond", "images", "", "seconds", "over nn.Linear"), lines
    )


def _networks(rows: list[dict]) -> Table:
    dense = {row["network"]: row for row in rows if row["contender"] == row["network"] and "missing" not in row}
    lines = []
    for row in rows:
        start = (row["contender"], str(row["images"]))
        if "missing" in row:
            lines.append((*start, row["missing"], "", "", ""))
        else:
            ratio = row["seconds"] / dense[row["network"]]["seconds"]
            lines.append((*start, f"{row['parameters']:,}", _seconds(row["seconds"]), f"{ratio:.2f}", _memory(row)))
    head = ("network", "images", "numbers in all", "seconds", "over the dense one", "peak memory")
    return Table("A step of the optimiser of networks for images", head, lines)


def _evaluation(rows: list[dict]) -> Table:
    dense = {row["tokens"]: row["seconds"] for row in rows if row["contender"] == "nn.Linear"}
    lines = [
        (
            f"{row['tokens']:,}",
            row["contender"],
            _seconds(row["seconds"]),
            f"{row['seconds'] / dense[row['tokens']]:.2f}",
        )
        for row in rows
        if "missing" not in row
    ]
    return Table("One layer, evaluated", ("tokens", "", "seconds", "over nn.Linear"), lines)
