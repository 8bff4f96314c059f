"""The whole idea in a few minutes: decompose, fine-tune lightly, compare, truncate, draw."""

import copy
import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from mpo_tutorial.course import figures, tables
from mpo_tutorial.experiments import forms, records
from mpo_tutorial.experiments.compare import summarise
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.finetune import START_ANEW, Prepared, prepare, run
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.tasks import require_classes
from mpo_tutorial.experiments.threshold import judge
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.ledger import Ledger
from mpo_tutorial.models.truncation import truncate

# Of the largest bond; for the embedded model 192, 160, 128, 96, 80, 64, 48, 32.
CURVE_SHARES = (1, 5 / 6, 2 / 3, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 6)


def demo(
    config: RunConfig,
    out: Path,
    *,
    live_baseline: bool = False,
    resume: bool = False,
    progress: bool = True,
    show: Callable[[str | Ledger], None] = lambda _: None,
) -> dict:
    """Run the demo; write `record.json`, `tradeoff.png` and the run's own folders to `out`.

    Parameters
    ----------
    config : RunConfig
        Of the light run.
    live_baseline : bool
        Fine-tune the dense model too, instead of taking the record that is shipped.
    show : callable
        Gets lines of text (with rich's markup) and the ledger as the demo goes along.

    Returns
    -------
    dict : the record

    Raises
    ------
    ValueError
        As `finetune.run` says, if the task has no classes, or if `out`, which is to be resumed, is another command's.
    """
    require_classes(config.task)
    started = time.perf_counter()
    with locked(out):
        if resume:
            records.require_own(out, "record.json")
            if (out / "record.json").exists():
                records.read_record(out / "record.json", {"kind": forms.word("demo")}, START_ANEW)
        full = None
        if live_baseline:
            show("\n[bold]0. Fine-tune everything[/], the dense model, for comparison.")
            # First, and let go of before the MPO model is made: the two together would not fit into 1.5 GB.
            full_config = replace(config, method="full", learning_rate=None)
            full = run(prepare(full_config), out / "full", resume=resume, progress=progress)
            gc.collect()
        show("\n[bold]1. Decompose[/]: every matrix of the encoder becomes a chain of small cores (an MPO).")
        prepared = prepare(config)
        show(prepared.ledger)
        show(
            "\n[bold]2. Fine-tune lightly[/]: central cores stay as they are, auxiliary cores and the classifier train, for "
            f"{prepared.config.epochs} epochs."
        )
        light = run(prepared, out / "light", resume=resume, progress=progress)
        rows, _ = beside_full(light, full)
        show("\n[bold]3. Truncate[/]: cut the bonds of the tuned model, without retraining, and see what is left.")
        curve = truncation_curve(prepared, progress)
        labels = [label for _, label in prepared.task.splits["validation"]]
        record = {
            "kind": "demo",
            **records.provenance(),
            "ledger": prepared.ledger.totals(),
            "light": light,
            "full": full,
            "curve": curve,
            "chance": max(labels.count(label) for label in labels) / len(labels),
            "seconds": {"total": time.perf_counter() - started},
            "peak_memory_bytes": records.peak_memory_bytes(),
        }
        figures.save(
            figures.demo_picture(rows, curve, record["chance"]),
            out / "tradeoff.png",
            figures.demo_alt_text(rows, curve),
        )
        records.write_record(record, out / "record.json")
    return record


def beside_full(light: dict, full: dict | None) -> tuple[list[tables.TableRow], str]:
    """The table's rows, and a sentence on where full fine-tuning's come from."""
    row = tables.row_of_run("light, this run", light)
    if full is not None:
        return [row, tables.row_of_run("full, this run", full)], "Both were run just now, one seed each."
    recorded = summarise(records.shipped_points(LIGHT.name), LIGHT)
    if not tables.same_budget(recorded, light):
        return [row], "No full fine-tuning of this budget is on record: add --baseline live to run it."
    seeds = {name: recorded["variants"][name]["test"]["seeds"] for name in LIGHT.primary}
    rows = [tables.row_of_comparison(f"{name}, {n} seeds", recorded, name) for name, n in seeds.items()]
    return [row, *rows], (
        f"The rows of several seeds are on record (mpo_tutorial/records/{LIGHT.name}.jsonl), without seconds, because several "
        "runs shared a machine. Add --baseline live to run full fine-tuning here."
    )


def truncation_curve(prepared: Prepared, progress: bool) -> list[dict]:
    """What `threshold.judge` says, on the validation sentences, of the trained model at smaller and smaller bonds.

    The model itself stays as it is.
    """
    dataset = prepared.dataset("validation")
    largest = max(max(layer.mpo.bonds) for layer in mpo_layers(prepared.model))
    bonds = sorted({max(1, round(largest * share)) for share in CURVE_SHARES}, reverse=True)
    dense = prepared.ledger.dense
    points = []
    for bond in tqdm(bonds, desc="truncating", unit="bond", disable=not progress):
        model = copy.deepcopy(prepared.model)
        truncate(model, max_bond=bond)
        parameters = sum(layer.mpo.n_params for layer in mpo_layers(model))
        points.append(
            {
                "max_bond": bond,
                "parameters": parameters,
                "ratio": parameters / dense,
                "validation": judge(dataset["labels"], logits(model, dataset, prepared.tokenizer)),
            }
        )
    return points
