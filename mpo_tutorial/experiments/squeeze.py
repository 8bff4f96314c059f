"""Dimension squeezing, Algorithm 2 of Liu et al. 2021: cut a little where it costs least, tune, look, and again."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.plans import Plan, require_fit
from mpo_tutorial.experiments.tasks import require_classes
from mpo_tutorial.experiments.threshold import judge
from mpo_tutorial.experiments.tuned import calibration
from mpo_tutorial.experiments.tuning import Tuning
from mpo_tutorial.maths.budget import allocate, cubic_schedule
from mpo_tutorial.maths.entropy import Spectra, cheapest_truncation
from mpo_tutorial.maths.linalg import frobenius_norm
from mpo_tutorial.maths.metric import output_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.two_site import two_site
from mpo_tutorial.models.activations import Moments
from mpo_tutorial.models.families import mpo_matrices
from mpo_tutorial.models.truncation import (
    bonds_of_ratio,
    factorise,
    fitted_to,
    metric_of,
    require_moments,
    spectra_of,
)

if TYPE_CHECKING:
    from mpo_tutorial.experiments.finetune import Prepared
    from mpo_tutorial.models.layers import MPOLayer

MET = "the plan is done"
WORSE = "more than delta was lost"
NOT_FINITE = "a number was not finite"

SWEEPS_HALFWAY = 2  # of a fit that training and another cut of the same matrix follow

Bonds = tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """What a step did to one matrix.

    Parameters
    ----------
    matrix : str
    before, after : tuple of int
        Bonds.
    estimate : float or None
        Of the error, from Schmidt values, before the cut was made; None for two factors, which have none.
    error : float
        What the cut has changed, by the plan's measure, against the matrix just before.
    """

    matrix: str
    before: Bonds
    after: Bonds
    estimate: float | None
    error: float


@dataclass(frozen=True)
class Step:
    """Some cuts, and the steps of the optimiser after them.

    Parameters
    ----------
    number : int
        From 1; number 0 is the model before the first cut.
    cuts : tuple of Cut
    parameters : int
        Of all cores.
    done : int
        Steps of the optimiser so far.
    loss_before, loss_after : float or None
        Mean cross-entropy on the validation sentences after the cuts, before and after the tuning; None where nobody looked.
    validation : dict or None
        After the tuning, as `threshold.judge` gives it.
    """

    number: int
    cuts: tuple[Cut, ...]
    parameters: int
    done: int
    loss_before: float | None
    loss_after: float | None
    validation: dict | None

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping) -> "Step":
        """Of what `as_dict` gave, after JSON."""
        cuts = ({**cut, "before": tuple(cut["before"]), "after": tuple(cut["after"])} for cut in found["cuts"])
        return cls(**{**found, "cuts": tuple(Cut(**cut) for cut in cuts)})


class Squeeze:
    """A squeezing under way: each turn of the loop cuts, tunes, looks, and gives a `Step`; the first gives the model as it came.

        for step in Squeeze(prepared, Plan()):
            print(step.parameters, step.validation["accuracy"])

    The prepared model is changed in place. `stopped` says why it ended: the plan is done, a step has lost more than delta, or a
    number was not finite; in the last two cases the model is again what it was before that step.

    Parameters
    ----------
    prepared : Prepared
        A light fine-tuning's model, tuned or not.
    plan : Plan
    look : bool
        Whether each step looks at the validation sentences. Delta needs it.
    moments : mapping of layers' names to Moments, optional
        Of the model as it is, to save taking them once.

    Raises
    ------
    ValueError
        If the plan is for no such model or task, cannot be met (the message says how far it can go), or has a delta where nobody
        looks, or the moments are of another model.
    """

    def __init__(
        self,
        prepared: "Prepared",
        plan: Plan,
        *,
        look: bool = True,
        moments: Mapping[str, Moments] | None = None,
    ):
        require_fit(plan, prepared.config)
        require_classes(prepared.config.task)
        if plan.delta is not None and not look:
            raise ValueError(f"delta is what the validation sentences may lose, got {plan.delta:g} and look False")
        self.plan, self.model = plan, prepared.model
        self.layers: dict[str, MPOLayer] = mpo_matrices(self.model)
        require_moments(moments or {}, self.model)
        self.moments = dict(moments or {})
        self.budget = self._budget()
        if plan.cores == "all":
            for layer in self.layers.values():
                layer.cores.requires_grad_(True)
        self.inputs = calibration(prepared)
        self.tokenizer = prepared.tokenizer
        self.validation = prepared.dataset("validation") if look else None
        config = replace(prepared.config, learning_rate=plan.rate or prepared.config.learning_rate)
        self.tuning = Tuning(self.model, prepared.tokenizer, prepared.dataset("train"), config, plan.steps)
        self.spectra: dict[str, Spectra] = {}
        self.targets = cubic_schedule(max(plan.ratio, self.parameters / self.dense), plan.ratio, plan.cuts)
        self.steps: list[Step] = []
        self.seconds = 0.0  # that were spent, if whoever goes through it says so
        self.stopped: str | None = None
        self.kept = 0  # number of the step whose model it is, once it has stopped
        self._cuts: tuple[Cut, ...] | None = None  # made, and not yet tuned to the end
        self._last = False  # whether no cut follows these
        self._until = 0
        self._loss_before: float | None = None
        self._good = self.tensors()

    @property
    def parameters(self) -> int:
        """Of all cores, now."""
        return sum(core.numel() for layer in self.layers.values() for core in layer.cores)

    @property
    def dense(self) -> int:
        shapes = [layer.mpo.shape for layer in self.layers.values()]
        return sum(shape.in_size * shape.out_size for shape in shapes)

    @property
    def bonds(self) -> dict[str, Bonds]:
        return {name: layer.mpo.bonds for name, layer in self.layers.items()}

    @property
    def matrices(self) -> dict[str, dict]:
        """Of each matrix "in_legs", "out_legs" and the "bonds" that it has now."""
        mpos = {name: layer.mpo for name, layer in self.layers.items()}
        return {
            name: {"in_legs": [*mpo.shape.in_legs], "out_legs": [*mpo.shape.out_legs], "bonds": [*mpo.bonds]}
            for name, mpo in mpos.items()
        }

    def __iter__(self) -> Iterator[Step]:
        return (step for step in self.events() if step is not None)

    def events(self) -> Iterator[Step | None]:
        """A `Step` where one ends, and None after each step of the optimiser: at both the `state` is whole."""
        if not self.steps:
            yield self._finished(())
        while self.stopped is None:
            if self._cuts is None:
                self._cuts = self._cut()
                self._last = self._is_last()
                self._until = self._tuned_until()
                self._loss_before = self._look()[0]
            while self.stopped is None and self.tuning.done < self._until:
                if not math.isfinite(self.tuning.step()):
                    self._go_back(NOT_FINITE)
                yield None
            yield self._finished(self._cuts)

    def _tuned_until(self) -> int:
        """How many steps of the optimiser there have been when the next cut is made."""
        plan = self.plan
        if self._last:
            return plan.steps
        if plan.between is not None:
            return min(plan.steps, self.tuning.done + plan.between)
        start = self.steps[0].parameters
        saved = min(1.0, (start - self.parameters) / (start - self.budget))
        return max(self.tuning.done, int(plan.steps / 2 * saved))

    def _is_last(self) -> bool:
        """Whether nothing is left to be cut, the cuts under way being made."""
        if self.plan.schedule == "cubic":
            return self._n_cuts + 1 >= self.plan.cuts
        return self.plan.schedule != "greedy" or self.parameters <= self.budget

    @property
    def _n_cuts(self) -> int:
        """How often the schedule has had its turn. A turn that asks for less than one bond dimension cuts nothing."""
        return len(self.steps) - 1

    def _finished(self, cuts: tuple[Cut, ...]) -> Step:
        """The step that has come to its end, and what follows from how good the model is now."""
        loss, judged = self._look()
        step = Step(len(self.steps), cuts, self.parameters, self.tuning.done, self._loss_before, loss, judged)
        self.steps.append(step)
        ended = self._cuts is not None and self._last
        self._cuts = self._loss_before = None
        if self.stopped is not None:
            return step
        if loss is not None and not math.isfinite(loss):
            self._go_back(NOT_FINITE)
        elif self._lost(step) > (math.inf if self.plan.delta is None else self.plan.delta):
            self._go_back(WORSE)
        else:
            self._good, self.kept = self.tensors(), step.number
            if ended:
                self.stopped = MET
        return step

    def _lost(self, step: Step) -> float:
        start = self.steps[0]
        if step.loss_after is None or start.loss_after is None:
            return 0.0
        if self.plan.delta_on == "loss":
            return step.loss_after - start.loss_after
        return start.validation["accuracy"] - step.validation["accuracy"]

    def _go_back(self, why: str) -> None:
        self.stopped = why
        self._put_tensors(self._good)

    def _budget(self) -> int:
        """Parameters that the plan allows; a ValueError if it cannot be met."""
        allowed = math.floor(self.plan.ratio * self.dense)
        if self.plan.schedule == "greedy":
            least = 0
            for layer in self.layers.values():
                shape, bonds = layer.mpo.shape, list(layer.mpo.bonds)
                bonds[shape.central - 1] = bonds[shape.central] = 1
                least += shape.n_params(shape.usable(bonds))
            if allowed < least:
                raise ValueError(
                    f"cutting central bonds alone, the ratio cannot be below {least / self.dense:.3g} for this model, got "
                    f"{self.plan.ratio:g}"
                )
        elif self.plan.schedule != "none":
            for name, layer in self.layers.items():
                bonds_of_ratio(name, layer.mpo.shape, self.plan.ratio)
        return allowed

    def _cut(self) -> tuple[Cut, ...]:
        """The next cuts of the schedule, made."""
        plan = self.plan
        if plan.schedule == "none" or (plan.schedule == "greedy" and self.parameters <= self.budget):
            return ()
        if plan.schedule == "greedy":
            return (self._greedy(),)
        if plan.schedule == "cubic":
            ratio = self.targets[self._n_cuts]
            return self._cut_all(self._alike(ratio))
        if plan.allot == "two factors":
            return self._two_factors()
        if plan.allot == "alike":
            return self._cut_all(self._alike(plan.ratio))
        if plan.allot == "outputs" and not self.moments:
            self.moments = self.inputs.of(self.model, list(self.layers))
        spectra = {
            name: spectra_of(layer, self.moments.get(name) if plan.allot == "outputs" else None, plan.fitted)
            for name, layer in self.layers.items()
        }
        return self._cut_all(allocate(spectra, n_params=self.budget).bonds)

    def _alike(self, ratio: float) -> dict[str, Bonds]:
        """No bond wider than it is, each matrix within its share."""
        return {
            name: tuple(map(min, bonds_of_ratio(name, layer.mpo.shape, ratio), layer.mpo.bonds))
            for name, layer in self.layers.items()
        }

    def _greedy(self) -> Cut:
        """Algorithm 2's: the matrix whose central bonds sink at the least estimated error."""
        plan, cuts = self.plan, self._n_cuts
        if cuts % plan.refresh == 0:
            if self._needs_moments and not (cuts == 0 and self.moments):
                self.moments = self.inputs.of(self.model, list(self.layers))
            names = list(self.layers)
        else:
            names = [cut.matrix for cut in self.steps[-1].cuts]
        for name in names:
            self.spectra[name] = spectra_of(self.layers[name], self._moments_of(name), plan.fitted)
        relative, bonds = plan.error != "absolute", self.bonds
        name, after = cheapest_truncation(self.spectra, bonds, plan.step, relative, plan.per_parameter)
        only, count = {name: self.spectra[name]}, self.spectra[name].shape.n_params
        for step in range(1, plan.step):
            _, shorter = cheapest_truncation(only, {name: bonds[name]}, step)
            if self.parameters - count(bonds[name]) + count(shorter) <= self.budget:
                after = shorter
                break
        return self._cut_one(name, after, self.moments.get(name))

    @property
    def _needs_moments(self) -> bool:
        return self.plan.error == "outputs" or self.plan.fitted

    def _moments_of(self, name: str) -> Moments | None:
        """By which errors are judged: none where numbers are, nor of an embedding, whose inputs are rows' numbers."""
        return self.moments.get(name) if self.plan.error == "outputs" else None

    def _cut_all(self, bonds: Mapping[str, Bonds]) -> tuple[Cut, ...]:
        """Layer after layer of the encoder, each fitted to what reaches it in the model as it is cut."""
        names = [name for name, after in bonds.items() if after != self.layers[name].mpo.bonds]
        if self.plan.fitted:
            stages = self.inputs.stages(self.model, names)
        else:
            found = self.inputs.of(self.model, names) if self._needs_moments else {}
            stages = [(names, found)]
        cuts = []
        for group, found in stages:
            self.moments.update(found)
            for name in group:
                self.spectra[name] = spectra_of(self.layers[name], self._moments_of(name), self.plan.fitted)
                cuts.append(self._cut_one(name, bonds[name], found.get(name)))
        return tuple(cuts)

    def _cut_one(self, name: str, after: Bonds, moments: Moments | None) -> Cut:
        plan, layer, spectra = self.plan, self.layers[name], self.spectra[name]
        old, matrix = layer.mpo, layer.mpo.to_matrix()
        if plan.sweeps and plan.schedule == "greedy":
            size = old.shape.n_params(after)
            after = allocate({name: self._within(spectra, old.bonds)}, n_params=size).bonds[name]
        estimate = spectra.bound(after, relative=plan.error != "absolute")
        new = old.truncate(after)
        if plan.sweeps:
            new = two_site(new, matrix, after, plan.sweeps)
        if plan.fitted and moments is not None:
            halfway = plan.schedule == "cubic" and not self._is_last()
            new = fitted_to(layer, new, moments, SWEEPS_HALFWAY if halfway else None)
        if plan.gauge == "tt-svd":
            new = new.canonize(len(new.cores) - 1)
        error = self._error(layer, matrix, new.to_matrix(), moments)
        self.tuning.put(layer, new, carry=plan.memory == "carried")
        return Cut(name, old.bonds, new.bonds, estimate, error)

    @staticmethod
    def _within(spectra: Spectra, bonds: Bonds) -> Spectra:
        """What a bond has no dimension for it has no Schmidt value for: so that no bond is allotted more than it has."""
        kept = (
            np.where(np.arange(len(values)) < bond, values, 0.0)
            for values, bond in zip(spectra.values, bonds, strict=True)
        )
        return Spectra(spectra.shape, tuple(kept))

    def _error(self, layer: "MPOLayer", matrix: Tensor, changed: Tensor, moments: Moments | None) -> float:
        """By the plan's measure."""
        if self.plan.error == "absolute":
            return frobenius_norm(matrix - changed)
        if self.plan.error == "relative" or moments is None:
            return frobenius_norm(matrix - changed) / frobenius_norm(matrix)
        metric = metric_of(layer, moments, self.plan.fitted)
        return output_error(matrix, changed, metric) / output_error(matrix, torch.zeros_like(matrix), metric)

    def _two_factors(self) -> tuple[Cut, ...]:
        names, before = list(self.layers), self.bonds
        shapes = {name: layer.mpo.shape for name, layer in self.layers.items()}
        room = {name: shape.n_params(bonds_of_ratio(name, shape, self.plan.ratio)) for name, shape in shapes.items()}
        matrices = {name: layer.mpo.to_matrix() for name, layer in self.layers.items()}
        self.moments = self.inputs.of(self.model, names)
        factorise(self.model, room, self.inputs)
        self.tuning.begin_anew()
        return tuple(
            Cut(
                name,
                before[name],
                layer.mpo.bonds,
                None,
                self._error(layer, matrices[name], layer.mpo.to_matrix(), self.moments[name]),
            )
            for name, layer in self.layers.items()
        )

    def _look(self) -> tuple[float | None, dict | None]:
        """Mean cross-entropy on the validation sentences, and what `judge` says; the loss is nan where a logit is not finite."""
        if self.validation is None:
            return None, None
        found, labels = logits(self.model, self.validation, self.tokenizer), self.validation["labels"]
        if not np.isfinite(found).all():
            return math.nan, None
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(found), torch.tensor(list(labels)))
        return loss.item(), judge(labels, found)

    def tensors(self) -> dict[str, Tensor]:
        """All that squeezing changes: cores, biases, what is trained."""
        cores = {f"{name}.cores.{k}": core for name, layer in self.layers.items() for k, core in enumerate(layer.cores)}
        others = {
            name: p
            for name, p in self.model.named_parameters()
            if p.requires_grad or name.rpartition(".")[0] in self.layers
        }
        return {name: tensor.detach().clone() for name, tensor in {**others, **cores}.items()}

    def _put_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name, layer in self.layers.items():
            cores = [
                tensors[f"{name}.cores.{k}"] for k in range(sum(key.startswith(f"{name}.cores.") for key in tensors))
            ]
            trained = [core.requires_grad for core in layer.cores]
            layer.set_mpo(MPO(tuple(core.to(layer.central.device) for core in cores), layer.padding))
            if len(trained) == len(cores):
                for core, flag in zip(layer.cores, trained, strict=True):
                    core.requires_grad_(flag)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors.items():
                if ".cores." not in name:
                    parameters[name].copy_(tensor)

    def state(self) -> dict:
        """All that `load_state` needs to go on, in another process, as if nothing had happened: tensors, and a text."""
        told = {
            "steps": [step.as_dict() for step in self.steps],
            "cuts": None if self._cuts is None else [asdict(cut) for cut in self._cuts],
            "last": self._last,
            "until": self._until,
            "loss_before": self._loss_before,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "kept": self.kept,
        }
        return {
            "told": json.dumps(told),
            "tensors": self.tensors(),
            "good": self._good,
            "tuning": self.tuning.state(),
            "spectra": {name: [torch.from_numpy(v) for v in found.values] for name, found in self.spectra.items()},
            "moments": {name: [found.mean, found.covariance] for name, found in self.moments.items()},
        }

    def load_state(self, state: Mapping) -> None:
        """Go on from a `state` of the same squeezing."""
        told = json.loads(state["told"])
        self.steps = [Step.of(step) for step in told["steps"]]
        step = None if told["cuts"] is None else Step.of({**self.steps[0].as_dict(), "cuts": told["cuts"]})
        self._cuts = None if step is None else step.cuts
        self._last, self._until, self._loss_before = told["last"], told["until"], told["loss_before"]
        self.seconds, self.stopped, self.kept = told["seconds"], told["stopped"], told["kept"]
        self._put_tensors(state["tensors"])
        self._good = dict(state["good"])
        self.tuning.load_state(state["tuning"])
        shapes = {name: layer.mpo.shape for name, layer in self.layers.items()}
        self.spectra = {
            name: Spectra(shapes[name], tuple(v.numpy() for v in values)) for name, values in state["spectra"].items()
        }
        self.moments = {name: Moments(*found) for name, found in state["moments"].items()}
