"""The command line. Bad input gets one line and exit status 2; what is heavy is imported after it was refused."""

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpo_tutorial.course import squeeze_tables, tables
from mpo_tutorial.experiments import forms, processes, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.glue import PRESET_LENGTH, preset_of
from mpo_tutorial.experiments.plans import Plan, plan_of, require_fit
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.options import (
    REAL,
    WHOLE,
    Allot,
    BatchSize,
    Between,
    Blocks,
    Bond,
    Budget,
    Checkpointing,
    Clip,
    Cores,
    CubicCuts,
    CutError,
    CutGauge,
    CutStep,
    Delta,
    DeltaOn,
    Device,
    Epochs,
    Fitted,
    Gauge,
    LearningRate,
    Legs,
    Matrices,
    MaxLength,
    Memory,
    MicroBatchSize,
    Model,
    Out,
    Patience,
    PerParameter,
    Pooling,
    Precision,
    Rate,
    Ratio,
    Refresh,
    Rest,
    RestRate,
    Resume,
    Schedule,
    Scheduler,
    Seed,
    Size,
    Steps,
    Sweeps,
    Task,
    TrainCores,
    TrainSize,
    Variant,
    Variants,
    Warmup,
    WeightDecay,
    Workers,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split(".")[0]
)
COSTS = "costs"  # the folder of what steps cost, in a comparison's
WIDE = 200  # a file or a pipe has no edge at which a table must break
IS_FIRST = processes.rank() == 0  # of the processes that torchrun started; the others print refusals alone
console = Console(width=None if sys.stdout.isatty() else WIDE, quiet=not IS_FIRST)


@app.command()
def demo(
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    bond: Bond = RunConfig.bond,
    cores: Cores = RunConfig.cores,
    seed: Seed = RunConfig.seed,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    learning_rate: LearningRate = RunConfig.learning_rate,
    device: Device = RunConfig.device,
    out: Out = Path("runs/demo"),
    resume: Resume = False,
    baseline: Annotated[str, typer.Option(help="Full fine-tuning: record (shipped) or live.")] = "record",
):
    """Compress a real BERT, train a twentieth of it, draw the trade-off."""
    if baseline not in ("record", "live"):
        raise ValueError(f"baseline is one of record, live, got {baseline!r}")
    config = _config(locals())
    console.print("Loading torch and transformers ...")
    from mpo_tutorial.course.demo import beside_full, demo
    from mpo_tutorial.models.ledger import Ledger

    def show(what) -> None:
        if isinstance(what, str):
            console.print(what)
        else:
            _print_table(Ledger.HEAD, what.cells())

    record = demo(config, out, live_baseline=baseline == "live", resume=resume, show=show)
    rows, baseline_told = beside_full(record["light"], record["full"])
    _print_table(tables.TABLE_HEAD, [row.cells() for row in rows])
    console.print(baseline_told, soft_wrap=True)
    console.print(
        f"\nPicture: {out / 'tradeoff.png'}   Record: {out / 'record.json'}   Trained tensors: {out / 'light/task.safetensors'}\n"
        f"All of it took {record['seconds']['total']:.0f} s and at most {record['peak_memory_bytes'] / 1e9:.2f} GB of memory.\n"
        "Next: open the picture; start the course by `make lab`; turn the knob yourself by `mpo-tutorial demo --bond 64`;\n"
        "or bring your own sentences by `mpo-tutorial demo --task my.csv`."
    )


