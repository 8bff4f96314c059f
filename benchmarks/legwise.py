"""What chapter 06 tried and left: cuts weighted by the second moments of each leg, beside the plain and the fitted cut.

Of a layer's input covariance C the part is taken that acts on each in leg by itself, a Kronecker product. Its root is multiplied
into the cores, the bonds are cut, and its inverse is multiplied in again: no bond grows. Whole C has no root of that kind.

    python benchmarks/legwise.py RUN [RUN ...] --out record.json

where each RUN is the folder of a finished light run; the record of chapter 06 is of those that `mpo-tutorial truncate` makes.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.degradation import CALIBRATION, unused
from mpo_tutorial.experiments.tradeoff import Tuned
from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.models.activations import Moments, input_moments
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.truncation import bonds_of_ratio

RATIOS = (0.6, 0.4)


def leg_moments(metric: Tensor, legs: Sequence[int]) -> list[Tensor]:
    """The second moments of each leg by itself, of shape (leg, leg): `metric` traced over the other legs, over its trace."""
    found = []
    for k in range(len(legs)):
        rest = metric.reshape(*legs, *legs)
        for m in reversed([m for m in range(len(legs)) if m != k]):
            rest = rest.diagonal(dim1=m, dim2=m + rest.ndim // 2).sum(-1)
        found.append(rest / metric.trace())
    return found


def legwise_cut(mpo: MPO, bonds: Sequence[int], metric: Tensor) -> MPO:
    """Cut the bonds of an MPO without padding, errors weighted by the `leg_moments` of `metric`."""
    if any(mpo.padding):
        raise ValueError(f"leg moments are those of legs without padding, got {mpo.shape}")
    forth, back = [], []
    for moments in leg_moments(metric.double(), mpo.shape.in_legs):
        values, vectors = torch.linalg.eigh(moments)
        forth.append((vectors * values.sqrt()) @ vectors.T)
        back.append((vectors / values.sqrt()) @ vectors.T)
    return _times(_times(mpo, forth).truncate(bonds), back)


def _times(mpo: MPO, matrices: Sequence[Tensor]) -> MPO:
    """The MPO of (A_1 x ... x A_n) M, with a matrix A_k of shape (leg, leg) for each in leg."""
    pairs = zip(matrices, mpo.cores, strict=True)
    return MPO(tuple(torch.einsum("ij,ajob->aiob", matrix.to(core), core) for matrix, core in pairs))


def cuts(layer: MPOLinear, moments: Moments, ratio: float) -> dict[str, MPO]:
    """The three cuts of a layer, at equal bonds."""
    mpo, metric = layer.mpo, moments.metric(centred=True)
    bonds = bonds_of_ratio("a layer", mpo.shape, ratio)
    plain = mpo.truncate(bonds)
    return {
        "plain": plain,
        "legwise": legwise_cut(mpo, bonds, metric),
        "fitted": fit(plain, mpo.to_matrix(), metric),
    }


def output_error(mpo: MPO, matrix: Tensor, covariance: Tensor) -> float:
    """Of the outputs about their mean, root mean square, relative."""
    lost = matrix - mpo.to_matrix()
    return ((lost * (covariance @ lost)).sum() / (matrix * (covariance @ matrix)).sum()).sqrt().item()


def points(run: Path) -> list[dict]:
    """The error of each matrix's outputs, cut in each way to each ratio, on sentences that the run was not trained on."""
    prepared = Tuned.of_run(run).prepared
    config, model, tokenizer = prepared.config, prepared.model, prepared.tokenizer
    used = prepared.task.train(config.train_size)[:CALIBRATION]
    taken, other = (
        input_moments(model, tokenizer, [text for text, _ in rows], max_length=config.max_length, progress=True)
        for rows in (used, unused(prepared)[:CALIBRATION])
    )
    found = []
    for ratio, name in tqdm(list(product(RATIOS, taken)), desc=f"cutting seed {config.seed}", unit="matrix"):
        layer = model.get_submodule(name)
        for way, mpo in cuts(layer, taken[name], ratio).items():
            error = output_error(mpo, layer.mpo.to_matrix(), other[name].covariance)
            found.append({"seed": config.seed, "ratio": ratio, "way": way, "matrix": name, "error": error})
    return found


def summary(found: Sequence[dict]) -> list[dict]:
    """For each ratio and way the mean error over matrices: over all seeds, and least and largest of a seed."""
    rows = []
    for ratio, way in dict.fromkeys((point["ratio"], point["way"]) for point in found):
        chosen = [point for point in found if (point["ratio"], point["way"]) == (ratio, way)]
        means = [
            float(np.mean([point["error"] for point in chosen if point["seed"] == seed]))
            for seed in sorted({point["seed"] for point in chosen})
        ]
        rows.append({"ratio": ratio, "way": way, "error": float(np.mean(means)), "seeds": means})
    return rows


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = [point for run in options.runs for point in points(run)]
    record = {"kind": "legwise", **records.provenance(), "summary": summary(found), "points": found}
    records.write_record(record, options.out)
    for row in record["summary"]:
        seeds = ", ".join(f"{error:.3f}" for error in row["seeds"])
        print(f"{row['ratio']:.0%} {row['way']:8} mean error of the outputs {row['error']:.3f} (seeds: {seeds})")  # noqa: T201


if __name__ == "__main__":
    main()
