"""The dashboard of chapter 11: a setting of all that the course turns; what of it is counted, on record, and measured."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import numpy as np
from matplotlib.figure import Figure

from mpo_tutorial.course import cut_figures, plots
from mpo_tutorial.course.cut_explorers import shipped_model
from mpo_tutorial.course.tables import per_cent
from mpo_tutorial.maths.entropy import Spectra

if TYPE_CHECKING:
    from mpo_tutorial.experiments.tuned import Tuned

VERSION = 1
HERE = "rotten_tomatoes"
TASKS = {  # and how the study `light` calls its variants on them
    HERE: "",
    "rotten_tomatoes, 500 sentences": ", 500 sentences",
    "imdb, 128 tokens": ", imdb",
}
LIGHT = "light"
UNCUT = "none"
CUTS = (UNCUT, "plain", "fitted")
SWEEPS = 2  # of a fit that is made while somebody waits; the record's went on until nothing was gained
ASIDE = ("gauge", "pooler")  # what the study has besides methods


@dataclass(frozen=True)
class Setting:
    """What the dashboard shows.

    Parameters
    ----------
    task : str
        Of `TASKS`.
    method : str
        Of the study `light`.
    matrices : str
        Which are cut.
    cut : str
        Of `CUTS`.
    caps : tuple of int
        On each bond of every matrix that is cut; what is wider than a matrix's own bond leaves it as it is.
    """

    task: str = HERE
    method: str = LIGHT
    matrices: str = "all"
    cut: str = UNCUT
    caps: tuple[int, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether the model is in the package, to be cut; of the others there are records alone."""
        return (self.task, self.method) == (HERE, LIGHT)

    @property
    def is_cut(self) -> bool:
        return self.cut != UNCUT and self.is_here

    def as_query(self) -> str:
        """As the end of a link, or to be kept in a file.

        >>> Setting(cut="plain", caps=(6, 48, 48, 6)).as_query()
        'task=rotten_tomatoes&method=light&matrices=all&cut=plain&caps=6%2C48%2C48%2C6&version=1'
        """
        fields = {**asdict(self), "caps": ",".join(map(str, self.caps)), "version": VERSION}
        return urlencode(fields)


