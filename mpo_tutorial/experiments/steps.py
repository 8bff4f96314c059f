"""A whole step of the optimiser, as training takes it: in full, light and LoRA fine-tuning, on real sentences."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from mpo_tutorial.experiments.batches import Batches
from mpo_tutorial.experiments.contenders import Sizes, new_bert
from mpo_tutorial.experiments.tasks import load_task, tokenise
from mpo_tutorial.experiments.training import accumulate
from mpo_tutorial.maths.shapes import N_CORES, usual_shape
from mpo_tutorial.models.families import USUAL, dense_matrices
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS, Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FULL, LIGHT, EACH, LORA = "full", "light", "light, rebuilt for each micro-batch", "LoRA"
RANDOM = "BERT with random weights"
CLIP = 1.0
SENTENCES = 640  # of the task, which steps are made of
LONG_STEP = 4096  # tokens


@dataclass(frozen=True)
class Work:
    """What a step is of.

    Parameters
    ----------
    model : str
        As `load` takes it, or `RANDOM`: a new BERT of the bench's `Sizes`, read with the embedded model's tokenizer.
    task : str
        As `load_task` takes it.
    max_length : int
        Tokens at which a sentence is cut.
    batch_size, micro_batch_size : int
        Sentences in the step, and in memory at once.
    precision : {"float32", "bfloat16"}
        Of the products; weights stay float32.
    contenders : tuple of str
    """

    model: str = "minilm"
    task: str = "rotten_tomatoes"
    max_length: int = 64
    batch_size: int = 32
    micro_batch_size: int = 16
    precision: str = "float32"
    contenders: tuple[str, ...] = (FULL, LIGHT, EACH)


# The demo's step and one of 4,096 tokens; where there is a GPU, one of 4,096 tokens of BERT-base.
LONG = {"task": "imdb", "max_length": 128}
WORK = {
    "cpu": (Work(), Work(**LONG)),
    "cuda": (Work(RANDOM, **LONG, micro_batch_size=32, precision="bfloat16", contenders=(FULL, LIGHT, LORA)),),
}


class Step:
    """Forward and backward passes of some micro-batches, clipping, and AdamW's update of what the model has unfrozen.

    Parameters
    ----------
    batches : list of dict
        What the model takes, labels included; as many sentences in each.
    precision : {"float32", "bfloat16"}
    once : bool
        Rebuild matrices once, for all micro-batches.
    rate : float
        AdamW's.
    """

    def __init__(self, model: nn.Module, batches: list[dict], *, precision: str, once: bool, rate: float):
        self.model, self.batches, self.once = model, batches, once
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.precision = precision
        self.optimiser = torch.optim.AdamW(self.trained, rate, fused=self.trained[0].device.type == "cuda")
        self.matrix_gradient_bytes = 0

    def __call__(self) -> None:
        self.optimiser.zero_grad()
        accumulate(self.model, self.batches, self.precision, once=self.once, look=self._look)
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimiser.step()

    def _look(self, gradients: list[torch.Tensor]) -> None:
        self.matrix_gradient_bytes = _bytes(gradients)

    def held(self) -> dict[str, int]:
        """Counts of the tensors that the last step has left, and of the products of one more.

        Returns
        -------
        dict
            "tokens" of the step, padding included; "trained" numbers; "gradient_bytes" and "optimiser_bytes", from one step to the
            next; "matrix_gradient_bytes": gradients of rebuilt matrices, until these are taken back to the cores;
            "multiplications" of all products of matrices, by their shapes.
        """
        from torch.utils.flop_counter import FlopCounterMode

        states = (tensor for state in self.optimiser.state.values() for tensor in state.values())
        found = {
            "tokens": sum(batch["input_ids"].numel() for batch in self.batches),
            "trained": sum(p.numel() for p in self.trained),
            "gradient_bytes": _bytes([p.grad for p in self.model.parameters() if p.grad is not None]),
            "optimiser_bytes": _bytes(list(states)),
            "matrix_gradient_bytes": self.matrix_gradient_bytes,
        }
        with FlopCounterMode(display=False) as counter:
            self()
        return {**found, "multiplications": counter.get_total_flops() // 2}


def step_of(contender: str, work: Work, sizes: Sizes, device: str) -> Step | None:
    """A contender's step, after its first, with which AdamW's state begins. None if its library is missing."""
    if work.model == RANDOM:
        model, tokenizer = new_bert(sizes), load("minilm")[1]
    else:
        model, tokenizer = load(work.model)
    method = METHODS[{FULL: "full", LORA: "lora"}.get(contender, "light")]
    try:
        method.apply(model, Way(N_CORES, rest="norms", size=equal_rank(model) if contender == LORA else None))
    except ImportError:
        return None
    model.to(device).train()
    batches, rate = _batches(work, tokenizer, device), method.learning_rate
    step = Step(model, batches, precision=work.precision, once=contender == LIGHT, rate=rate)
    step()
    return step


def equal_rank(model: "PreTrainedModel") -> int:
    """At which LoRA of the matrices that become MPOs trains as many of their numbers, about."""
    sizes = [tuple(module.weight.T.shape) for _, module in dense_matrices(model, USUAL)]
    trained = 0
    for size in sizes:
        shape = usual_shape(*size, N_CORES)
        numbers = shape.n_params_each(shape.full_bonds)
        trained += sum(numbers) - numbers[shape.central]
    return max(1, round(trained / sum(map(sum, sizes))))


def _batches(work: Work, tokenizer, device: str) -> list[dict]:
    """The micro-batches of the step with the median number of tokens, padding included, among those of an epoch."""
    from transformers import DataCollatorWithPadding

    dataset = tokenise(load_task(work.task).train(SENTENCES), tokenizer, work.max_length)
    lengths = dataset["length"]
    micro_batches = list(Batches(lengths, work.batch_size, work.micro_batch_size, seed=0))
    several = work.batch_size // work.micro_batch_size
    steps = [micro_batches[first : first + several] for first in range(0, len(micro_batches), several)]
    steps.sort(key=lambda step: sum(len(batch) * max(lengths[i] for i in batch) for batch in step))
    collate = DataCollatorWithPadding(tokenizer)
    rows = dataset.remove_columns("length")
    return [collate([rows[i] for i in batch]).to(device) for batch in steps[len(steps) // 2]]


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
