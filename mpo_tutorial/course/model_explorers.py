"""Explorers of a whole model: its map, and what cutting its bonds costs."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from mpo_tutorial.course import figures, plots
from mpo_tutorial.course.explorers import listed
from mpo_tutorial.experiments import statistics
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.families import KINDS, PAPERS, PARTS, dense_matrices, place
from mpo_tutorial.models.ledger import Trained
from mpo_tutorial.models.look import look_at
from mpo_tutorial.models.truncation import Cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.experiments.tuned import Tuned


class ModelMap:
    """Every matrix of a model: the size of its cores and the entropy of its bonds, beside random weights.

    Parameters
    ----------
    model : a transformers model
        With dense matrices, as it was loaded.
    n_cores : int
    seed : int
        Of the re-initialised model that the trained one is compared with.
    """

    def __init__(self, model: "PreTrainedModel", n_cores: int = 5, seed: int = 0):
        torch.manual_seed(seed)
        blank = type(model)(model.config)
        self.trained, self.random = (
            {n: self._spectra(m, n_cores) for n, m in dense_matrices(x)} for x in (model, blank)
        )
        self._names = {place(name)[:2]: name for name in self.trained}

    @staticmethod
    def _spectra(linear: nn.Linear, n_cores: int) -> Spectra:
        matrix = linear.weight.detach().T
        return Spectra.of(matrix, balanced_shape(*matrix.shape, n_cores))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self._names if layer is not None}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of matrices, in the order in which the model has them."""
        return tuple(dict.fromkeys(kind for _, kind in self._names))

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """Those that layers have."""
        return tuple(dict.fromkeys(kind for layer, kind in self._names if layer is not None))

    def name(self, layer: int, kind: str) -> str:
        """The model's own name for a matrix; those that no layer owns are found with any."""
        return self._names.get((layer, kind)) or self._names[None, kind]

    def entropies(self, cut: int, of: dict[str, Spectra] | None = None) -> np.ndarray:
        """Entropy of one bond, cut 1 being the first, of every layer's matrix of every kind, in nats."""
        of = self.trained if of is None else of
        names = [[self._names[layer, kind] for kind in self.layer_kinds] for layer in self.layers]
        return np.array([[of[name].entropies()[cut - 1] for name in row] for row in names])

    def in_words(self, layer: int, kind: str) -> str:
        name = self.name(layer, kind)
        shape = self.trained[name].shape
        sizes = shape.n_params_each(shape.full_bonds)
        share = 100 * sizes[shape.central] / sum(sizes)
        pairs = zip(self.trained[name].entropies(), self.random[name].entropies(), strict=True)
        return (
            f"{name}: {shape.in_size} x {shape.out_size}, bonds {listed(shape.full_bonds)}. The central core holds {share:.1f} % "
            f"of the numbers. Entropies, trained and random: {listed(f'{a:.2f} / {b:.2f}' for a, b in pairs)} nats."
        )

    def figure(self, layer: int, kind: str) -> Figure:
        name = self.name(layer, kind)
        spectra = {"trained": self.trained[name], "random": self.random[name]}
        shape = self.trained[name].shape
        with plots.styled(3, (16, 4.6)) as (figure, (left, middle, right)):
            plots.core_parameters(left, shape.n_params_each(shape.full_bonds), shape.central)
            plots.bond_entropies(middle, {k: s.entropies() for k, s in spectra.items()}, shape.full_bonds)
            plots.spectrum(right, {k: s.values[shape.central - 1] / s.norm for k, s in spectra.items()})
            right.set_title(f"Schmidt values of bond {shape.central}")
            right.set_ylabel("share of the norm")
        return figure


