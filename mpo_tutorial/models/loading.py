"""Models from files, with a head and a tokenizer; what is damaged or strange is refused in a line."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mpo_tutorial.models import networks, stored, vision
from mpo_tutorial.models.readout import own_pooling
from mpo_tutorial.models.sources import model_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@contextmanager
def quiet_transformers():
    """No progress bars of its own and no warnings that a new classifier is untrained: here that is the point."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def as_value_error(what: str):
    """Make one ValueError, of a line, of all that transformers and torch raise at strange files and configs."""
    from huggingface_hub.errors import StrictDataclassError

    strange = (
        StrictDataclassError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
    )
    try:
        yield
    except (OSError, ValueError, SafetensorError, *strange) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{what}: {first_line}") from error


def load(
    name: str, n_labels: int = 2, seed: int = 0, pooling: str | None = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A pretrained encoder with a classifier on top, and its tokenizer.

    The classifier is new and seeded, unless the files hold one for as many labels.

    Parameters
    ----------
    name : str
        "minilm" (embedded), a local folder, or a name on the hub: what `sources.model_path` takes. Or the name of a network for
        images, as `networks.network` takes it; all of that is new, and what makes its batches is in the tokenizer's place.
    n_labels : int
        Outputs of the classifier.
    seed : int
        Of a classifier that is new.
    pooling : {"mean", "first", "pooler"}, optional
        How the classifier reads the encoder; None: as the encoder was trained to be read, by its own files.

    Raises
    ------
    ValueError
        If files are missing or damaged, transformers knows no sequence classifier for this model, or it cannot be read so.
    FileNotFoundError, ConnectionError
        As in `sources.model_path`.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    if networks.is_network(name):
        return _network(name, n_labels)
    path = model_path(name)
    model, tokenizer = load_pretrained(path, AutoModelForSequenceClassification, num_labels=n_labels)
    if pooling is None:
        pooling = own_pooling(path)
    if pooling is not None:
        from mpo_tutorial.models.architectures import read_by

        read_by(model, pooling)
    # BERT's classifier takes no num_items_in_batch, though its signature says so; transformers 5.23 would then sum the
    # gradients of accumulated batches where it must average them.
    model.accepts_loss_kwargs = False
    return model, tokenizer


def _network(name: str, n_labels: int) -> tuple[Any, Any]:
    if n_labels != vision.CLASSES:
        raise ValueError(
            f"{name} tells {vision.CLASSES} classes of images apart, {n_labels} classes are asked for; take --task digits"
        )
    made = networks.network(name)
    return made, networks.Pixels(made.shape)


def load_pretrained(path: str, auto: type, **options) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model by one of transformers' Auto classes, and its tokenizer; a head of another size begins anew.

    So does a pooler that the files do not hold; `model.new_pooler` says whether it did.

    Raises
    ------
    ValueError
        If files are missing, damaged or quantised, hold fewer or more layers than the config describes, or the tokenizer
        has no words or more than the embedding.
    """
    from transformers import AutoConfig, AutoTokenizer

    options = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True, **options}
    with as_value_error(f"{path} is no model that {auto.__name__} can load"), quiet_transformers():
        config = AutoConfig.from_pretrained(path)
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError("it is quantised; take the model that it was made from")
        stored.check_sizes(config, stored.shapes_in(stored.weight_files(path)))
        model, info = auto.from_pretrained(path, **options)
        tokenizer = AutoTokenizer.from_pretrained(path)
    if left := sorted(name for name in info["unexpected_keys"] if re.search(r"layers?\.\d+\.", name)):
        raise ValueError(
            f"the config of {path} must describe all layers in its files; {len(left)} tensors have no place, such as {left[0]}"
        )
    unread = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    model.new_pooler = any(name.startswith(f"{prefix}pooler.") for name in unread)
    unread = sorted(name for name in unread if name.startswith(prefix) and "pooler." not in name)
    if unread:
        raise ValueError(
            f"the files in {path} must hold the encoder that the config describes; {len(unread)} tensors are missing or of "
            f"another shape, the first is {unread[0]}"
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"a model's folder holds its tokenizer, {path} has none with words in it; save it there as well"
        )
    words, rows = 1 + max(tokenizer.get_vocab().values()), model.config.vocab_size
    if words > rows:
        raise ValueError(
            f"a tokenizer's words must be rows of the embedding, {path} has {words} words and {rows} rows; save the model's own "
            "tokenizer there, or give the model more rows with resize_token_embeddings"
        )
    return model, tokenizer


def auto_class(path: str) -> type:
    """The Auto class that loads a model with the head that it was saved with; AutoModel if it knows no such head.

    And AutoModel if the head predicts masked words and the files hold a pooler, as those of BERT and ALBERT do: classifiers
    need it, and the class that the config names would leave it out.
    """
    import transformers

    from mpo_tutorial.models.architectures import HEADS

    config = read_config(path)
    autos = [getattr(transformers, head) for head in HEADS]
    named = config.architectures or [""]
    auto = next(
        (auto for auto in autos if getattr(auto._model_mapping.get(type(config), None), "__name__", None) in named),
        autos[0],
    )
    if auto is not transformers.AutoModelForMaskedLM:
        return auto
    return autos[0] if any("pooler." in name for name in stored.shapes_in(stored.weight_files(path))) else auto


def read_config(path: str):
    from transformers import AutoConfig

    if path.endswith(".json") and not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give the config.json of a model")
    with as_value_error(f"{path} is no config.json of a model that transformers knows"):
        return AutoConfig.from_pretrained(path)
