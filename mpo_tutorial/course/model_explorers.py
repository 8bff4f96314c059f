"""Explorers of whole models: the map of one, and the ledgers of several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from mpo_tutorial.course import figures, plots
from mpo_tutorial.course.explorers import listed
from mpo_tutorial.experiments.memory import Need, need
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.families import PAPERS, PARTS, USUAL, config_by_name, dense_matrices, place
from mpo_tutorial.models.ledger import Trained
from mpo_tutorial.models.look import look_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        with plots.wide_and_two((10, 8.5)) as (figure, (above, left, right)):
            plots.core_parameters(above, shape.n_params_each(shape.full_bonds), shape.central)
            plots.bond_entropies(left, {k: s.entropies() for k, s in spectra.items()}, shape.full_bonds)
            plots.spectrum(right, {k: s.values[shape.central - 1] / s.norm for k, s in spectra.items()})
            right.set_title(f"Schmidt values of bond {shape.central}")
            right.set_ylabel("value / norm")
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
        with plots.styled(2, (10, 5.2), (1.5, 1)) as (figure, (left, right)):
            figures.ledger(left, self.view(name, choice).ledger.by_kind()).set_title(name)
            figures.trained_shares(right, self.views(choice))
        return figure


class MemoryExplorer:
    """What fills a GPU in a step of fine-tuning; from configs, without weights and without a GPU.

    Parameters
    ----------
    names : sequence of str
        Of `families.KNOWN`, with layers as BERT's.
    length : int
        Tokens of a sentence.
    gigabytes : float
        What the GPU holds that a line marks, in units of 10^9 bytes.
    """

    METHODS: ClassVar = {"full fine-tuning": "full", "light fine-tuning": "light", "LoRA (as many numbers)": "lora"}
    PRECISIONS = ("float32", "bfloat16")
    PARTS: ClassVar = {
        "weights": "weights",
        "gradients": "gradients",
        "optimiser": "AdamW's averages",
        "matrices": "matrices multiplied out",
        "activations": "kept for the way back",
    }

    def __init__(self, names: Sequence[str], length: int = 128, gigabytes: float = 16.0):
        self.length, self.gigabytes = length, gigabytes
        self._views = {name: look_at(name, matrices=USUAL) for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._views)

    def need(self, name: str, method: str, sentences: int, precision: str) -> Need:
        """Estimated bytes of a step with so many sentences in memory at once; a method of `METHODS`."""
        view, kind = self._views[name], self.METHODS[method]
        more = {"full": 0, "light": view.ledger.total - view.ledger.dense, "lora": view.auxiliary}[kind]
        return need(
            config_by_name(name),
            sentences,
            self.length,
            total=view.dense + more,
            trained=view.dense if kind == "full" else view.auxiliary,
            rebuilt=view.ledger.dense if kind == "light" else 0,
            precision=precision,
        )

    def in_words(self, name: str, sentences: int, precision: str) -> str:
        found = {method: self.need(name, method, sentences, precision) for method in self.METHODS}
        sizes = listed(f"{method} {need.total / 1e9:.1f} GB" for method, need in found.items())
        fit = [method for method, need in found.items() if need.total <= 1e9 * self.gigabytes]
        kept = next(iter(found.values())).activations / 1e9
        who = (
            "All of them fit"
            if len(fit) == len(found)
            else f"Only {listed(fit)} would fit"
            if fit
            else "None of them fits"
        )
        return (
            f"{name}, {sentences} x {self.length} tokens at once, {precision}: {sizes}. {kept:.1f} GB of each are kept for the way "
            f"back. {who} into {self.gigabytes:g} GB."
        )

    def figure(self, name: str, sentences: int, precision: str) -> Figure:
        with plots.styled(1, (10, 5)) as (figure, (ax,)):
            for row, method in enumerate(self.METHODS):
                found, left = self.need(name, method, sentences, precision), 0.0
                for (part, label), colour in zip(self.PARTS.items(), plots.COLOURS, strict=False):
                    size = getattr(found, part) / 1e9
                    ax.barh(row, size, left=left, color=colour, label="" if row else label)
                    left += size
                beside = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "zorder": 5}
                ax.annotate(f"{left:.1f}", (left, row), bbox={"fc": "white", "ec": "none", "pad": 1}, **beside)
            ax.axvline(self.gigabytes, color=plots.BLACK, lw=2, ls="--")
            ax.set_yticks(range(len(self.METHODS)), self.METHODS)
            ax.invert_yaxis()
            ax.set_xlim(0, 1.12 * max(ax.get_xlim()[1], self.gigabytes))
            ax.set_xlabel(f"GB in a step; dashed: {self.gigabytes:g} GB")
            ax.set_title(f"{name}, {sentences} x {self.length} tokens, {precision}")
            ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.35, -0.2))
        return figure