@app.command()
def finetune(
    context: typer.Context,
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = RunConfig.method,
    preset: Annotated[
        bool, typer.Option("--preset", help="For a task of GLUE: the paper's settings, where none is given here.")
    ] = False,
    pooling: Pooling = RunConfig.pooling,
    max_length: MaxLength = RunConfig.max_length,
    rest: Rest = RunConfig.rest,
    matrices: Matrices = RunConfig.matrices,
    bond: Bond = RunConfig.bond,
    cores: Cores = RunConfig.cores,
    gauge: Gauge = RunConfig.gauge,
    legs: Legs = RunConfig.legs,
    blocks: Blocks = RunConfig.blocks,
    size: Size = RunConfig.size,
    budget: Budget = None,
    seed: Seed = RunConfig.seed,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    patience: Patience = RunConfig.patience,
    learning_rate: LearningRate = RunConfig.learning_rate,
    rest_rate: RestRate = RunConfig.rest_rate,
    warmup: Warmup = RunConfig.warmup,
    weight_decay: WeightDecay = RunConfig.weight_decay,
    clip: Clip = RunConfig.clip,
    batch_size: BatchSize = RunConfig.batch_size,
    micro_batch_size: MicroBatchSize = RunConfig.micro_batch_size,
    precision: Precision = RunConfig.precision,
    checkpointing: Checkpointing = RunConfig.checkpointing,
    device: Device = RunConfig.device,
    out: Out = Path("runs/finetune"),
    resume: Resume = False,
):
    """Fine-tune once and measure on the validation and test sentences; started by torchrun, in several processes."""
    options = locals()
    if preset:
        for name, value in preset_of(task, method).items():
            if context.get_parameter_source(name).name == "DEFAULT":
                options[name] = value
    config = _config(options)
    from mpo_tutorial.experiments.finetune import prepare, run

    record = run(prepare(config), out, resume=resume)
    metric = next(iter(tables.metrics_of(record["test"])))
    row = tables.row_of_run(METHODS[method].title, record, metric)
    trained, kept = (record["epochs"][name] for name in ("trained", "kept"))
    best = f", of which number {kept} was best on the validation sentences and is kept" if patience else ""
    console.print(f"Trained on {record['train_sentences']:,} sentences, {trained} epochs{best}.", soft_wrap=True)
    _print_table(tables.table_head(metric), [row.cells()])
    console.print(f"Measured: {tables.sentence_on_metrics(record)}", soft_wrap=True)
    console.print(f"Record: {out / 'record.json'}   Trained tensors: {out / 'task.safetensors'}")


