"""Images with labels, as bytes: the real digits that come with scikit-learn, Fashion-MNIST by Debian or the hub, and MNIST and
CIFAR-10 by the hub.
"""

import gzip
from pathlib import Path

import numpy as np

from mpo_tutorial.models.sources import dataset_of_hub, hub_answers
from mpo_tutorial.models.stored import file_sha256

DIGITS, FASHION, MNIST, CIFAR = "digits", "fashion_mnist", "mnist", "cifar10"
ORDERS = ("in blocks", "shuffled")
IMAGE_TASKS = (
    *(f"{task}{order}" for task in (DIGITS, FASHION, MNIST) for order in ("", *(f", {name}" for name in ORDERS))),
    CIFAR,
)
BLOCK = 7  # pixels of a side
SIDE = 28  # of an image, in pixels
GREY, COLOURS = (1, SIDE, SIDE), (3, 32, 32)  # channels, height and width; colours has CIFAR-10 alone
# By its full name, with its config and the column that has the images.
ON_HUB = {
    FASHION: ("zalando-datasets/fashion_mnist", "fashion_mnist", "image"),
    MNIST: ("ylecun/mnist", "mnist", "image"),
    CIFAR: ("uoft-cs/cifar10", "plain_text", "img"),
}
DEBIANS = Path("/usr/share/datasets/fashion-mnist")  # of its package dataset-fashion-mnist
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
CLASSES = {
    DIGITS: tuple("0123456789"),
    MNIST: tuple("0123456789"),
    CIFAR: ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    FASHION: ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
}
THREE_WAYS = (
    "apt-get install dataset-fashion-mnist (Debian, Ubuntu, Binder), connect to the network (the hub has it), or take "
    "--task digits, which comes with scikit-learn"
)

Image = tuple[bytes, int]  # a byte for each number, channel by channel and row by row, 0 black; and the class


def order_of(task: str) -> np.ndarray | None:
    """Which pixel comes at which place of a task's images, by its name: "digits, in blocks" has squares of 7 x 7 pixels one after
    the other, "digits, shuffled" one order by chance for all images; None: row by row.
    """
    pixels = np.arange(SIDE**2)
    order = task.partition(", ")[2]
    if order == "in blocks":
        blocks = SIDE // BLOCK
        return pixels.reshape(blocks, BLOCK, blocks, BLOCK).transpose(0, 2, 1, 3).ravel()
    return np.random.default_rng(0).permutation(pixels) if order == "shuffled" else None


def ordered(images: list[Image], task: str) -> list[Image]:
    """The same images with their pixels in the order of a task."""
    order = order_of(task)
    if order is None:
        return images
    return [(np.frombuffer(pixels, dtype=np.uint8)[order].tobytes(), label) for pixels, label in images]


def digits() -> list[Image]:
    """The 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998), enlarged to 28 x 28 by linear interpolation."""
    import torch
    from sklearn.datasets import load_digits

    found = load_digits()
    small = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels = (255 * large).round().to(torch.uint8).numpy()
    return [(image.tobytes(), int(label)) for image, label in zip(pixels, found.target, strict=True)]


def fashion_mnist(folder: Path = DEBIANS) -> tuple[list[Image], list[Image]]:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 images to train on and 10,000 to test on.

    Parameters
    ----------
    folder : Path
        Of its four files, as Debian's package installs them; where it is none, the hub is asked.

    Raises
    ------
    FileNotFoundError
        If a file is missing, or there is neither a folder nor a hub.
    ValueError
        If a file is not the one that was published.
    """
    if not folder.is_dir():
        try:
            return from_hub(FASHION)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"Fashion-MNIST is not on this machine, and the hub does not answer; {THREE_WAYS}"
            ) from error
    for name, expected in SHA256.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing; type: apt-get install --reinstall dataset-fashion-mnist"
            )
        if file_sha256(folder / name) != expected:
            raise ValueError(
                f"{folder / name} is not the file that was published: it is damaged or was altered; type: apt-get install "
                "--reinstall dataset-fashion-mnist"
            )
    train, test = (
        list(
            zip(
                _images(folder / f"{part}-images-idx3-ubyte.gz"),
                _labels(folder / f"{part}-labels-idx1-ubyte.gz"),
                strict=True,
            )
        )
        for part in ("train", "t10k")
    )
    return train, test


def _images(path: Path) -> list[bytes]:
    content = gzip.decompress(path.read_bytes())[16:]
    return [content[start : start + SIDE**2] for start in range(0, len(content), SIDE**2)]


def _labels(path: Path) -> list[int]:
    return list(gzip.decompress(path.read_bytes())[8:])


def from_hub(task: str) -> tuple[list[Image], list[Image]]:
    """Images to train on and to test on of "fashion_mnist", "mnist" or "cifar10".

    Raises
    ------
    FileNotFoundError
        If they are not in the cache and the hub does not answer.
    ConnectionError, ValueError
        As `sources.dataset_of_hub`, where it does.
    """
    name, config, column = ON_HUB[task]
    try:
        dataset = dataset_of_hub(name, config)
    except ConnectionError as error:
        if hub_answers():
            raise
        raise FileNotFoundError(
            f"{name} is not on this machine, and the hub does not answer; connect to the network, or take --task {DIGITS}, which "
            "comes with scikit-learn"
        ) from error
    train, test = (
        [(_bytes_of(row[column], task), int(row["label"])) for row in dataset[split]] for split in ("train", "test")
    )
    return train, test


def _bytes_of(image, task: str) -> bytes:
    if task == CIFAR:
        return np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1).tobytes()
    return np.asarray(image.convert("L"), dtype=np.uint8).tobytes()
