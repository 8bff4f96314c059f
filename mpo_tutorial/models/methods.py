"""The ways of fine-tuning, each with what it makes of a model: the registry that runs, commands and tables read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.models.ledger import Ledger


@dataclass(frozen=True)
class Method:
    """One way of fine-tuning.

    Parameters
    ----------
    title : str
        In tables.
    learning_rate : float
        The best of five on the validation set of the embedded task: records/compare.jsonl.
    apply : callable
        From a model and the keywords n_cores, max_bond, matrices and rest to a ledger, or None where nothing becomes an MPO. It
        leaves trainable what is to be trained, and nothing else.
    size : str, optional
        The keyword that makes it smaller, where there is one.
    """

    title: str
    learning_rate: float
    apply: "Callable[..., Ledger | None]"
    size: str | None = None


def _light(
    model: "PreTrainedModel", *, n_cores: int, max_bond: int | None, matrices: str | None, rest: str
) -> "Ledger | None":
    """Matrices as MPOs, if they are none yet; their central cores frozen."""
    from mpo_tutorial.models.convert import decompose, freeze, is_decomposed
    from mpo_tutorial.models.families import USUAL
    from mpo_tutorial.models.ledger import Ledger
    from mpo_tutorial.models.truncation import truncate

    if is_decomposed(model, n_cores, matrices):
        if max_bond is not None:
            truncate(model, max_bond=max_bond)
        ledger = Ledger.of(model)
    else:
        ledger = decompose(model, n_cores, max_bond, matrices or USUAL)
    freeze(model, rest)
    return ledger


def _full(model: "PreTrainedModel", **_others) -> None:
    """The dense model, everything trained."""
    from mpo_tutorial.models.layers import mpo_layers

    if mpo_layers(model):
        raise ValueError(
            f"{model.name_or_path or 'the model'} is compressed; full fine-tuning is for the dense model, take --method light"
        )


METHODS = {
    "light": Method("light fine-tuning", 3e-4, _light, size="max_bond"),
    "full": Method("full fine-tuning", 1.5e-4, _full),
}