@app.command()
def compress(
    models: Annotated[
        list[str] | None, typer.Argument(help='"minilm", a local folder, a name on the hub; with --report several.')
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option(help="A config.json instead of a model: enough for --report.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Only the ledger, a line a matrix, and what of the model would be trained.")
    ] = False,
    matrices: Matrices = None,
    cores: Annotated[
        int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help="Cores of each MPO, 5 where none is given.")
    ] = None,
    bond: Bond = RunConfig.bond,
    cutoff: Annotated[
        float | None, typer.Option(parser=REAL, metavar="NUMBER", help="Relative weight that a bond may lose.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(parser=REAL, metavar="NUMBER", help="Share of its numbers that each matrix keeps.")
    ] = None,
    params: Annotated[
        int | None, typer.Option(parser=WHOLE, metavar="INTEGER", help="Numbers in all cores; bonds are allotted.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="A task: fit what is cut to the inputs of its sentences.")] = None,
    out: Out = Path("runs/compress"),
):
    """Make a model's matrices MPOs, cut them, and save it; or print and draw what full bonds would give (--report)."""
    from mpo_tutorial.course.figures import draw_ledger
    from mpo_tutorial.experiments.compress import save_compressed
    from mpo_tutorial.models.families import split_words
    from mpo_tutorial.models.look import look_at, offline_models
    from mpo_tutorial.models.truncation import Cut

    names = [*(models or ()), *map(str, config or ())]
    if not names or (not report and (len(names) > 1 or config)):
        raise ValueError(
            f"compress takes one model, --report models or configs; got {len(names)}. Without a network it knows "
            f"{', '.join(offline_models())}"
        )
    limits = {"max_bond": bond, "cutoff": cutoff, "ratio": ratio, "n_params": params}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    if len(limits) > 1 or (report and limits.keys() - {"max_bond"}) or (fit and (report or not limits)):
        raise ValueError(
            "one of --bond, --cutoff, --ratio and --params says how far to cut, --fit goes with one of them, and --report only "
            f"with --bond; got {', '.join(limits) or 'none'}"
        )
    if matrices is not None:
        split_words(matrices)
    if not report:
        cut = Cut(**limits) if limits else None
        _require_writable(out)
        ledger = save_compressed(names[0], out, cores, matrices, cut, fit)
        _print_table(ledger.HEAD, ledger.cells())
        console.print(f"Saved: {out}   After `import mpo_tutorial` it is loaded by transformers' Auto classes.")
        return
    views = [look_at(name, cores, bond, matrices) for name in names]
    _require_writable(out)
    for view in views:
        console.print(f"\n{view.name}")
        _print_table(view.ledger.MATRIX_HEAD, view.ledger.matrix_cells())
        console.print(f"Picture: {draw_ledger(view, out)}")
    console.print("\nWhat light fine-tuning trains, classifiers not counted:")
    _print_table(views[0].HEAD, [view.cells() for view in views])
    for name, fewer in (("auxiliary cores alone", "auxiliary"), ("all but central cores", "everything")):
        shares = [1 - getattr(view, fewer) / view.dense for view in views]
        console.print(
            f"Fewer parameters to train, mean over {len(shares)}, {name}: {100 * sum(shares) / len(shares):.1f} %"
        )


@app.command()
def compare(
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    methods: Annotated[
        str | None,
        typer.Option(help=f"Others instead, commas between, the first minus the second decides: {', '.join(METHODS)}."),
    ] = None,
    budget: Budget = None,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    max_length: MaxLength = RunConfig.max_length,
    device: Device = RunConfig.device,
    out: Out = Path("runs/compare"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Light against full fine-tuning on any task: rates tuned alike, three seeds (about an hour on two cores). Or any methods
    against each other, with what a step of each costs.
    """
    if budget is not None and methods is None:
        raise ValueError(f"a budget is for --methods, such as --methods light,lora,adapter; got {budget:,} alone")
    config = _settled(locals())
    from mpo_tutorial.experiments import compare, rivals, study

    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    if methods is not None:
        comparison, told = rivals.among([name.strip() for name in methods.split(",")], config, budget)
        for sentence in told:
            console.print(sentence, soft_wrap=True)
        made = compare.study(comparison, config)
        _require_writable(out)
        _race(comparison, made, config, out, options)
        return
    _require_writable(out)
    points = study.run(compare.study(compare.TRIAL, config), out, **options, show=console.print)
    _print_comparison(points, compare.TRIAL, out)


@app.command()
def light(
    variant: Variants = None,
    model: Model = RunConfig.model,
    micro_batch_size: MicroBatchSize = RunConfig.micro_batch_size,
    device: Device = RunConfig.device,
    out: Out = Path("runs/light"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Is light fine-tuning as good as full? What decides it, and what stands beside it (two days on two cores)."""
    from mpo_tutorial.experiments import light, study

    made = light.study(RunConfig(model=model, micro_batch_size=micro_batch_size, device=device), variant)
    _require_writable(out)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    points = study.run(made, out, **options, show=partial(console.print, soft_wrap=True))
    _print_comparison(points, light.LIGHT, out)


@app.command("rivals")
def rivals_study(
    variant: Variants = None,
    model: Model = RunConfig.model,
    micro_batch_size: MicroBatchSize = RunConfig.micro_batch_size,
    device: Device = RunConfig.device,
    out: Out = Path("runs/rivals"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Is light fine-tuning better than LoRA? All methods, tuned alike, and what a step of each costs (a day on two cores)."""
    from mpo_tutorial.experiments import rivals

    config = RunConfig(model=model, micro_batch_size=micro_batch_size, device=device)
    made = rivals.study(config, variant)
    _require_writable(out)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    _race(rivals.RIVALS, made, config, out, options, variant)


def _race(comparison, made, config: RunConfig, out: Path, options: dict, names: list[str] | None = None) -> None:
    """A comparison of methods, then what their steps cost, told and written down."""
    from mpo_tutorial.course import rival_results
    from mpo_tutorial.experiments import rivals, study
    from mpo_tutorial.experiments.compare import summarise

    show = partial(console.print, soft_wrap=True)
    points = study.run(made, out, **options, show=show)
    spent = study.run(rivals.costs_study(comparison, config, names), out / COSTS, resume=options["resume"], show=show)
    summary = summarise(points, comparison)
    _print_table(rival_results.HEAD, rival_results.cells(summary, comparison, rivals.costs(spent)))
    for sentence in rival_results.sentences(summary, comparison, spent):
        console.print(sentence, soft_wrap=True, markup=False)
    written = rival_results.write(summary, comparison, spent, out)
    console.print(f"Record: {out / study.RECORD}   Written: {', '.join(path.name for path in written)}", soft_wrap=True)


def _print_comparison(
    points: list[dict],
    comparison,
    out: Path,
    head: tuple[str, ...] = tables.COMPARISON_HEAD,
    cells: Callable = tables.cells_of_comparison,
) -> None:
    from mpo_tutorial.experiments.compare import summarise
    from mpo_tutorial.experiments.study import RECORD

    summary = summarise(points, comparison)
    _print_table(head, cells(summary))
    for sentence in tables.sentences_of_comparison(summary, comparison):
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Record: {out / RECORD}")


@app.command()
def capstone(
    model: Model = "bert-base-uncased",
    tasks: Annotated[str, typer.Option(help="Of GLUE, commas between: rte, or wnli,mrpc,rte.")] = "rte",
    minutes: Annotated[
        float, typer.Option(parser=REAL, metavar="NUMBER", help="For all of it; they decide how many seeds there are.")
    ] = 20.0,
    epochs: Epochs = RunConfig.epochs,
    max_length: MaxLength = PRESET_LENGTH,
    device: Device = RunConfig.device,
    out: Out = Path("runs/capstone"),
    resume: Resume = False,
):
    """Light, full and LoRA on tasks of GLUE on a GPU, in a time that you state. Without a GPU or the hub, something small."""
    from mpo_tutorial.course import capstone_results
    from mpo_tutorial.experiments import capstone as capstones
    from mpo_tutorial.experiments.compare import summarise
    from mpo_tutorial.experiments.study import RECORD

    capstones.require_minutes(minutes)
    asked = tuple(task.strip() for task in tasks.split(","))
    chosen = capstones.at_hand(model, asked, epochs=epochs, max_length=max_length, device=device)
    _require_writable(out)
    show = partial(console.print, soft_wrap=True, markup=False)
    show(chosen.why)
    comparison, points = capstones.run(chosen, minutes, out, resume=resume, show=show)
    summary = summarise(points, comparison)
    _print_table(capstone_results.head(chosen), capstone_results.cells(summary, chosen))
    for sentence in tables.sentences_of_comparison(summary, comparison):
        show(sentence)
    show(f"Record: {out / RECORD}")


@app.command()
def cuts(
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    device: Device = RunConfig.device,
    seeds: Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Light runs that are cut.")] = 5,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a finished light run to cut, instead of new ones; may be given several times."),
    ] = None,
    out: Out = Path("runs/cuts"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Cut light runs' matrices in several ways, without retraining, and measure (hours on two cores)."""
    if seeds < 1:
        raise ValueError(f"seeds is an integer of at least 1, got {seeds}")
    config = None if run else _config(locals())
    _require_writable(out)
    from mpo_tutorial.experiments import cut_results, cuts, study

    runs = run or cuts.light_runs(config, seeds, out, resume=resume)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    points = study.run(cuts.study(runs), out, **options, show=console.print)
    _print_table(*cut_results.table(points))
    console.print(f"Record: {out / study.RECORD}")


@app.command()
def squeeze(
    variant: Variant = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a finished light run to start from, instead of a new one.")
    ] = None,
    ratio: Ratio = None,
    schedule: Schedule = None,
    step: CutStep = None,
    cuts: CubicCuts = None,
    error: CutError = None,
    per_parameter: PerParameter = None,
    allot: Allot = None,
    fitted: Fitted = None,
    sweeps: Sweeps = None,
    delta: Delta = None,
    delta_on: DeltaOn = None,
    between: Between = None,
    steps: Steps = None,
    rate: Rate = None,
    memory: Memory = None,
    train_cores: TrainCores = None,
    cut_gauge: CutGauge = None,
    refresh: Refresh = None,
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    matrices: Matrices = RunConfig.matrices,
    cores: Cores = RunConfig.cores,
    gauge: Gauge = RunConfig.gauge,
    seed: Seed = RunConfig.seed,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    learning_rate: LearningRate = RunConfig.learning_rate,
    max_length: MaxLength = RunConfig.max_length,
    device: Device = RunConfig.device,
    out: Out = Path("runs/squeeze"),
    resume: Resume = False,
):
    """Squeeze a light run's bonds in small cuts with tuning between them (the paper's Algorithm 2), step by step."""
    options = locals()
    names = {field.name for field in fields(Plan)} - {"cores", "gauge", "tuned"}
    given = {name: options[name] for name in names} | {"cores": train_cores, "gauge": cut_gauge}
    plan = plan_of(variant, **{name: value for name, value in given.items() if value is not None})
    if run is None:
        require_fit(plan, RunConfig(cores=cores, gauge=gauge))
    config = None if run else _config(options)
    _require_writable(out)
    from mpo_tutorial.experiments import finetune, squeezing
    from mpo_tutorial.experiments.tuned import Tuned

    if run is not None and not plan.tuned:
        raise ValueError(f"{variant} starts from the pretrained weights, so leave out --run, got {run}")
    if run is not None:
        prepared = Tuned.of_run(run).prepared
    else:
        prepared = finetune.prepare(config)
        if plan.tuned:
            console.print("Light fine-tuning first, from which squeezing starts.")
            finetune.run(prepared, out / "light", resume=resume, splits=("validation",))

    def show(step) -> None:
        told = zip(squeeze_tables.STEP_HEAD, squeeze_tables.cells_of_step(step.as_dict()), strict=True)
        console.print(", ".join(f"{name} {cell}" for name, cell in told if cell), soft_wrap=True, markup=False)

    record = squeezing.run(prepared, plan, out, resume=resume, show=show)
    for sentence in squeeze_tables.sentences_of_squeezing(record):
        console.print(sentence, soft_wrap=True)
    console.print(f"Record: {out / 'record.json'}   Model: {out / squeezing.MODEL}")


@app.command("squeeze-study")
def squeeze_study(
    variant: Variants = None,
    model: Model = RunConfig.model,
    micro_batch_size: MicroBatchSize = RunConfig.micro_batch_size,
    device: Device = RunConfig.device,
    out: Out = Path("runs/squeeze-study"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Is squeezing better than one good cut and as many steps? What decides it, and what stands beside it (a day on two cores)."""
    from mpo_tutorial.experiments import squeezes, study

    config = RunConfig(model=model, micro_batch_size=micro_batch_size, device=device)
    made = squeezes.study(config, out.resolve() / "starts", variant)
    _require_writable(out)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    points = study.run(made, out, **options, show=partial(console.print, soft_wrap=True))
    _print_comparison(points, squeezes.SQUEEZE, out, squeeze_tables.RACE_HEAD, squeeze_tables.cells_of_race)


@app.command()
def formats(
    variant: Variants = None,
    model: Model = RunConfig.model,
    micro_batch_size: MicroBatchSize = RunConfig.micro_batch_size,
    device: Device = RunConfig.device,
    out: Out = Path("runs/formats"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Is the MPO the best format to compress into? SVD, CP, Tucker, ring, Monarch, and ALBERT's two ideas (hours on two cores)."""
    from mpo_tutorial.course import format_results
    from mpo_tutorial.experiments import format_costs, study
    from mpo_tutorial.experiments import formats as bench
    from mpo_tutorial.experiments.compare import summarise

    config = RunConfig(model=model, micro_batch_size=micro_batch_size, device=device)
    made = bench.study(config, out.resolve() / "starts", variant)
    _require_writable(out)
    show = partial(console.print, soft_wrap=True)
    points = study.run(made, out, resume=resume, workers=workers, scheduler=scheduler, show=show)
    spent = study.run(format_costs.study(config), out / COSTS, resume=resume, show=show)
    summary = summarise(points, bench.COMPARISON)
    _print_table(format_results.HEAD, format_results.cells(summary, spent))
    for sentence in format_results.sentences(summary, spent):
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Record: {out / study.RECORD}")


@app.command()
def networks(
    variant: Variants = None,
    train_size: TrainSize = RunConfig.train_size,
    device: Device = RunConfig.device,
    out: Out = Path("runs/networks"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """Can a network live as MPOs from the start? FC2 and LeNet-5 on Fashion-MNIST, dense and as chains (two hours on two cores)."""
    from mpo_tutorial.experiments import network_study as bench
    from mpo_tutorial.experiments import study

    made = bench.study(RunConfig(train_size=train_size, device=device), variant)
    _require_writable(out)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    points = study.run(made, out, **options, show=partial(console.print, soft_wrap=True))
    _print_comparison(points, bench.NETWORKS, out, tables.NETWORKS_HEAD)


@app.command()
def movement(
    model: Model = RunConfig.model,
    task: Task = RunConfig.task,
    train_size: TrainSize = RunConfig.train_size,
    epochs: Epochs = RunConfig.epochs,
    learning_rate: LearningRate = RunConfig.learning_rate,
    device: Device = RunConfig.device,
    seeds: Annotated[
        int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Full runs whose matrices are watched.")
    ] = 5,
    out: Out = Path("runs/movement"),
    resume: Resume = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
):
    """How far full fine-tuning moves a model, and what of that light fine-tuning has in reach (an hour on two cores)."""
    if seeds < 1:
        raise ValueError(f"seeds is an integer of at least 1, got {seeds}")
    config = _config({**locals(), "method": "full"})
    from mpo_tutorial.experiments import movement, movement_results, study

    options = {"resume": resume, "workers": workers, "scheduler": scheduler}
    points = study.run(movement.study(config, seeds), out, **options, show=console.print)
    _print_table(*movement_results.movement_table(points))
    _print_table(*movement_results.reach_table(points))
    console.print(f"Record: {out / study.RECORD}")


def _moved(old: str, new: str) -> None:
    """A command that was renamed: it says so, whatever it is given."""

    @app.command(old, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def command():
        raise ValueError(f"the command {old} is now {new}; {new} --help lists its options")


_moved("tradeoff", "cuts")
_moved("truncate", "cuts")


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of finished runs; of all nine GLUE tasks, their score as well.")
    ] = None,
):
    """Print the comparison that is shipped with the package; or what some runs measured."""
    if not runs:
        from mpo_tutorial.experiments.light import LIGHT

        shipped = records.shipped_points(LIGHT.name)
        console.print(tables.markdown_of_comparison(shipped, LIGHT), soft_wrap=True, markup=False)
        return
    from mpo_tutorial.experiments.glue import GLUE, glue_score

    figures, advice = {}, "give folders that mpo-tutorial finetune has made, or light and full in a demo's"
    for run in runs:
        if not (run / "record.json").is_file():
            raise FileNotFoundError(f"{run} holds no record.json; {advice}")
        record = records.read_run(run / "record.json", advice, {"test": forms.MEASURED})
        console.print(f"{record['config']['task']}: {tables.sentence_on_metrics(record)}", soft_wrap=True, markup=False)
        main, *_ = tables.metrics_of(record["test"]).values()
        figures[record["config"]["task"].removeprefix("glue/")] = 100 * main["value"]
    if figures.keys() == GLUE.keys():
        console.print(f"GLUE score: {glue_score(figures):.1f}")


@app.command()
def collect(
    folder: Annotated[Path, typer.Argument(help="With the files that `ex.progress()` wrote, one for each of a class.")],
    out: Annotated[Path, typer.Option(help="The table, as comma-separated values.")] = Path("class.csv"),
):
    """Make one table of what a class has done of the exercises."""
    from mpo_tutorial.course import collect

    found, unread = collect.collect(folder)
    rows = collect.table(found)
    with records.replacing(out) as partial:
        partial.write_text(collect.as_csv(rows), encoding="utf-8", newline="")
    _print_table(rows[0], rows[1:])
    for told in unread:
        console.print(f"Not read: {told}", soft_wrap=True, markup=False)
    console.print(f"{len(found)} of {len(found) + len(unread)} files read; the table is in {out}.", soft_wrap=True)
    if unread:
        raise typer.Exit(1)


@app.command()
def bench(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeat: Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Turns of each contender.")] = 15,
    out: Out = Path("runs/bench"),
    resume: Resume = False,
):
    """Speed and memory beside other libraries and the counted limit (about a quarter of an hour on two quiet cores)."""
    from mpo_tutorial.course.bench_tables import tables
    from mpo_tutorial.experiments import bench, study

    made = bench.study(device=device, repeat=repeat)
    _require_writable(out)
    points = study.run(made, out, resume=resume, show=console.print)
    for table in tables(bench.summarise(points)):
        console.print(f"\n{table.title}")
        _print_table(table.head, table.rows)
    console.print(f"\nRecord: {out / study.RECORD}")


@app.command("bench-gpu")
def bench_gpu(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    repeat: Annotated[int, typer.Option(parser=WHOLE, metavar="INTEGER", help="Turns of each contender.")] = 10,
    config: Annotated[
        list[Path] | None, typer.Option(help="A config.json instead of BERT-base's and BERT-large's.")
    ] = None,
    out: Out = Path("runs/bench-gpu"),
    resume: Resume = False,
):
    """Steps of full, light and LoRA, decompositions and forward passes of BERTs on a GPU (about half an hour)."""
    from mpo_tutorial.course import gpu_tables
    from mpo_tutorial.experiments import gpu_bench, study

    made = gpu_bench.study([*map(str, config)] if config else gpu_bench.MODELS, device=device, repeat=repeat)
    _require_writable(out)
    points = study.run(made, out, resume=resume, show=partial(console.print, soft_wrap=True, markup=False))
    for table in gpu_tables.tables(points):
        console.print(f"\n{table.title}")
        _print_table(table.head, table.rows)
    for sentence in gpu_tables.sentences(points):
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"\nRecord: {out / study.RECORD}")


@app.command()
def doctor():
    """Check this machine: Python, packages, threads, memory, GPU, model, data, hub, disk."""
    from mpo_tutorial.doctor import examine

    checks = examine()
    rows = [("fix" if check.fix else "ok", check.name, check.found, check.fix or "") for check in checks]
    _print_table(("", "what", "found", "type this"), rows)
    if any(check.fix for check in checks):
        raise typer.Exit(1)


def _settled(options: dict) -> RunConfig:
    """The config among a command's options; what it names must exist, before torch is imported."""
    from mpo_tutorial.experiments.tasks import load_task

    names = {field.name for field in fields(RunConfig)}
    config = RunConfig(**{name: value for name, value in options.items() if name in names})
    return config.settled(load_task(config.task))


def _config(options: dict) -> RunConfig:
    """The same, the budget's size chosen, and the output folder made."""
    config = _settled(options)
    if options.get("budget") is not None:
        from mpo_tutorial.experiments.finetune import within_budget

        config, said = within_budget(config, options["budget"])
        console.print(said, soft_wrap=True)
    _require_writable(options["out"])
    return config


def _require_writable(out: Path) -> None:
    """Make the output folder, or refuse it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(
            f"the output folder must be writable, {out} is not ({error.strerror}); take another by --out"
        ) from error


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(*head, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def main() -> None:
    """Run a command; the one place where an error becomes a line."""
    click_error = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
    try:
        code = app(standalone_mode=False)
        if code == 130:  # what Typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
    except click_error as error:
        code = _refuse(f"{error.format_message().rstrip('.')}; --help lists what there is")
    except (typer.Abort, KeyboardInterrupt):
        code = _refuse(
            "stopped by Ctrl-C; what was finished of a run is kept, and the same command with --resume goes on from it"
        )
    except (ValueError, OSError, MemoryError, ImportError) as error:
        if os.environ.get("MPO_TUTORIAL_DEBUG"):
            raise
        code = _refuse(str(error))
    sys.exit(code)


def _refuse(message: str) -> int:
    print(f"mpo-tutorial: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return 2