class TradeoffExplorer:
    """Accuracy against parameters as the bonds of a tuned model are cut, on record and measured anew.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    tuned : callable, optional
        Gives the tuned model, when a first measurement asks for it; without it, the one that is shipped.
    """

    def __init__(self, record: dict, tuned: "Callable[[], Tuned] | None" = None):
        self.record = record
        self.points = {(point["part"], point["max_bond"]): point for point in record["bonds"]}
        self.measured: dict[tuple[str, int], dict] = {}
        self._tuned = cache(tuned or _shipped)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part for part, _ in self.points))

    @property
    def bonds(self) -> tuple[int, ...]:
        """The bonds on record, ascending."""
        return tuple(sorted({bond for _, bond in self.points}))

    def measure(self, part: str, bond: int, n: int, advance: Callable[[float], None] = lambda _: None) -> dict:
        """Evaluate a setting on the first n validation sentences, and keep the result for the picture.

        Returns
        -------
        dict : as `statistics.score` gives it
        """
        tuned = self._tuned()
        cut = tuned.truncated(Cut(max_bond=bond, matrices=part))
        self.measured[part, bond] = statistics.score(tuned.grade(cut, n, advance))
        return self.measured[part, bond]

    def entropy_kept(self, part: str, bond: int) -> float:
        """Mean entropy of the cut central bonds, as a share of what it was before the cut."""
        return self.points[part, bond]["entropy"] / self.points[part, max(self.bonds)]["entropy"]

    def in_words(self, part: str, bond: int) -> str:
        point = self.points[part, bond]
        where = "all matrices" if part == "all" else f"the {part} matrices"
        said = (
            f"Bonds of {where} at most {bond}: {point['central'] / 1e6:.2f} M central and {point['auxiliary'] / 1e6:.2f} M "
            f"auxiliary numbers, {100 * point['ratio']:.0f} % of the dense {self.record['dense'] / 1e6:.2f} M. "
            f"{100 * self.entropy_kept(part, bond):.0f} % of the central bonds' entropy kept. "
            f"On record: {_accuracy(point['validation'])} of {point['validation']['n']} validation sentences right."
        )
        if live := self.measured.get((part, bond)):
            recorded = statistics.correct_sentences(point["validation"])[: live["n"]]
            said += (
                f" Measured here, on {live['n']} of them: {_accuracy(live)}, on record {100 * recorded.mean():.1f} %."
            )
        return said

    def figure(self, part: str, bond: int) -> Figure:
        with plots.styled(2, (15, 5.6), (2, 1)) as (figure, (left, right)):
            curves = {part: [point for point in self.record["bonds"] if point["part"] == part] for part in self.parts}
            measured = [(self.points[setting], score) for setting, score in self.measured.items()]
            figures.tradeoff(left, curves, self.record["chance"]["validation"], self.points[part, bond], measured)
            figures.shares_kept(
                right, self.points[part, max(self.bonds)], self.points[part, bond], self.entropy_kept(part, bond)
            )
        return figure


class DepthExplorer:
    """What cutting does to a tuned model, layer after layer: the states' errors and the accuracy, on record.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    """

    def __init__(self, record: dict):
        self.record = record
        self._states: dict[tuple, dict[str, list]] = {}
        for point in record["ratios"]:
            ways = self._states.setdefault((point["part"], point["ratio"]), {})
            ways.setdefault(point["way"], []).append(point["states"])
        self._accuracy = {(row["way"], row["part"], row["ratio"]): row["accuracy"] for row in record["summary"]}

    @property
    def parts(self) -> tuple[str, ...]:
        """What was cut at every ratio."""
        return tuple(dict.fromkeys(part for part, ratio in self._states if len(self.ratios_of(part)) > 1))

    @property
    def layers(self) -> tuple[str, ...]:
        """Single layers, cut at one ratio alone."""
        return tuple(part for part, _ in self._states if part.startswith("layer "))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Single kinds of matrices in all layers, cut at that same ratio."""
        return tuple(part for part, _ in self._states if part in KINDS)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Those of the parts, ascending."""
        return tuple(sorted({ratio for part in self.parts for ratio in self.ratios_of(part)}))

    def ratios_of(self, part: str) -> list[float]:
        return [ratio for found, ratio in self._states if found == part and ratio is not None]

    def states(self, part: str, ratio: float) -> dict[str, list[float]]:
        """Relative errors after each layer by way, the mean over seeds."""
        return {way: np.mean(errors, axis=0).tolist() for way, errors in self._states[part, ratio].items()}

    def accuracy(self, way: str, part: str, ratio: float | None) -> dict:
        """Mean and interval."""
        return self._accuracy[way, part, ratio]

    def losses_in_words(self, parts: Sequence[str], ratio: float, way: str = "plain") -> str:
        """What cutting costs in accuracy."""
        rows = {row["part"]: row for row in self.record["summary"] if (row["way"], row["ratio"]) == (way, ratio)}
        losses = listed(f"{part} {_points(rows[part]['minus_uncut'])}" for part in parts)
        return f"Change of accuracy in points at {100 * ratio:.0f} %, {figures.WAYS[way][2]}: {losses}."

    def gains_in_words(self, way: str, ratio: float) -> str:
        """What a way brings over the plain one at equal parameters, paired by seeds, in each part."""
        rows = [row for row in self.record["summary"] if (row["way"], row["ratio"]) == (way, ratio)]
        gains = listed(f"{row['part']} {_points(row['minus_plain'])}" for row in rows if row["part"] in self.parts)
        return f"{figures.WAYS[way][2]} minus plain at {100 * ratio:.0f} %, in points: {gains}.".capitalize()

    def in_words(self, part: str, ratio: float) -> str:
        found = []
        for way, errors in self.states(part, ratio).items():
            accuracy = self.accuracy(way, part, ratio)
            found.append(
                f"{figures.WAYS[way][2]}: error {errors[0]:.2f} after the first layer, {errors[-1]:.2f} after the last, "
                f"accuracy {100 * accuracy['mean']:.1f} %{_interval(accuracy)}"
            )
        return f"Cut in {part}, {100 * ratio:.0f} % of its parameters left. {'; '.join(found)}."

    def figure(self, part: str, ratio: float) -> Figure:
        with plots.styled(2, (17, 6)) as (figure, (left, right)):
            figures.errors_by_layer(left, self.states(part, ratio))
            figures.accuracy_of_ways(right, self.record, part, ratio)
        return figure


