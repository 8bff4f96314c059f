"""What can be asked of a method of fine-tuning, and the words for it."""

from dataclasses import dataclass

GAUGES = ("centred", "tt-svd", "amb")
RESTS = ("head", "norms", "all")
BLOCKS = ("both", "left", "right")


@dataclass(frozen=True)
class Way:
    """What a run asks of a method: the options that `RunConfig` has, as there; a method reads those that concern it."""

    n_cores: int
    max_bond: int | None = None
    matrices: str | None = None
    rest: str = "norms"
    gauge: str = "centred"
    legs: str | None = None
    blocks: str = "both"
    seed: int = 0
    size: float | None = None
