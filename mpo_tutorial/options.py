"""What commands can be told: their options, each with its help."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mpo_tutorial.experiments.plans import (
    ALLOTMENTS,
    CORES,
    DELTAS,
    ERRORS,
    MEMORIES,
    PLACES,
    SCHEDULES,
    TABLE_3,
    Plan,
)
from mpo_tutorial.models.ways import BLOCKS, GAUGES


def _number(kind: Callable[[str], float], name: str):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError as error:
            raise typer.BadParameter(f"{name} is needed, got {text!r}") from error

    return parse


WHOLE, REAL = _number(int, "an integer"), _number(float, "a number")


Model = Annotated[
    str,
    typer.Option(help='"minilm" (embedded), a local folder, or a name on the hub; for images fc2-mpo-16 and the like.'),
]
Task = Annotated[
    str,
    typer.Option(
        help='"rotten_tomatoes" or "imdb" (embedded), "glue/rte" or another of GLUE (hub), or a .csv or .parquet file '
        "with text and label; for images digits or fashion_mnist."
    ),
]
Bond = Annotated[
    int | None,
    typer.Option(parser=WHOLE, metavar="INTEGER", help="Cap on every bond dimension. Without it nothing is truncated."),
]
Matrices = Annotated[
    str | None,
    typer.Option(
        help="all, embedding, attention, feed-forward, pooler, projection, query, ..., patterns of names; commas between."
    ),
]
Cores = Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Cores of each MPO.")]
Seed = Annotated[
    int,
    typer.Option(
        parser=WHOLE, metavar="INTEGER", help="Of classifier, order and dropout; the split is always the same."
    ),
]
TrainSize = Annotated[
    int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help="Training sentences (default: up to 3,200).")
]
Epochs = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE,
        metavar="INTEGER",
        help="Passes over the training sentences (default: as many as make 200 steps, from 2 to 20).",
    ),
]
Size = Annotated[
    float | None,
    typer.Option(
        parser=_number(lambda text: int(text) if text.isdecimal() else float(text), "a number"),
        metavar="NUMBER",
        help="Of a method that has one: LoRA's rank, an adapter's width (default: usual).",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE, metavar="INTEGER", help="Numbers to train, head included: chooses the size, to within a tenth."
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(parser=REAL, metavar="NUMBER", help="Peak rate (default: the method's best on the validation set)."),
]
RestRate = Annotated[
    float | None,
    typer.Option(
        parser=REAL, metavar="NUMBER", help="The same for what is no number of a matrix (default: one for all)."
    ),
]
Warmup = Annotated[
    float, typer.Option(parser=REAL, metavar="NUMBER", help="Share of the steps in which the rate rises.")
]
WeightDecay = Annotated[float, typer.Option(parser=REAL, metavar="NUMBER", help="AdamW's.")]
Clip = Annotated[float, typer.Option(parser=REAL, metavar="NUMBER", help="Largest norm of a step's gradient.")]
Patience = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE,
        metavar="INTEGER",
        help="Stop after so many epochs without a better validation score, and keep the best (default: train them all).",
    ),
]
BatchSize = Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Sentences in a step of the optimiser.")]
MicroBatchSize = Annotated[
    int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Sentences in memory at once; their gradients are summed.")
]
MaxLength = Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Tokens at which a text is cut off.")]
Pooling = Annotated[
    str | None, typer.Option(help="How the classifier reads: mean, first, pooler (default: by the model's own files).")
]
Rest = Annotated[
    str,
    typer.Option(
        help="Besides: head (the classifier), norms (biases and LayerNorm as well), or all but central cores."
    ),
]
Gauge = Annotated[str, typer.Option(help=f"Of the cores: {', '.join(GAUGES)}.")]
Legs = Annotated[
    str | None, typer.Option(help='Of matrices of these sizes, as in "3.4.4.4.2 x 4.4.6.4.4"; commas between.')
]
Blocks = Annotated[str, typer.Option(help=f"Cores of which side are trained: {', '.join(BLOCKS)}.")]
Precision = Annotated[str, typer.Option(help="Of the products in training: float32 or bfloat16.")]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="Compute inner values again in the backward pass, to save memory.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[
    int,
    typer.Option(
        parser=WHOLE, metavar="INTEGER", help="Processes that share the work, each with its part of the threads."
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler, whose workers do the work (extra `cluster`).")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Variants = Annotated[
    list[str] | None, typer.Option(help="One of the study's variants; may be given several times (default: all).")
]

# Of a plan, where None leaves what the row of Table 3 or the default plan has.
Variant = Annotated[
    str | None,
    typer.Option(
        help=f"A row of the paper's Table 3: {', '.join(TABLE_3)} (default: greedy cuts by the outputs, each fitted)."
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(parser=REAL, metavar="NUMBER", help=f"Share of the matrices' numbers that is kept ({Plan.ratio:g})."),
]
Schedule = Annotated[str | None, typer.Option(help=f"One of {', '.join(SCHEDULES)}.")]
CutStep = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE, metavar="INTEGER", help=f"By how much central bonds sink at a greedy cut ({Plan.step})."
    ),
]
CubicCuts = Annotated[
    int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help=f"Cuts of the cubic schedule ({Plan.cuts}).")
]
CutError = Annotated[str | None, typer.Option(help=f"That cuts are chosen by: {', '.join(ERRORS)}.")]
PerParameter = Annotated[bool | None, typer.Option(help="Set it against the numbers that a cut saves, or not.")]
Allot = Annotated[str | None, typer.Option(help=f"How one cut is shared out: {', '.join(ALLOTMENTS)}.")]
Fitted = Annotated[bool | None, typer.Option("--fitted/--plain", help="Fit cuts to the inputs, or not.")]
Sweeps = Annotated[
    int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help=f"Two-site sweeps after a cut ({Plan.sweeps}).")
]
Delta = Annotated[
    float | None,
    typer.Option(parser=REAL, metavar="NUMBER", help="The most that may be lost; then squeezing stops (default: all)."),
]
DeltaOn = Annotated[str | None, typer.Option(help=f"Of what: {', '.join(DELTAS)}.")]
Between = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE,
        metavar="INTEGER",
        help="Steps of the optimiser after each cut but the last (default: half of all, shared out by what cuts save).",
    ),
]
Steps = Annotated[
    int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help=f"Steps of the optimiser in all ({Plan.steps}).")
]
Rate = Annotated[
    float | None, typer.Option(parser=REAL, metavar="NUMBER", help="AdamW's while squeezing (default: the run's).")
]
Memory = Annotated[str | None, typer.Option(help=f"AdamW's, through a cut: {', '.join(MEMORIES)}.")]
TrainCores = Annotated[str | None, typer.Option(help=f"Which are tuned: {', '.join(CORES)}.")]
CutGauge = Annotated[str | None, typer.Option(help=f"Where a cut leaves the norm: {', '.join(PLACES)}.")]
Refresh = Annotated[
    int | None,
    typer.Option(
        parser=WHOLE, metavar="INTEGER", help=f"Cuts after which all estimates are made anew ({Plan.refresh})."
    ),
]
