"""What commands can be told: their options, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

from mpo_tutorial.models.ways import BLOCKS, GAUGES


def _number(kind: type, name: str):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError as error:
            raise typer.BadParameter(f"{name} is needed, got {text!r}") from error

    return parse


WHOLE, REAL = _number(int, "an integer"), _number(float, "a number")

Model = Annotated[str, typer.Option(help='"minilm" (embedded), a local folder, or a name on the hub.')]
Task = Annotated[
    str,
    typer.Option(
        help='"rotten_tomatoes" or "imdb" (embedded), "glue/rte" or another of GLUE (hub), or a .csv or .parquet file '
        "with text and label."
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