class Dashboard:
    """What is known of settings.

    Parameters
    ----------
    light : dict
        The study `light`, as `compare.summarise` gives it.
    cuts : dict
        The study `cuts`, as `cut_results.summarise` gives it.
    tuned : callable, optional
        Gives the tuned model, when the first setting asks for it; without it, the one that is shipped.
    """

    def __init__(self, light: dict, cuts: dict, tuned: "Callable[[], Tuned] | None" = None):
        self.variants = light["variants"]
        shown = [row for row in cuts["summary"] if row["way"] in ("uncut", *CUTS)]
        self.cuts = cuts = {**cuts, "summary": shown}
        self.measured: dict[Setting, dict] = {}
        self._tuned = cache(tuned or shipped_model)
        self._rows = {(row["way"], row["part"], row["ratio"]): row for row in cuts["summary"]}

    @property
    def parts(self) -> tuple[str, ...]:
        """What was cut at every ratio, of the chains of the encoder."""
        parts = {part for way, part, _ in self._rows if way == "fitted"}
        return tuple(part for part in ("all", "attention", "feed-forward") if part in parts)

    def methods(self, task: str) -> tuple[str, ...]:
        """Those that were tried on a task."""
        end = TASKS[task]
        others = [other for other in TASKS.values() if other]
        found = [
            name.removesuffix(end)
            for name in self.variants
            if name.endswith(end) and (end or not name.endswith(tuple(others)))
        ]
        return tuple(name for name in found if not any(word in name for word in ASIDE))

    @property
    def widest(self) -> tuple[int, ...]:
        """The largest of all matrices, for each bond."""
        return tuple(map(max, zip(*(of.shape.full_bonds for of in self._spectra.values()), strict=True)))

    def setting_of(self, query: str) -> Setting:
        """What `Setting.as_query` gave.

        Raises
        ------
        ValueError
            If it is of another version, or names what there is not; a sentence for the reader.
        """
        found = dict(parse_qsl(query.strip().removeprefix("?")))
        if found.pop("version", None) != str(VERSION):
            raise ValueError(
                f"this is no setting of version {VERSION} of the explorer; set it by hand, and copy the new text"
            )
        try:
            setting = Setting(**{**found, "caps": tuple(map(int, found.get("caps", "").split(",")))})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"a setting has {', '.join(asdict(Setting()))}, this one has {', '.join(found) or 'nothing'}"
            ) from error
        allowed = {
            "task": tuple(TASKS),
            "method": self.methods(setting.task) if setting.task in TASKS else (),
            "matrices": self.parts,
            "cut": CUTS,
        }
        for name, names in allowed.items():
            if getattr(setting, name) not in names:
                raise ValueError(f"{name} is one of {', '.join(names)}, got {getattr(setting, name)!r}")
        widest = self.widest
        if len(setting.caps) != len(widest) or not all(
            1 <= cap <= most for cap, most in zip(setting.caps, widest, strict=True)
        ):
            raise ValueError(
                f"the bonds are {len(widest)} numbers from 1 to {', '.join(map(str, widest))}, got {setting.caps}"
            )
        return setting

    @cached_property
    def _spectra(self) -> Mapping[str, Spectra]:
        from mpo_tutorial.models.families import mpo_matrices
        from mpo_tutorial.models.truncation import spectra_of

        return {name: spectra_of(layer) for name, layer in mpo_matrices(self._tuned().model).items()}

    def _bonds(self, setting: Setting) -> dict[str, tuple[int, ...]]:
        """Of every matrix, as it is cut."""
        from mpo_tutorial.models.families import matches

        bonds = {}
        for name, spectra in self._spectra.items():
            full = spectra.shape.full_bonds
            is_cut = setting.is_cut and matches(name, setting.matrices)
            bonds[name] = tuple(map(min, setting.caps, full)) if is_cut else full
        return bonds

    def counted(self, setting: Setting) -> dict[str, float]:
        """What follows from sizes and Schmidt values: "numbers" of all chains, the share that is "left" of the dense numbers of
        those that are cut, "bytes" of the whole model, "bound" on the relative error of all weights, and the share of the central
        bonds' entropy that is "kept".
        """
        from mpo_tutorial.models.families import matches

        numbers = full = left = dense = 0
        lost = whole = kept = uncut = 0.0
        for name, bonds in self._bonds(setting).items():
            spectra, shape = self._spectra[name], self._spectra[name].shape
            size = shape.n_params(shape.usable(bonds))
            numbers, full = numbers + size, full + shape.n_params(shape.full_bonds)
            if matches(name, setting.matrices):
                left, dense = left + size, dense + shape.in_size * shape.out_size
            lost, whole = lost + spectra.bound(bonds) ** 2, whole + spectra.norm**2
            kept, uncut = kept + self._central(spectra, bonds), uncut + self._central(spectra, shape.full_bonds)
        return {
            "numbers": numbers,
            "left": left / dense,
            "bytes": 4 * (self.variants[LIGHT]["total"] - full + numbers),
            "bound": (lost / whole) ** 0.5,
            "kept": kept / uncut,
        }

    @staticmethod
    def _central(spectra: Spectra, bonds: tuple[int, ...]) -> float:
        """Entropy of a matrix's two central bonds, cut."""
        usable = spectra.shape.usable(bonds)
        cut = Spectra(spectra.shape, tuple(values[:bond] for values, bond in zip(spectra.values, usable, strict=True)))
        return sum(cut.entropies()[spectra.shape.central - 1 : spectra.shape.central + 1])

    def on_record(self, setting: Setting) -> dict:
        """Its "accuracy" and "auc", over seeds or None, "of" which sentences, and the "ratio" of the cut that is nearest."""
        shapes = {name: spectra.shape for name, spectra in self._spectra.items()}
        if all(bonds == shapes[name].full_bonds for name, bonds in self._bonds(setting).items()):
            variant = self.variants[setting.method + TASKS[setting.task]]
            auc = self._rows["uncut", "none", None]["auc"] if setting.is_here else None
            return {"accuracy": variant["test"], "auc": auc, "of": "test", "ratio": None}
        left = self.counted(setting)["left"]
        ratios = [ratio for way, part, ratio in self._rows if (way, part) == (setting.cut, setting.matrices)]
        nearest = min(ratios, key=lambda ratio: abs(ratio - left))
        row = self._rows[setting.cut, setting.matrices, nearest]
        return {"accuracy": row["accuracy"], "auc": row["auc"], "of": "unused", "ratio": nearest}

    def measure(self, setting: Setting, n: int, advance: Callable[[float], None] = lambda _: None) -> dict:
        """Cut the tuned model as a setting says, and judge it on the first n validation sentences; kept for `table`.

        Returns
        -------
        dict : as `threshold.judge` gives it, and the relative errors of the "weights" and of the "outputs" of all matrices

        Raises
        ------
        ValueError
            If the setting is of another model than the tuned one: of that there are records alone.
        """
        from mpo_tutorial.maths.metric import output_error
        from mpo_tutorial.models.families import mpo_matrices
        from mpo_tutorial.models.truncation import fitted_to, metric_of, put_cut

        if not setting.is_here:
            raise ValueError(
                f"the model that is here is {LIGHT} on {HERE}; of {setting.method} on {setting.task} there is the record alone"
            )
        tuned, bonds = self._tuned(), self._bonds(setting)
        model = copy.deepcopy(tuned.model)
        lost, whole = np.zeros(2), np.zeros(2)
        for k, (name, layer) in enumerate(mpo_matrices(model).items()):
            moments, matrix = self._moments[name], layer.mpo.to_matrix()
            if bonds[name] != layer.mpo.bonds:
                cut = layer.mpo.truncate(bonds[name])
                put_cut(layer, fitted_to(layer, cut, moments, SWEEPS) if setting.cut == "fitted" else cut)
            metric, zero = metric_of(layer, moments), 0 * matrix
            changed = layer.mpo.to_matrix()
            lost += (matrix - changed).square().sum().item(), output_error(matrix, changed, metric) ** 2
            whole += matrix.square().sum().item(), output_error(matrix, zero, metric) ** 2
            advance((k + 1) / len(bonds) / 2)
        judged = tuned.judge(model, n, lambda share: advance((1 + share) / 2))
        weights, outputs = np.sqrt(lost / whole)
        self.measured[setting] = {**judged, "weights": weights, "outputs": outputs}
        return self.measured[setting]

    @cached_property
    def _moments(self):
        tuned = self._tuned()
        return tuned.inputs.of(tuned.model, list(self._spectra))

    def table(self, setting: Setting) -> dict[str, str]:
        """What is said of a setting, by the names of the rows."""
        counted, record = self.counted(setting), self.on_record(setting)
        variant = self.variants[setting.method + TASKS[setting.task]]
        where = f"cut of {setting.matrices} to {100 * record['ratio']:.0f} %" if record["ratio"] else "nothing cut"
        rows = {
            "task": setting.task,
            "method": setting.method,
            "trained numbers": f"{variant['trained']:,}",
            "stored for a task": f"{variant['stored_bytes'] / 1e6:.1f} MB",
            f"accuracy on record ({record['of']}; {where})": f"{per_cent(record['accuracy'])} %",
            "AUC on record": f"{per_cent(record['auc'])} %" if record["auc"] else "not taken",
        }
        if setting.is_here:
            rows |= {
                "cut": f"{setting.cut}, in {setting.matrices}, bonds {', '.join(map(str, setting.caps))} at most"
                if setting.is_cut
                else "nothing",
                "numbers in all chains": f"{counted['numbers']:,}",
                f"left of the dense numbers in {setting.matrices}": f"{100 * counted['left']:.0f} %",
                "the model's bytes": f"{counted['bytes'] / 1e6:.1f} MB",
                "error of the weights, plain, at most": f"{100 * counted['bound']:.1f} %",
                "entropy of the central bonds kept": f"{100 * counted['kept']:.0f} %",
            }
        if live := self.measured.get(setting):
            rows |= {
                f"accuracy here, {live['n']} sentences": f"{100 * live['accuracy']:.1f} %",
                "AUC here": "too few of a class" if live["auc"] is None else f"{100 * live['auc']:.1f} %",
                "error of the weights here": f"{100 * live['weights']:.1f} %",
                "error of the outputs here": f"{100 * live['outputs']:.1f} %",
            }
        return rows

    def in_words(self, setting: Setting) -> str:
        """The table of a setting in one line, for whoever hears it."""
        return "; ".join(f"{name} {text}" for name, text in self.table(setting).items()) + "."

    def figure(self, *settings: Setting) -> Figure:
        """Accuracy and AUC on record against what is left of the part that the first setting cuts; all settings are marked."""
        first, *others = settings
        with plots.styled(2, (10, 5.6)) as (figure, axes):
            for ax, measure in zip(axes, ("accuracy", "auc"), strict=True):
                cut_figures.ways_compared(ax, self.cuts, first.matrices, self.counted(first)["left"], measure)
                ax.set_xlim(right=116)  # an uncut chain has more numbers than the dense matrix
                for setting in others:
                    ax.axvline(100 * self.counted(setting)["left"], color="black", lw=1.5, ls="--")
        return figure
