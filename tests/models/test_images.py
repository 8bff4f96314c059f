import gzip
from hashlib import sha256

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mpo_tutorial.models import images
from mpo_tutorial.models.images import DIGITS, FASHION, digits, fashion_mnist, order_of, ordered
from mpo_tutorial.models.networks import ImageClassifier, Pixels, fc2, is_network, network


def test_digits_are_scikit_learns_enlarged():
    found, original = digits(), load_digits()
    assert len(found) == 1797
    assert [label for _, label in found] == list(original.target)
    for k in (0, 900, 1796):
        image = np.frombuffer(found[k][0], dtype=np.uint8).reshape(28, 28)
        # linear interpolation keeps what lies in the middle of an old pixel: 3.5 new ones wide, so of every second
        centres = image[1::7, 1::7], image[5::7, 5::7]
        wanted = original.images[k] / 16 * 255
        assert np.abs(centres[0] - wanted[::2, ::2]).max() <= 40
        assert np.corrcoef(image[1::7, 1::7].ravel(), wanted[::2, ::2].ravel())[0, 1] > 0.99
        assert np.corrcoef(image[5::7, 5::7].ravel(), wanted[1::2, 1::2].ravel())[0, 1] > 0.99


def test_blocks_lie_one_after_the_other_and_every_pixel_is_there_once():
    assert order_of(DIGITS) is None
    for task in (f"{DIGITS}, in blocks", f"{FASHION}, shuffled"):
        assert sorted(order_of(task)) == [*range(784)]
    blocks = order_of(f"{DIGITS}, in blocks")
    assert list(blocks[:8]) == [0, 1, 2, 3, 4, 5, 6, 28]
    assert list(blocks[49:51]) == [7, 8]
    assert blocks[4 * 49] == 7 * 28
    ((moved, label),) = ordered([(bytes(k % 256 for k in range(784)), 3)], f"{DIGITS}, in blocks")
    assert label == 3
    assert moved[7] == 28
    shuffled = order_of(f"{DIGITS}, shuffled")
    assert (np.diff(shuffled) == 1).mean() < 0.02
    assert list(shuffled) == list(order_of(f"{FASHION}, shuffled"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files in the form of Fashion-MNIST's, of 5 and 3 images."""
    hashes = {}
    for part, n in (("train", 5), ("t10k", 3)):
        pixels = np.random.default_rng(n).integers(0, 256, (n, 784), dtype=np.uint8)
        for name, head, content in (
            (f"{part}-images-idx3-ubyte.gz", 16, pixels.tobytes()),
            (f"{part}-labels-idx1-ubyte.gz", 8, bytes(range(n))),
        ):
            (tmp_path / name).write_bytes(gzip.compress(bytes(head) + content))
            hashes[name] = sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(images, "SHA256", hashes)
    return tmp_path


def test_fashion_mnist_is_read_from_its_four_files(folder):
    train, test = fashion_mnist(folder)
    assert [label for _, label in train] == [0, 1, 2, 3, 4]
    assert [label for _, label in test] == [0, 1, 2]
    wanted = np.random.default_rng(5).integers(0, 256, (5, 784), dtype=np.uint8)
    assert all(pixels == row.tobytes() for (pixels, _), row in zip(train, wanted, strict=True))


def test_an_altered_or_missing_file_is_named(folder):
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is not the file that was published"):
        fashion_mnist(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels.*is missing; type: apt-get install --reinstall"):
        fashion_mnist(folder)


def test_where_it_is_nowhere_three_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist .*network .*--task digits"):
        fashion_mnist(tmp_path / "nowhere")


def test_the_published_file_is_what_debian_has():
    if not images.DEBIANS.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    train, test = fashion_mnist()
    assert (len(train), len(test)) == (60_000, 10_000)
    assert np.bincount([label for _, label in train]).tolist() == [6000] * 10


def test_a_batch_has_every_pixel_from_minus_one_to_one():
    rows = [{"pixels": bytes([0] * 783 + [255]), "labels": 4}, {"pixels": bytes(784), "labels": 0}]
    batch = Pixels().batch(rows)
    assert batch["pixels"].shape == (2, 1, 28, 28)
    assert (batch["pixels"][0, 0, 27, 27], batch["pixels"][0, 0, 0, 0]) == (1, -1)
    assert batch["labels"].tolist() == [4, 0]


def test_a_classifier_gives_the_mean_cross_entropy_and_refuses_other_images():
    torch.manual_seed(0)
    model = ImageClassifier(fc2(None))
    pixels, labels = torch.randn(3, 1, 28, 28), torch.tensor([1, 0, 9])
    found = model(pixels, labels)
    by_hand = -found.logits.log_softmax(1)[range(3), labels].mean()
    assert found.loss.item() == pytest.approx(by_hand.item())
    assert torch.equal(model.base_model(pixels).pooler_output, pixels.flatten(1))
    with pytest.raises(ValueError, match=r"images have the shape \(n, 1, 28, 28\), got \(3, 3, 32, 32\)"):
        model(torch.zeros(3, 3, 32, 32))
    with pytest.raises(ValueError, match="labels are classes, 0 to 9, got 0 to 10"):
        model(pixels, torch.tensor([0, 10, 1]))
    with pytest.raises(ValueError, match="labels are classes, 0 to 9, got -1 to 2"):
        model(pixels, torch.tensor([2, -1, 1]))


def test_names_of_networks():
    assert is_network("fc2-mpo-16") and is_network("lenet5-mpo") and is_network("fc2")
    assert is_network("lenet5-mpo-all") and is_network("lenet5-mpo-first")
    assert not any(map(is_network, ("minilm", "fc2-mpo", "fc2-mpo-0", "fc2-16", "lenet5-mpo-4", "fc2-svd-16x")))
    with pytest.raises(ValueError, match=r"networks for images are fc2, fc2-mpo-D, .*got 'fc3'"):
        network("fc3")
    with pytest.raises(ValueError, match="kept as one of mpo, svd, cp, tucker, got 'tt'"):
        fc2(4, "tt")
