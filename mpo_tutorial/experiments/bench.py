"""How fast: beside other libraries, beside `nn.Linear`, and beside the multiplications that the work needs.

Contenders take turns, one step each, so that a busy minute slows them all; the median counts. Peak memory is that of a
process of its own for each.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from statistics import median

import torch
from torch import Tensor, nn

from mpo_tutorial.experiments import records
from mpo_tutorial.maths.contraction import multiplications
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape
from mpo_tutorial.models.convert import decompose, freeze
from mpo_tutorial.models.layers import MPOLinear, cached

TOO_LONG = 60.0  # seconds
PAUSE = 0.2  # seconds; the threads of a BLAS go on spinning for a while, and would slow the next contender
PEERS = ("tensorly", "tensorly-torch", "quimb", "torchTT")
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Sizes:
    """What is measured: by default BERT-base, one of its feed-forward layers, and the numbers of tokens of its pre-training."""

    hidden: int = 768
    feed_forward: int = 3072
    vocabulary: int = 30522
    layers: int = 12
    tokens: tuple[int, ...] = (1024, 4096)
    model_tokens: tuple[int, ...] = (256, 1024)
    bonds: tuple[int | None, ...] = (None, 64)

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Of every kind: how many, rows, columns."""
        return {
            "attention and pooler": (4 * self.layers + 1, self.hidden, self.hidden),
            "feed-forward, in": (self.layers, self.hidden, self.feed_forward),
            "feed-forward, out": (self.layers, self.feed_forward, self.hidden),
            "embedding": (1, self.vocabulary, self.hidden),
        }


def bench(
    sizes: Sizes | None = None,
    *,
    device: str = "cpu",
    repeat: int = 15,
    show: Callable[[str], None] = lambda _: None,
) -> dict:
    """Measure everything.

    Parameters
    ----------
    sizes : Sizes
    device : {"cpu", "cuda"}
    repeat : int
        Turns of each contender; the median of their seconds counts.
    show : callable
        Gets a line before each part.

    Returns
    -------
    dict : the record

    Raises
    ------
    ValueError
        As `check_options`.
    """
    check_options(device, repeat)
    sizes = sizes or Sizes()
    record = {"kind": "bench", **records.provenance(), "device": device, "repeat": repeat, "peers": _versions()}
    show("decomposing every matrix of the model ...")
    record["decomposition"] = _decomposition(sizes, device, repeat)
    show("one layer, forward and backward ...")
    record["layer"] = [row for rows in _layer(sizes, device, repeat) for row in rows]
    show("one layer, evaluated ...")
    record["evaluation"] = _evaluation(sizes, device, repeat)
    show("the whole model, forward and backward ...")
    record["model"] = [row for rows in _model(sizes, device, repeat, record["layer"]) for row in rows]
    show("the numbers under a slider ...")
    record["slider"] = _slider(sizes)
    return record


