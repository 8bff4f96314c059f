"""What chapter 06 tried and left: cuts weighted by the second moments of each leg, beside the plain and the fitted cut.

Of a layer's input covariance C the part is taken that acts on each in leg by itself, a Kronecker product. Its root is multiplied
into the cores, the bonds are cut, and its inverse is multiplied in again: no bond grows. Whole C has no root of that kind.

    python benchmarks/legwise.py RUN [RUN ...] --out FOLDER

where each RUN is the folder of a finished light run; the record of chapter 06 is of those that `mpo-tutorial cuts` makes.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import torch

from mpo_tutorial.experiments.cut_results import output_errors
from mpo_tutorial.experiments.study import Point, Setting, Study, run
from mpo_tutorial.experiments.tuned import CALIBRATION, Tuned, config_of_run
from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.metric import LegMetric, output_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.models.activations import Moments
from mpo_tutorial.models.families import mpo_matrices
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.truncation import bonds_of_ratio

WAYS = ("plain", "legwise", "fitted")
RATIOS = (0.6, 0.4)


def cuts(layer: MPOLinear, moments: Moments, ratio: float) -> dict[str, MPO]:
    """The three cuts of a layer, at equal bonds."""
    mpo, metric = layer.mpo, moments.metric(centred=True)
    bonds = bonds_of_ratio("a layer", mpo.shape, ratio)
    plain = mpo.truncate(bonds)
    return {
        "plain": plain,
        "legwise": LegMetric.near(metric, mpo.shape).truncate(mpo.to_matrix(), bonds),
        "fitted": fit(plain, mpo.to_matrix(), metric),
    }


def measure(runs: Mapping[int, str], setting: Setting) -> dict:
    """The error of each matrix's outputs, cut in a way to a ratio, on sentences that the run was not trained on."""
    tuned, fitted_to, other = _opened(runs[setting["seed"]])
    errors = {}
    for name, moments in fitted_to.items():
        layer = tuned.model.get_submodule(name)
        mpo = cuts(layer, moments, setting["ratio"])[setting["way"]]
        matrix, covariance = layer.mpo.to_matrix(), other[name].covariance
        whole = output_error(matrix, torch.zeros_like(matrix), covariance)
        errors[name] = output_error(matrix, mpo.to_matrix(), covariance) / whole
    return {"errors": errors}


@lru_cache(maxsize=1)
def _opened(run: str) -> tuple[Tuned, dict[str, Moments], dict[str, Moments]]:
    tuned = Tuned.of_run(Path(run))
    other = replace(tuned.inputs, sentences=[text for text, _ in tuned.unused[:CALIBRATION]])
    fitted_to, other = (inputs.of(tuned.model, list(mpo_matrices(tuned.model))) for inputs in (tuned.inputs, other))
    return tuned, fitted_to, other


def study(runs: Sequence[Path]) -> Study:
    """Of some light runs that differ in the seed."""
    folders = {config_of_run(run).seed: str(run) for run in runs}

    def settings(_points: list[Point]) -> list[Setting]:
        return [{"seed": seed, "ratio": ratio, "way": way} for seed, ratio, way in product(folders, RATIOS, WAYS)]

    return Study("legwise", 2, partial(measure, folders), {"cuts": settings})


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
