"""Explorers of squeezing: one on record, to be gone through step by step, and one that goes on when it is asked to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mpo_tutorial.course import plots, squeeze_figures
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.families import place

if TYPE_CHECKING:
    from mpo_tutorial.experiments.squeeze import Squeeze


class SqueezeExplorer:
    """A squeezing step by step: which matrix was cut, what that was estimated to cost, what it did cost, what is left.

    Parameters
    ----------
    steps : sequence of mappings
        As `Step.as_dict` gives them; the first is the model as it came.
    matrices : mapping of names to mappings
        Of each matrix the "in_legs", "out_legs" and "bonds" at the start.
    error : str
        By what the plan judges, of `plans.ERRORS`.
    """

    def __init__(self, steps: Sequence[Mapping], matrices: Mapping[str, Mapping], error: str):
        self.steps, self.error = steps, error
        self._shapes = {name: Shape(tuple(m["in_legs"]), tuple(m["out_legs"])) for name, m in matrices.items()}
        self._start = {name: tuple(m["bonds"]) for name, m in matrices.items()}

    @classmethod
    def of_record(cls, record: Mapping) -> "SqueezeExplorer":
        """Of the record of a squeezing in a folder."""
        return cls(record["steps"], record["matrices"], record["plan"]["error"])

    @property
    def dense(self) -> int:
        return sum(shape.in_size * shape.out_size for shape in self._shapes.values())

    @property
    def last(self) -> int:
        """The number of the last step."""
        return len(self.steps) - 1

    def shares(self, number: int) -> dict[str, float]:
        """Of each matrix what is left after a step, as a share of its dense numbers."""
        bonds = dict(self._start)
        for step in self.steps[: number + 1]:
            bonds |= {cut["matrix"]: tuple(cut["after"]) for cut in step["cuts"]}
        return {
            name: shape.n_params(bonds[name]) / (shape.in_size * shape.out_size) for name, shape in self._shapes.items()
        }

    def picks(self) -> list[str]:
        """Names of the matrices that were cut, in order."""
        return [cut["matrix"] for step in self.steps for cut in step["cuts"]]

    def in_words(self, number: int) -> str:
        step = self.steps[number]
        left = f"{100 * step['parameters'] / self.dense:.1f} % of the numbers are left"
        said = f"Before the first cut: {left}" if not step["cuts"] else f"Step {number}: {self._cuts(step)}; {left}"
        if step["validation"] is None:
            return f"{said}."
        if step["loss_before"] is not None:
            said += f". Loss {step['loss_before']:.3f} after the cut, {step['loss_after']:.3f} after tuning"
        else:
            said += f". Loss {step['loss_after']:.3f}"
        judged = step["validation"]
        return f"{said}, accuracy {100 * judged['accuracy']:.1f} %, AUC {judged['auc']:.3f}."

    def _cuts(self, step: Mapping) -> str:
        if len(step["cuts"]) > 1:
            return f"{len(step['cuts'])} matrices are cut"
        (cut,) = step["cuts"]
        before, after = (", ".join(map(str, cut[name])) for name in ("before", "after"))
        return f"{self._told(cut['matrix'])} from {before} to {after}, {self._estimated(cut)}"

    def _estimated(self, cut: Mapping) -> str:
        unit = {
            "absolute": "",
            "relative": ", as a share of its norm,",
            "outputs": ", as a share of the outputs' norm,",
        }
        return f"error{unit[self.error]} {cut['estimate']:.3g} estimated, {cut['error']:.3g} in truth"

    @staticmethod
    def _told(name: str) -> str:
        found = place(name)
        return found.kind if found.layer is None else f"{found.kind} of layer {found.layer}"

    def figure(self, number: int) -> Figure:
        with plots.styled(1, (10, 10), rows=2) as (figure, (left, right)):
            picked = [cut["matrix"] for cut in self.steps[number]["cuts"]]
            squeeze_figures.matrices_left(left, self.shares(number), picked)
            squeeze_figures.way_down(right, self.steps, self.dense, number)
        return figure


class LiveSqueeze:
    """A squeezing that takes its next step when it is told to.

    Parameters
    ----------
    squeeze : Squeeze
        At its beginning, looking at the validation sentences.
    """

    def __init__(self, squeeze: "Squeeze"):
        matrices = squeeze.matrices
        self.squeeze, self._coming = squeeze, iter(squeeze)
        self.explorer = SqueezeExplorer([], matrices, squeeze.plan.error)
        self.advance()

    def advance(self) -> None:
        """The next step, if there is one."""
        next(self._coming, None)
        self.explorer.steps = [step.as_dict() for step in self.squeeze.steps]

    def in_words(self) -> str:
        said = self.explorer.in_words(self.explorer.last)
        return said if self.squeeze.stopped is None else f"{said} It has ended: {self.squeeze.stopped}."

    def figure(self) -> Figure:
        return self.explorer.figure(self.explorer.last)
