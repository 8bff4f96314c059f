"""What a run is made with. A config checks itself when it is made, so a wrong value costs a second, not a training."""

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from mpo_tutorial.maths.shapes import MOST_CORES, N_CORES
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.networks import is_network
from mpo_tutorial.models.readout import own_pooling
from mpo_tutorial.models.sources import model_path
from mpo_tutorial.models.ways import BLOCKS, GAUGES, RESTS, Way

if TYPE_CHECKING:
    from mpo_tutorial.experiments.tasks import Task

POOLINGS = ("mean", "first", "pooler")
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
OF_NETWORKS = ("full", "head")  # methods for networks for images, whose head is all that they are
LARGEST_SEED = 2**32 - 1
STEPS = 200  # of the optimiser, that a run should have
FEWEST_EPOCHS, MOST_EPOCHS = 2, 20


@dataclass(frozen=True)
class RunConfig:
    """One fine-tuning run.

    Parameters
    ----------
    model : str
        "minilm" (embedded), a local folder, or a name on the hub; or a network for images, of `networks.KNOWN`.
    task : str
        "rotten_tomatoes" or "imdb" (embedded), "glue/rte" or another of GLUE, or a CSV or Parquet file with the columns
        text and label.
    method : str
        One of `methods.METHODS`. "light": the matrices become MPOs, central cores stay frozen. "full": the dense model,
        everything trained.
    rest : {"head", "norms", "all"}
        What light fine-tuning, and its random controls, train besides, as in `convert.freeze`. Other methods say it themselves.
    pooling : {"mean", "first", "pooler"}, optional
        How the classifier reads the encoder; None: as the encoder was trained to be read, by its own files.
    matrices : str, optional
        Which matrices become MPOs, as in `families.split_words`. None takes attention, feed-forward
        and pooler: the paper's, but for the embedding, which is half of the embedded model and needs no training here.
    cores : int
        Cores of each MPO. 5 is the paper's choice; any number from 2 to 64 works.
    bond : int, optional
        Cap on every bond dimension, central core included. None keeps the full bonds: nothing of the pretrained
        weights is lost.
    gauge : {"centred", "tt-svd", "amb"}
    legs : str, optional
        As in `convert.decompose`, both.
    blocks : {"both", "left", "right"}
        As in `convert.freeze`.
    size : int or float, optional
        Of the methods that have one: the rank of LoRA, the width of an adapter and so on, as `METHODS` say; None: the usual one.
    seed : int
        Seeds the new classifier, the order of the sentences and dropout. The split does not depend on it.
    train_size : int, optional
        Training sentences; None takes up to 3,200, which is some three minutes of training on two cores.
    epochs : int, optional
        None takes as many as make 200 steps, from 2 to 20: 2 for 3,200 sentences, and 20 for 320, of which one epoch taught
        next to nothing (47 % on five classes of news). After a single one, light runs of different seeds still lay five
        points apart on the validation set.
    learning_rate : float, optional
        Peak of AdamW's schedule (up over the warm-up, then down to 0). None takes the method's best on the validation set.
    rest_rate : float, optional
        The same for what is trained besides cores or other numbers of the matrices; None: no other than theirs.
    weight_decay : float
        AdamW's.
    warmup : float
        Share of the steps in which the rate rises.
    clip : float
        Largest norm of a step's gradient.
    patience : int, optional
        Stop after so many epochs in a row without a better validation score, and keep the best epoch's numbers; None: train all
        epochs, and keep the last.
    batch_size : int
        Sentences in one step of the optimiser, as in the paper.
    micro_batch_size : int
        Sentences in memory at once; the gradients of a step are summed over batch_size / micro_batch_size of them. 16
        keeps full fine-tuning under 1.5 GB.
    max_length : int
        Tokens after which a sentence is cut. The longest in rotten_tomatoes has 78.
    precision : {"float32", "bfloat16"}
        Of the products in training; weights stay float32.
    checkpointing : bool
        Compute a layer's inner values again in the backward pass, to keep fewer of them.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    ValueError
        If a value is out of range; the message names the rule and the value.
    """

    model: str = "minilm"
    task: str = "rotten_tomatoes"
    method: str = "light"
    rest: str = "norms"
    pooling: str | None = None
    matrices: str | None = None
    cores: int = N_CORES
    bond: int | None = None
    gauge: str = "centred"
    legs: str | None = None
    blocks: str = "both"
    size: float | None = None
    seed: int = 0
    train_size: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    rest_rate: float | None = None
    weight_decay: float = 0.0
    warmup: float = 0.2
    clip: float = 1.0
    patience: int | None = None
    batch_size: int = 32
    micro_batch_size: int = 16
    max_length: int = 64
    precision: str = "float32"
    checkpointing: bool = False
    device: str = "auto"

    def __post_init__(self):
        for name, options in (
            ("method", METHODS),
            ("rest", RESTS),
            ("pooling", (*POOLINGS, None)),
            ("gauge", GAUGES),
            ("blocks", BLOCKS),
            ("precision", PRECISIONS),
            ("device", DEVICES),
        ):
            if getattr(self, name) not in tuple(options):
                options = [option for option in options if option]
                raise ValueError(f"{name} is one of {', '.join(options)}, got {getattr(self, name)!r}")
        for name in ("model", "task", "matrices"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name, value) != ("matrices", None):
                raise ValueError(f"{name} is a text, got {value!r}")
        if is_network(self.model) and self.method not in OF_NETWORKS:
            raise ValueError(
                f"{self.model} begins with random numbers, so it is trained whole: take --method full, got {self.method}"
            )
        for name, lowest in (
            ("cores", 2),
            ("bond", 1),
            ("seed", 0),
            ("train_size", 2),
            ("epochs", 1),
            ("patience", 1),
            ("batch_size", 1),
            ("micro_batch_size", 1),
            ("max_length", 3),
        ):
            value = getattr(self, name)
            if value is None and name in ("bond", "train_size", "epochs", "patience"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{name} is an integer of at least {lowest}, got {value!r}")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed is at most {LARGEST_SEED}, because NumPy takes no larger one, got {self.seed}")
        if self.cores > MOST_CORES:
            raise ValueError(
                f"cores is at most {MOST_CORES}, because more than a side of a matrix has prime factors only add legs of 1, got "
                f"{self.cores}; take fewer, such as {N_CORES}"
            )
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", METHODS[self.method].learning_rate)
        knob = METHODS[self.method].knob
        if knob is None and self.size is not None:
            raise ValueError(f"{self.method} has no size, got {self.size!r}; leave it out")
        if knob is not None and self.size is None:
            object.__setattr__(self, "size", knob.usual)
        elif knob is not None:
            knob.require(self.size)
        for name in ("learning_rate", "rest_rate"):
            rate = getattr(self, name)
            if rate is not None and not (isinstance(rate, int | float) and 0 < rate < 1):
                raise ValueError(f"{name} lies between 0 and 1, got {rate!r}")
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"weight_decay lies from 0 to below 1, got {self.weight_decay}")
        if self.method == "child-d" and self.weight_decay:
            raise ValueError(
                f"weight_decay is 0 for child-d, because it would move what the mask holds, got {self.weight_decay}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, from 0 to below 1, got {self.warmup}")
        if not self.clip > 0:
            raise ValueError(f"clip is a norm above 0, got {self.clip}")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size is a multiple of micro_batch_size, got {self.batch_size} and {self.micro_batch_size}"
            )

    def settled(self, task: "Task") -> "RunConfig":
        """The same with what was left open: epochs by the sentences that there are to train on, pooling by the model's files.

        Errors as in `Task.train`, `model_path` and `own_pooling`.
        """
        settled = self.with_epochs(task)
        if is_network(self.model):
            return settled
        return replace(settled, pooling=self.pooling or own_pooling(model_path(self.model)))

    def with_epochs(self, task: "Task") -> "RunConfig":
        """The same with a number of epochs, by the sentences that there are to train on. Errors as in `Task.train`."""
        steps = max(1, math.ceil(len(task.train(self.train_size)) / self.batch_size))
        epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(STEPS / steps)))
        return self if self.epochs is not None else replace(self, epochs=epochs)

    @property
    def way(self) -> Way:
        """What it asks of its method."""
        names = ("matrices", "rest", "gauge", "legs", "blocks", "seed", "size")
        return Way(self.cores, self.bond, **{name: getattr(self, name) for name in names})

    def as_dict(self) -> dict:
        return asdict(self)