class LedgerExplorer:
    """What light fine-tuning trains of the paper's models, and where it is; from their configs, without weights.

    Parameters
    ----------
    names : sequence of str
        As `report.look_at` takes them.
    """

    CHOICES: ClassVar = {"the paper's": PAPERS, "all but the embedding": ", ".join(PARTS[1:]), "all": "all"}

    def __init__(self, names: Sequence[str]):
        self._views = {name: look_at(name, matrices="all") for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._views)

    @property
    def choices(self) -> tuple[str, ...]:
        """Which matrices become MPOs."""
        return tuple(self.CHOICES)

    def views(self, choice: str) -> list[Trained]:
        return [view.only(self.CHOICES[choice]) for view in self._views.values()]

    def view(self, name: str, choice: str) -> Trained:
        return self._views[name].only(self.CHOICES[choice])

    def in_words(self, name: str, choice: str) -> str:
        view = self.view(name, choice)
        left = view.dense - view.ledger.dense
        return (
            f"{name}: {view.dense / 1e6:.1f} M parameters, {view.ledger.dense / 1e6:.1f} M of them in {len(view.ledger.rows)} "
            f"matrices that become MPOs, {left / 1e6:.1f} M elsewhere. Auxiliary cores: {view.auxiliary / 1e6:.2f} M, "
            f"{100 * view.auxiliary / view.dense:.1f} % of the dense model. With everything but the central cores trained: "
            f"{view.everything / 1e6:.2f} M, {100 * view.everything / view.dense:.1f} %."
        )

    def figure(self, name: str, choice: str) -> Figure:
        with plots.styled(2, (17, 5.6), (1.5, 1)) as (figure, (left, right)):
            figures.ledger(left, self.view(name, choice).ledger.by_kind()).set_title(name)
            figures.trained_shares(right, self.views(choice))
        return figure


def _shipped() -> "Tuned":
    # It loads transformers, which a reader who only moves the slider never needs.
    from mpo_tutorial.experiments.tuned import Tuned

    return Tuned.shipped()


def _accuracy(score: dict) -> str:
    low, high = score["interval"]
    return f"{100 * score['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _points(found: dict) -> str:
    return f"{100 * found['mean']:+.1f}{_interval(found, '+')}"


def _interval(found: dict, sign: str = "") -> str:
    """Its ends times 100, where there were seeds enough for one."""
    ends = (f"{100 * end:{sign}.1f}" for end in found["interval"] or ())
    return f" [{', '.join(ends)}]" if found["interval"] else ""