def check_options(device: str, repeat: int) -> None:
    """Refuse, by a ValueError, less than one turn and a device that is not there."""
    if repeat < 1:
        raise ValueError(f"repeat is at least 1, got {repeat}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"the device is cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs an NVIDIA GPU that torch can see, there is none; take --device cpu")


def _versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found


def _race(steps: dict[str, Callable[[], object]], device: str, repeat: int) -> dict[str, float]:
    """Median seconds of a step of each contender, without its first turn, unless that one took too long for another."""
    first = {name: _seconds(step, device) for name, step in steps.items()}
    turns = {name: [] for name, seconds in first.items() if seconds < TOO_LONG}
    order = list(turns)
    for _ in range(repeat):
        order.reverse()  # so that nobody is always the first, or always behind the same
        for name in order:
            turns[name].append(_seconds(steps[name], device))
    return first | {name: median(seconds) for name, seconds in turns.items()}


def _seconds(step: Callable[[], object], device: str) -> float:
    time.sleep(PAUSE)
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _peak(make: Callable, *arguments) -> int:
    """Bytes at the peak of a process, or of the GPU, that does one step and nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, make, arguments, torch.get_num_threads()).result()


def _peak_here(make: Callable, arguments: tuple, threads: int) -> int:
    torch.set_num_threads(threads)
    make(*arguments)()
    return torch.cuda.max_memory_allocated() if "cuda" in arguments else records.peak_memory_bytes()


# Decomposition


def bert_like(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Random, with singular values that fall like those of BERT's matrices: to a tenth over the first half, then to 0."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    place = torch.linspace(0, 1, rank)
    spectrum = torch.exp(-4.6 * place) * (1 - place**4)
    tall = torch.randn(max(rows, columns), rank, generator=generator) * spectrum
    turned = tall @ torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0]
    return (turned if rows >= columns else turned.T).contiguous()


def decomposer(library: str, rows: int, columns: int, device: str) -> Callable[[], Callable[[], Tensor]] | None:
    """A step that decomposes one matrix at full bond and returns what rebuilds it; None if the library is missing."""
    matrix, shape = bert_like(rows, columns).to(device), balanced_shape(rows, columns)
    padding = (0, shape.padding[1], 0, shape.padding[0])
    legs = (*shape.in_legs, *shape.out_legs)
    n = shape.n_cores

    def clipped(padded: Tensor) -> Tensor:
        return padded.reshape(shape.padded_size)[:rows, :columns]

    try:
        if library == "mpo_tutorial":
            return lambda: MPO.from_matrix(matrix, shape).to_matrix
        if library == "tensorly":
            import tensorly as tl
            from tensorly.decomposition import tensor_train_matrix
            from tensorly.tt_matrix import tt_matrix_to_matrix

            def with_tensorly():
                with tl.backend_context("pytorch", local_threadsafe=True):
                    cores = tensor_train_matrix(
                        nn.functional.pad(matrix, padding).reshape(legs), (1, *shape.full_bonds, 1)
                    )

                def rebuilt():
                    with tl.backend_context("pytorch", local_threadsafe=True):
                        return clipped(tt_matrix_to_matrix(cores))

                return rebuilt

            return with_tensorly
        if library == "quimb":
            from quimb.tensor import MatrixProductState

            pairs = [axis for k in range(n) for axis in (k, n + k)]
            dims = shape.pairs
            back = [pairs.index(axis) for axis in range(2 * n)]
            paired = [leg for pair in zip(shape.in_legs, shape.out_legs, strict=True) for leg in pair]

            def with_quimb():
                vector = nn.functional.pad(matrix, padding).reshape(legs).permute(pairs).reshape(-1)
                state = MatrixProductState.from_dense(vector.cpu().numpy(), dims=dims, cutoff=0.0)
                return lambda: clipped(torch.from_numpy(state.to_dense()).reshape(paired).permute(back).reshape(-1))

            return with_quimb
        from torchtt import TT

        sites = list(zip(shape.in_legs, shape.out_legs, strict=True))

        def with_torchtt():
            train = TT(nn.functional.pad(matrix, padding).reshape(legs), shape=sites, eps=1e-12)
            return lambda: clipped(train.full())

        return with_torchtt
    except ImportError:
        return None


def _decomposition(sizes: Sizes, device: str, repeat: int) -> list[dict]:
    libraries = ("mpo_tutorial", "tensorly", "quimb", "torchTT")
    kinds = sizes.matrices()
    rows = {library: {"library": library, "seconds": 0.0, "error": 0.0, "kinds": {}} for library in libraries}
    for kind, (count, *size) in kinds.items():
        steps = {library: decomposer(library, *size, device) for library in libraries}
        missing = [library for library, step in steps.items() if step is None]
        steps = {library: step for library, step in steps.items() if step is not None}
        for library in missing:
            rows[library] = {"library": library, "missing": NOT_INSTALLED}
        matrix = bert_like(*size)
        for library, seconds in _race(steps, device, max(1, repeat // 2)).items():
            rows[library]["kinds"][kind] = seconds
            rows[library]["seconds"] += count * seconds
            rows[library]["error"] = max(rows[library]["error"], relative_error(steps[library]()().cpu(), matrix))
    _, *largest = kinds["embedding"]
    for library, row in rows.items():
        if "missing" not in row:
            row["peak_bytes"] = _peak(decomposer, library, *largest, device)
    return list(rows.values())


# One layer


def layer_step(contender: str, shape: Shape, tokens: int, bond: int | None, device: str) -> Callable | None:
    """A forward and a backward pass of one layer; in the MPOs the central core is frozen. None if the library is missing."""
    layer = _layer_of(contender, shape, bond)
    if layer is None:
        return None
    layer = layer.to(device)
    x = torch.randn(tokens, shape.in_size, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    upstream = torch.randn(tokens, shape.out_size, generator=torch.Generator().manual_seed(2)).to(device)

    def step():
        layer.zero_grad()
        x.grad = None
        layer(x).backward(upstream)

    return step


def _layer_of(contender: str, shape: Shape, bond: int | None) -> nn.Module | None:
    """Every contender has the same weights, those of the decomposed matrix."""
    mpo = MPO.from_matrix(bert_like(shape.in_size, shape.out_size), shape, bond)
    layer = MPOLinear(mpo, torch.zeros(shape.out_size))
    if contender == "nn.Linear":
        return layer.to_dense()
    if contender == "MPOLinear":
        layer.central.requires_grad_(False)
        return layer
    return _of_tensorly_torch(layer, contender.split(", ")[1])


def _of_tensorly_torch(layer: MPOLinear, implementation: str) -> nn.Module | None:
    """The same layer of tensorly-torch; its cores have out before in."""
    try:
        import tltorch
    except ImportError:
        return None
    shape, bonds = layer.mpo.shape, layer.mpo.bonds
    same = tltorch.FactorizedLinear(
        shape.in_legs,
        shape.out_legs,
        factorization="blocktt",
        rank=(1, *bonds, 1),
        implementation=implementation,
    )
    for k, (core, factor) in enumerate(zip(layer.cores, same.weight.factors, strict=True)):
        factor.data = core.detach().transpose(1, 2).contiguous()
        factor.requires_grad_(k != shape.central)
    same.bias.data = layer.bias.detach().clone()
    return same


def _layer(sizes: Sizes, device: str, repeat: int) -> Iterator[list[dict]]:
    shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    # The last one leaves the order to einsum. Without opt_einsum that goes core by core, which takes all memory there is.
    names = ("nn.Linear", "MPOLinear", "tensorly-torch, reconstructed", "tensorly-torch, factorized")
    for bond in sizes.bonds:
        bonds = MPO.random(shape, bond).bonds
        for tokens in sizes.tokens:
            chosen = names if torch.backends.opt_einsum.is_available() else names[:3]
            steps = {name: layer_step(name, shape, tokens, bond, device) for name in chosen}
            missing = [name for name, step in steps.items() if step is None]
            steps = {name: step for name, step in steps.items() if step is not None}
            seconds = _race(steps, device, repeat)
            dense = 3 * tokens * shape.in_size * shape.out_size
            seconds["counted limit"] = seconds["nn.Linear"] * (1 + multiplications(shape, bonds) / dense)
            rows = []
            for name, value in seconds.items():
                row = {"contender": name, "tokens": tokens, "bond": bond, "seconds": value}
                if name != "counted limit":
                    row["peak_bytes"] = _peak(layer_step, name, shape, tokens, bond, device)
                rows.append(row)
            rows += [{"contender": n, "tokens": tokens, "bond": bond, "missing": NOT_INSTALLED} for n in missing]
            yield rows


def _evaluation(sizes: Sizes, device: str, repeat: int) -> list[dict]:
    """A forward pass without gradients, as in `cached`."""
    shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    dense, layer = (_layer_of(name, shape, None).to(device) for name in ("nn.Linear", "MPOLinear"))
    rows = []
    for tokens in sizes.tokens:
        x = torch.randn(tokens, shape.in_size).to(device)
        with torch.inference_mode(), cached(layer):
            steps = {"nn.Linear": lambda x=x: dense(x), "MPOLinear in cached": lambda x=x: layer(x)}
            seconds = _race(steps, device, 3 * repeat)
        rows += [{"contender": name, "tokens": tokens, "seconds": value} for name, value in seconds.items()]
    return rows


# The whole model


def model_step(contender: str, sizes: Sizes, tokens: int, bond: int | None, device: str) -> Callable | None:
    """A forward and a backward pass of a new BERT; as MPOs, only auxiliary cores are trained. None if the library is missing."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.layers,
    )
    model = BertForSequenceClassification(config)
    if contender != "nn.Linear":
        decompose(model, max_bond=bond)
        freeze(model)
    if contender.startswith("tensorly-torch"):
        for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, MPOLinear)]:
            same = _of_tensorly_torch(layer, "reconstructed")
            if same is None:
                return None
            same.bias.requires_grad_(False)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, same)
    model.to(device).train()
    length = min(128, tokens)
    ids = torch.randint(0, sizes.vocabulary, (tokens // length, length)).to(device)

    def step():
        model.zero_grad()
        model(ids).logits.sum().backward()

    return step


def _model(sizes: Sizes, device: str, repeat: int, layer_rows: list[dict]) -> Iterator[list[dict]]:
    names = ("nn.Linear", "MPOLinear", "tensorly-torch, reconstructed")
    of_layer = next(row for row in layer_rows if row["contender"] == "nn.Linear")
    per_multiplication = of_layer["seconds"] / (3 * of_layer["tokens"] * sizes.hidden * sizes.feed_forward)
    for bond in sizes.bonds:
        rebuilding = 0
        for kind, (count, *size) in sizes.matrices().items():
            if kind != "embedding":
                shape = balanced_shape(*size)
                rebuilding += count * multiplications(shape, MPO.random(shape, bond).bonds)
        for tokens in sizes.model_tokens:
            steps = {name: model_step(name, sizes, tokens, bond, device) for name in names}
            missing = [name for name, step in steps.items() if step is None]
            steps = {name: step for name, step in steps.items() if step is not None}
            seconds = _race(steps, device, max(1, repeat // 2))
            del steps
            seconds["counted limit"] = seconds["nn.Linear"] + rebuilding * per_multiplication
            rows = []
            for name, value in seconds.items():
                row = {"contender": name, "tokens": tokens, "bond": bond, "seconds": value}
                if name != "counted limit" and tokens == max(sizes.model_tokens):
                    row["peak_bytes"] = _peak(model_step, name, sizes, tokens, bond, device)
                rows.append(row)
            rows += [{"contender": n, "tokens": tokens, "bond": bond, "missing": NOT_INSTALLED} for n in missing]
            yield rows


def _slider(sizes: Sizes) -> dict:
    """Schmidt values once, then what a slider shows: counts, ratio, bound and entropies."""
    shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    matrix = bert_like(sizes.hidden, sizes.feed_forward)
    started = time.perf_counter()
    spectra = Spectra.of(matrix, shape)
    once = time.perf_counter() - started
    bonds = tuple(max(1, full // 2) for full in shape.full_bonds)
    answer = _race(
        {"": lambda: (spectra.bound(bonds, relative=True), spectra.entropies(), shape.n_params(bonds))}, "cpu", 7
    )[""]
    return {"schmidt_values_seconds": once, "answer_seconds": answer}
