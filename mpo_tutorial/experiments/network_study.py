"""Can a network live as MPOs from the start? Those of Gao et al. 2020 on Fashion-MNIST, beside dense ones; a study.

Fixed before it was run: FC2 with a first layer of bond dimension 16 minus the dense FC2, all images to train on, paired by seeds,
against a margin of one point. Rates are chosen on the validation images by the rule of the study `rivals`, with more moves of a
grid. A trial of four of these networks, one seed each, had looked at the test images, to see how long a run takes; nothing was
chosen by it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mpo_tutorial.experiments import compare, floors, forms
from mpo_tutorial.experiments.compare import Comparison, Variant
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.rivals import RULE, around
from mpo_tutorial.experiments.study import Setting, Study
from mpo_tutorial.models.images import FASHION, ORDERS

if TYPE_CHECKING:
    from mpo_tutorial.models.networks import ImageClassifier

SEEDS = 5
EPOCHS, BATCH = 4, 128
TO_TRAIN_ON = 55_000  # all that the validation images leave
BONDS = (1, 2, 4, 8, 16)
MOVES = 6  # of a grid whose best rate is its last: networks that begin anew want far larger ones than we had thought
DENSE, CHAIN, DECOMPOSED = "FC2, dense", "FC2, MPO, bond 16", "FC2, MPO, bond 16, of a trained dense one"
DENSE_RATE, CHAIN_RATE = 1e-3, 4e-3  # the middle of each grid


def _variant(model: str, rate: float = CHAIN_RATE, beside: str = DENSE, task: str = FASHION) -> Variant:
    return Variant(around(rate), {"model": model, "task": task}, SEEDS, beside)


def _in_order(bond: int, order: str) -> Variant:
    return _variant(f"fc2-mpo-{bond}", beside=f"FC2, MPO, bond {bond}", task=f"{FASHION}, {order}")


def _lenet(which: str) -> Variant:
    """At the rate that is chosen for the paper's three layers."""
    options = {"model": f"lenet5-mpo-{which}", "task": FASHION}
    return Variant((), options, SEEDS, "LeNet-5, dense", rate_of="LeNet-5, MPO")


VARIANTS: Mapping[str, Variant] = {
    DENSE: _variant("fc2", DENSE_RATE),
    **{f"FC2, MPO, bond {bond}": _variant(f"fc2-mpo-{bond}") for bond in BONDS},
    "FC2, SVD": _variant("fc2-svd-16", DENSE_RATE),
    "FC2, CP": _variant("fc2-cp-16", DENSE_RATE),
    "FC2, Tucker": _variant("fc2-tucker-16", DENSE_RATE),
    **{f"FC2, MPO, bond {bond}, pixels {order}": _in_order(bond, order) for bond in (4, 16) for order in ORDERS},
    DECOMPOSED: _variant("fc2", beside=CHAIN),
    "LeNet-5, dense": _variant("lenet5", 2 * DENSE_RATE, "LeNet-5, dense"),
    "LeNet-5, MPO": _variant("lenet5-mpo", beside="LeNet-5, dense"),
    "LeNet-5, first layer an MPO": _lenet("first"),
    "LeNet-5, all layers MPOs": _lenet("all"),
}
NETWORKS = Comparison("networks", 1, VARIANTS, primary=(CHAIN, DENSE), **{**RULE, "moves": MOVES})


def study(base: RunConfig, names: list[str] | None = None) -> Study:
    """The study that makes it; parameters and errors as in `compare.study`. The device is no part of its settings."""
    size = TO_TRAIN_ON if base.train_size is None else base.train_size
    whole = {"model": "fc2", "task": FASHION, "method": "full", "epochs": EPOCHS, "train_size": size}
    batches = {"batch_size": BATCH, "micro_batch_size": BATCH}
    made = compare.study(NETWORKS, replace(base, device=RunConfig.device, **whole, **batches), names)
    return replace(made, measure=partial(measure, base.device), form=form)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    if setting["variant"] in floors.FLOORS:
        return compare.form(setting)
    return {**compare.form(setting), "entropies": dict.fromkeys(("before", "after"), forms.ANYTHING)}


def measure(device: str, setting: Setting) -> dict:
    """Train a network, or take a floor: what `compare.measure` gives, and "entropies" of the bonds of its first MPO layer, in
    nats, "before" and "after" training; None where there is none.
    """
    from mpo_tutorial.experiments.finetune import prepare, run
    from mpo_tutorial.models.networks import decomposed

    if setting["variant"] in floors.FLOORS:
        return compare.measure(setting, device)
    config = replace(RunConfig(**setting["config"]), device=device)
    prepared = prepare(config)
    options = {"progress": False, "splits": tuple(setting["splits"]), "keep_weights": False}
    with TemporaryDirectory() as folder:
        if setting["variant"] == DECOMPOSED:
            dense = prepare(replace(config, learning_rate=DENSE_RATE, epochs=EPOCHS))
            run(dense, Path(folder) / "dense", **{**options, "splits": ("validation",)})
            prepared.model.head = decomposed(dense.model.head, max(BONDS))
        before = entropies(prepared.model)
        record = run(prepared, Path(folder), **options)
    return {
        **compare.kept_of(record, setting["splits"]),
        "entropies": {"before": before, "after": entropies(prepared.model)},
    }


def entropies(model: "ImageClassifier") -> list[float] | None:
    """Of each bond of the first MPO layer, in nats; None without one."""
    from mpo_tutorial.maths.entropy import Spectra
    from mpo_tutorial.models.layers import mpo_layers

    layers = mpo_layers(model)
    if not layers:
        return None
    mpo = layers[0].mpo
    return list(Spectra.of(mpo.to_matrix(), mpo.shape).entropies())
