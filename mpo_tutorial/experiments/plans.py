"""How a model is squeezed: what is cut when, by which error, and how it is tuned between the cuts. A plan checks itself."""

import math
from dataclasses import asdict, dataclass
from numbers import Real

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.maths.shapes import is_integer

SCHEDULES = ("greedy", "cubic", "once", "none")
ERRORS = ("absolute", "relative", "outputs")
ALLOTMENTS = ("alike", "weights", "outputs", "two factors")
CORES = ("auxiliary", "all")
MEMORIES = ("carried", "fresh")
DELTAS = ("loss", "accuracy")
PLACES = ("centred", "tt-svd")


@dataclass(frozen=True)
class Plan:
    """How to squeeze.

    Parameters
    ----------
    schedule : {"greedy", "cubic", "once", "none"}
        "greedy": Algorithm 2 of Liu et al. 2021, the central bonds of one matrix at a time, that which loses least. "cubic": all
        matrices to equal shares of their dense parameters, much at first and ever less (`budget.cubic_schedule`). "once": all at
        the beginning. "none": nothing is cut.
    ratio : float
        Share of the dense parameters of the matrices that all cores together have at most in the end.
    step : int
        By how much central bonds sink at a greedy cut; the last sinks no more than is needed.
    cuts : int
        Of the cubic schedule.
    error : {"absolute", "relative", "outputs"}
        What greedy cuts lose least of, and what is written down for every cut: of the matrix's numbers, absolute or relative to its
        norm, or of the layer's outputs, relative to their norm (`metric.output_spectra`).
    per_parameter : bool
        Whether the squared error is set against the parameters that a greedy cut saves.
    allot : {"alike", "weights", "outputs", "two factors"}
        How "once" shares out the parameters: equal shares; by `budget.allocate`, by the error of the numbers or the outputs; or
        equal shares for two factors each, by the aware SVD, instead of a chain.
    fitted : bool
        Fit what is cut to the layer's inputs, biases with it, until the fit has settled; on the cubic schedule only after the last
        cut, before by `squeeze.SWEEPS_HALFWAY` sweeps. Else the plain cut.
    sweeps : int
        Two-site sweeps after a cut. Greedily, the matrix's bonds are allotted anew before: their dimensions go where they are used.
    delta : float, optional
        The most that the model may lose of what it had before the first cut, or squeezing stops. None: as much as it will.
    delta_on : {"loss", "accuracy"}
        On the validation sentences.
    between : int, optional
        Steps of the optimiser after each cut but the last. None: half of all the steps, shared out by the numbers that each cut
        has saved; the other half follows the last.
    steps : int
        Of the optimiser in all; those that are left follow the last cut.
    rate : float, optional
        AdamW's while squeezing; None: the config's.
    memory : {"carried", "fresh"}
        What the optimiser remembers of a core that is cut: turned and cut with it (`transport`), or nothing.
    cores : {"auxiliary", "all"}
        Which are tuned.
    gauge : {"centred", "tt-svd"}
        Where a cut leaves the norm: in the central core or the last.
    refresh : int
        After so many greedy cuts the moments, and the Schmidt values of all matrices, are taken anew; those of the matrix that was
        cut are after each.
    tuned : bool
        Whether squeezing starts from a light fine-tuning (the paper's section 4.3); what starts from the pretrained weights is
        tuned within the plan.

    Raises
    ------
    ValueError
        If a value is out of range, or the steps do not suffice for the cuts.
    """

    schedule: str = "greedy"
    ratio: float = 0.5
    step: int = 64
    cuts: int = 10
    error: str = "outputs"
    per_parameter: bool = True
    allot: str = "outputs"
    fitted: bool = True
    sweeps: int = 0
    delta: float | None = None
    delta_on: str = "loss"
    between: int | None = None
    steps: int = 200
    rate: float | None = None
    memory: str = "carried"
    cores: str = "auxiliary"
    gauge: str = "centred"
    refresh: int = 5
    tuned: bool = True

    def __post_init__(self):
        for name, options in (
            ("schedule", SCHEDULES),
            ("error", ERRORS),
            ("allot", ALLOTMENTS),
            ("delta_on", DELTAS),
            ("memory", MEMORIES),
            ("cores", CORES),
            ("gauge", PLACES),
        ):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is one of {', '.join(options)}, got {getattr(self, name)!r}")
        for name, lowest in (("step", 1), ("cuts", 1), ("sweeps", 0), ("between", 0), ("steps", 0), ("refresh", 1)):
            value = getattr(self, name)
            if name == "between" and value is None:
                continue
            if not is_integer(value) or value < lowest:
                raise ValueError(f"{name} is an integer of at least {lowest}, got {value!r}")
        if not (isinstance(self.ratio, Real) and 0 < self.ratio < math.inf):
            raise ValueError(f"a ratio is a finite number above 0, got {self.ratio!r}")
        if self.delta is not None and not (isinstance(self.delta, Real) and 0 <= self.delta < math.inf):
            raise ValueError(f"delta is a finite number from 0 up, or left out, got {self.delta!r}")
        if self.rate is not None and not (isinstance(self.rate, Real) and 0 < self.rate < 1):
            raise ValueError(f"rate lies between 0 and 1, got {self.rate!r}")
        if self.allot == "two factors" and (self.schedule != "once" or self.cores != "all"):
            raise ValueError(
                "two factors have no central core and no chain to squeeze: they are cut once and trained whole, got the schedule "
                f"{self.schedule} and {self.cores} cores"
            )
        if self.schedule == "cubic" and self.between is not None and self.cuts * self.between > self.steps:
            raise ValueError(
                f"{self.cuts} cuts with {self.between} steps after each need {self.cuts * self.between}, got {self.steps} in all"
            )

    def as_dict(self) -> dict:
        return asdict(self)


# The rows of Liu et al. 2021, Table 3, that are theirs. Without a light run before, the steps of one are in the plan.
ONE_RUN = 200
TABLE_3 = {
    "mpop": {"error": "absolute", "per_parameter": False, "fitted": False},
    "mpop_full": {"schedule": "none", "cores": "all", "tuned": False, "steps": 2 * ONE_RUN},
    "mpop_full_lfa": {"schedule": "none", "tuned": False, "steps": 2 * ONE_RUN},
    "mpop_dir": {"schedule": "once", "allot": "alike", "fitted": False, "tuned": False, "steps": 2 * ONE_RUN},
}


def plan_of(variant: str | None, **options) -> Plan:
    """The plan of a row of Table 3, or the default, with some options changed; a ValueError if the row is unknown."""
    if variant is not None and variant not in TABLE_3:
        raise ValueError(f"variants are {', '.join(TABLE_3)}, got {variant!r}")
    return Plan(**{**TABLE_3.get(variant or "", {}), **options})


def require_fit(plan: Plan, config: RunConfig) -> None:
    """Refuse, by a ValueError, a plan for what is no light fine-tuning of chains."""
    if config.method != "light" or config.cores < 3:
        raise ValueError(
            f"squeezing is for light fine-tuning with three or more cores, got {config.method}, {config.cores} cores"
        )
    if config.gauge == "amb" and plan.schedule != "none":
        raise ValueError("in the gauge amb there is nothing decomposed to be cut; take centred or tt-svd")
