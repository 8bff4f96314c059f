"""What chapter 06 tried and left: cuts weighted by the second moments of each leg, beside the plain and the fitted cut.

Of a layer's input covariance C the part is taken that acts on each in leg by itself, a Kronecker product. Its root is multiplied
into the cores, the bonds are cut, and its inverse is multiplied in again: no bond grows. Whole C has no root of that kind.

    python benchmarks/legwise.py RUN [RUN ...] --out FOLDER

where each RUN is the folder of a finished light run; the record of chapter 06 is of those that `mpo-tutorial cuts` makes.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from mpo_tutorial.experiments.cut_results import output_errors
from mpo_tutorial.experiments.study import Point, Setting, Study, run
from mpo_tutorial.experiments.tuned import CALIBRATION, Tuned, config_of_run
from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.models.activations import Moments, input_moments
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.truncation import bonds_of_ratio

WAYS = ("plain", "legwise", "fitted")
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


def measure(runs: Mapping[int, str], setting: Setting) -> dict:
    """The error of each matrix's outputs, cut in a way to a ratio, on sentences that the run was not trained on."""
    tuned, other = _opened(runs[setting["seed"]])
    errors = {}
    for name, moments in tuned.moments.items():
        layer = tuned.model.get_submodule(name)
        mpo = cuts(layer, moments, setting["ratio"])[setting["way"]]
        errors[name] = output_error(mpo, layer.mpo.to_matrix(), other[name].covariance)
    return {"errors": errors}


@lru_cache(maxsize=1)
def _opened(run: str) -> tuple[Tuned, dict[str, Moments]]:
    tuned = Tuned.of_run(Path(run))
    sentences = [text for text, _ in tuned.unused[:CALIBRATION]]
    length = tuned.prepared.config.max_length
    return tuned, input_moments(tuned.model, tuned.prepared.tokenizer, sentences, max_length=length)


def study(runs: Sequence[Path]) -> Study:
    """Of some light runs that differ in the seed."""
    folders = {config_of_run(run).seed: str(run) for run in runs}

    def settings(_points: list[Point]) -> list[Setting]:
        return [{"seed": seed, "ratio": ratio, "way": way} for seed, ratio, way in product(folders, RATIOS, WAYS)]

    return Study("legwise", 1, partial(measure, folders), {"cuts": settings})


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    points = run(study(options.runs), options.out, resume=options.resume)
    for row in output_errors(points):
        seeds = ", ".join(f"{error:.3f}" for error in row["seeds"])
        print(f"{row['ratio']:.0%} {row['way']:8} mean error of the outputs {row['error']:.3f} (seeds: {seeds})")  # noqa: T201


if __name__ == "__main__":
    main()
