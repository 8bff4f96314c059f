"""Steps of a squeezing as rows of a table, and what came of them as sentences."""

from collections.abc import Mapping, Sequence

from mpo_tutorial.course.tables import per_cent
from mpo_tutorial.experiments.plans import Plan

STEP_HEAD = (
    "step",
    "matrix",
    "bonds",
    "estimate",
    "error",
    "numbers",
    "steps",
    "loss before",
    "after",
    "accuracy",
    "AUC",
)


def cells_of_step(step: Mapping) -> tuple[str, ...]:
    """A step, as `Step.as_dict` gives it, as text in the order of `STEP_HEAD`; of several cuts together, how many they are."""
    cuts = step["cuts"]
    judged = step["validation"] or {}
    estimate = error = ""
    if cuts:
        error = f"{sum(cut['error'] ** 2 for cut in cuts) ** 0.5:.3g}"
        if all(cut["estimate"] is not None for cut in cuts):
            estimate = f"{sum(cut['estimate'] ** 2 for cut in cuts) ** 0.5:.3g}"
    matrix = {0: "", 1: cuts[0]["matrix"] if cuts else ""}.get(len(cuts), f"{len(cuts)} matrices")
    bonds = " > ".join(".".join(map(str, cuts[0][name])) for name in ("before", "after")) if len(cuts) == 1 else ""
    auc = judged.get("auc")
    return (
        str(step["number"]),
        matrix,
        bonds,
        estimate,
        error,
        f"{step['parameters']:,}",
        str(step["done"]),
        *("" if step[name] is None else f"{step[name]:.3f}" for name in ("loss_before", "loss_after")),
        f"{100 * judged['accuracy']:.1f} %" if judged else "",
        "" if auc is None else f"{auc:.3f}",
    )


def sentences_of_squeezing(record: Mapping) -> Sequence[str]:
    """How a squeezing ended, and with what, from its record."""
    found, plan = record["parameters"], Plan(**record["plan"])
    kept = record["steps"][record["kept"]]
    last = record["steps"][-1]
    ended = f"It ended because {record['stopped']}"
    if last["number"] != kept["number"]:
        worse = "" if plan.delta is None else f" (delta {plan.delta:g} of the {plan.delta_on})"
        back = "as it came" if kept["number"] == 0 else f"after step {kept['number']}"
        ended += f"{worse}, in step {last['number']}; the model is what it was {back}"
    sentences = [
        f"{ended}.",
        f"Numbers in the cores {found['cores']:,}, {100 * found['cores'] / found['dense']:.1f} % of the matrices'; in all "
        f"{found['total']:,}, or {record['bytes'] / 1e6:.1f} MB as they are stored.",
    ]
    scores = [
        f"{name} {100 * part['accuracy']:.1f} % [{', '.join(f'{100 * end:.1f}' for end in part['interval'])}]"
        for name, part in record.items()
        if isinstance(part, dict) and "accuracy" in part
    ]
    return [*sentences, f"Accuracy [95 %, over sentences]: {'; '.join(scores)}."] if scores else sentences


RACE_HEAD = ("", "cores", "trained", "model", "test accuracy [95 %]", "minus one fitted cut [95 %]", "seeds", "rate")


def cells_of_race(summary: Mapping, names: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """Rows under `RACE_HEAD`, as text, of what `compare.summarise` says of the study `squeeze`.

    Parameters
    ----------
    names : sequence of str, optional
        Variants; None: all that were tested.
    """
    rows = []
    for name in names or summary["final"]:
        row, result = summary["variants"][name], summary["final"][name][0]["result"]
        beside = row["minus_beside"]
        rows.append(
            (
                name,
                f"{result['cores'] / 1e6:.2f} M",
                f"{row['trained'] / 1e6:.2f} M",
                f"{result['bytes'] / 1e6:.1f} MB",
                f"{per_cent(row['test'])} %",
                "" if beside is None else per_cent(beside, "+"),
                str(row["test"]["seeds"]),
                f"{row['rate']:g}",
            )
        )
    return rows
