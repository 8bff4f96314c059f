"""What a step of fine-tuning holds in memory, by the sizes alone: nothing is loaded, nothing is run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FLOAT, HALF = 4, 2  # bytes


@dataclass(frozen=True)
class Need:
    """Bytes, all held at once at the end of a forward pass, but for the gradients, which come in its place.

    Parameters
    ----------
    weights : int
        Of the whole model, trained or not.
    gradients, optimiser : int
        Of what is trained: a gradient each, and AdamW's two averages.
    matrices : int
        What is made of the weights to be used: matrices of MPOs, what is passed through on the way to them, and their gradients;
        copies in half precision.
    activations : int
        What the layers keep for the backward pass.
    """

    weights: int
    gradients: int
    optimiser: int
    matrices: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.matrices + self.activations


def need(
    config: "PreTrainedConfig",
    batch_size: int,
    length: int,
    *,
    total: int,
    trained: int,
    rebuilt: int = 0,
    precision: str = "float32",
    fused: bool = True,
) -> Need:
    """What a step of an encoder holds, as an estimate.

    Parameters
    ----------
    config : transformers config
        Of an encoder with layers as BERT's; where all share one set of weights, as ALBERT's do, each keeps its own activations.
    batch_size : int
        Sentences in memory at once.
    length : int
        Tokens of each, padding included.
    total, trained : int
        Numbers of the model, and those of them that are trained.
    rebuilt : int
        Numbers in the matrices that are multiplied out of cores.
    precision : {"float32", "bfloat16"}
        Of the products; weights, gradients and AdamW's averages stay float32.
    fused : bool
        Whether attention goes without storing a number for each pair of tokens, as on a GPU.

    Notes
    -----
    The activations are counted as by Korthikanti et al. 2022, section 4.1, for feed-forward layers of any width: each layer keeps
    8 + 2 f numbers for each of its h components of a token, f being how many times wider the feed-forward layer is, and two bytes
    of dropout masks; without fused attention also two numbers and a byte for each head and pair of tokens.
    """
    number = HALF if precision == "bfloat16" else FLOAT
    hidden, tokens = config.hidden_size, batch_size * length
    wider = getattr(config, "intermediate_size", None) or config.hidden_dim
    of_a_layer = tokens * ((8 * hidden + 2 * wider) * number + 2 * hidden)
    if not fused:
        of_a_layer += tokens * config.num_attention_heads * length * (2 * number + 1)
    copies = 0 if number == FLOAT else HALF * (total + rebuilt)
    return Need(
        FLOAT * total,
        FLOAT * trained,
        2 * FLOAT * trained,
        3 * FLOAT * rebuilt + copies,
        config.num_hidden_layers * of_a_layer,
    )
