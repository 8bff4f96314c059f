"""What a model makes of sentences, and what it scores on a task."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.modeling_outputs import SequenceClassifierOutput

from mpo_tutorial.experiments.batches import collator
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.statistics import measure
from mpo_tutorial.experiments.tasks import Task, load_task, tokenise
from mpo_tutorial.models.layers import cached

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EVALUATION_BATCH = 32


def logits(
    model: "PreTrainedModel | _HeadReads",
    dataset: "Dataset",
    tokenizer,
    progress: str | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> np.ndarray:
    """What the model gives out for each sentence.

    Parameters
    ----------
    dataset : Dataset
        As `tokenise` returns it.
    progress : str, optional
        Label of a progress bar; None shows none.
    batch_size : int
        Sentences in memory at once.

    Returns
    -------
    float32 array of shape (sentences, outputs), in the dataset's order
    """
    order = np.argsort(dataset["length"], kind="stable")
    columns = [name for name in dataset.column_names if name != "length"]
    loader = DataLoader(dataset.select(order).select_columns(columns), batch_size, collate_fn=collator(tokenizer))
    device = next(model.parameters(), torch.empty(0)).device
    found = []
    model.eval()
    with torch.inference_mode(), cached(model):
        for batch in tqdm(loader, desc=progress, disable=progress is None, leave=False):
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            del batch["labels"]
            found.append(model(**batch).logits.float().cpu().numpy())
    found = np.concatenate(found)
    unsorted = np.empty_like(found)
    unsorted[order] = found
    return unsorted


def vectors(model: "PreTrainedModel", dataset: "Dataset", tokenizer) -> np.ndarray:
    """What the model's head reads for each sentence: its encoder's pooled vector or, of families without one, the first state.

    Parameters as in `logits`.

    Returns
    -------
    float32 array of shape (sentences, width), in the dataset's order
    """
    return logits(_HeadReads(model), dataset, tokenizer)


class _HeadReads(nn.Module):
    """An encoder that gives out, in the place of logits, what a head would make them of."""

    def __init__(self, model: "PreTrainedModel"):
        super().__init__()
        self.encoder = model.base_model

    def forward(self, **batch) -> SequenceClassifierOutput:
        found = self.encoder(**batch)
        vector = getattr(found, "pooler_output", None)
        return SequenceClassifierOutput(logits=found.last_hidden_state[:, 0] if vector is None else vector)


def predict(
    model: "PreTrainedModel",
    dataset: "Dataset",
    tokenizer,
    progress: str | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> np.ndarray:
    """What the model makes of each sentence; parameters as in `logits`.

    Returns
    -------
    array of shape (sentences,), in the dataset's order
        The class of the largest logit; of a model with one output, that output.
    """
    found = logits(model, dataset, tokenizer, progress, batch_size)
    return found[:, 0] if found.shape[1] == 1 else found.argmax(1)


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    split: str = "test",
    max_length: int = RunConfig.max_length,
    progress: bool = False,
) -> dict:
    """What a model scores on a task's sentences.

    Parameters
    ----------
    split : str
        "test", "validation", or another that the task has.
    max_length : int
        Tokens at which a sentence is cut off.

    Returns
    -------
    dict
        As `statistics.measure` gives it: of a task with classes "n", "accuracy", its 95 % "interval" over sentences, and "right".

    Raises
    ------
    ValueError
        If the task has no such split, the head has other outputs than the task, or texts may be longer than the model has
        positions for; and as in `load_task`.
    """
    loaded = load_task(task)
    require_outputs(model, loaded)
    if split not in loaded.splits:
        raise ValueError(f"{task} has the splits {', '.join(loaded.splits)}, got {split!r}")
    require_positions(model, model.name_or_path or type(model).__name__, max_length)
    dataset = tokenise(loaded.splits[split], tokenizer, max_length)
    predicted = predict(model, dataset, tokenizer, f"evaluating on {split}" if progress else None)
    return measure(loaded.metrics, dataset["labels"], predicted)


def require_outputs(model: "PreTrainedModel", task: Task) -> None:
    """Refuse, by a ValueError, a head that has other outputs than the task."""
    if model.config.num_labels != task.outputs:
        raise ValueError(
            f"{task.name} needs a head with {task.outputs} outputs, the model's has {model.config.num_labels}; load it with "
            f"n_labels={task.outputs}"
        )


def require_positions(model: "PreTrainedModel", called: str, max_length: int) -> None:
    """Refuse texts that are longer than the table of positions, if there is one; RoBERTa's has rows that no token gets."""
    for name, table in model.base_model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, torch.nn.Embedding):
            unused = 0 if table.padding_idx is None else table.padding_idx + 1
            if max_length > table.num_embeddings - unused:
                raise ValueError(
                    f"{called} has positions for {table.num_embeddings - unused} tokens, max_length is {max_length}; "
                    f"take --max-length {table.num_embeddings - unused} or less"
                )
