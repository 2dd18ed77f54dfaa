"""Digits and clothing: the packaged images, folders of IDX files, the networks, and that they learn."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from gradwire.sim.tasks import IdxError, TaskError, make_task
from gradwire.sim.tasks import mnist as mnist_module
from gradwire.sim.tasks.idx import read_idx, read_labelled
from gradwire.sim.tasks.mnist import DEBIAN_FASHION, PACKAGED, Mnist

# Of the sorted records (label byte, 784 pixel bytes) of the file that the packaged digits were taken from.
SOURCE_RECORDS = "3b730bf69c9caa32399dbf18397b492658ce79f25bc4b96baba9a2705aa030cc"


def idx_bytes(array, kind=0x08):
    """Return an array as an IDX file's bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_folder(folder, *, train=5010, test=20, mark="-", compressed=False, labels_short_by=0):
    """Write a data set of noise; gives the arrays."""
    draw = np.random.default_rng(7)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[part] = draw.integers(0, 256, (count, 28, 28), np.uint8), draw.integers(0, 10, count, np.uint8)
        for kind, array in zip(("images", "labels"), arrays[part], strict=True):
            kept = array[: count - labels_short_by] if kind == "labels" else array
            data, name = idx_bytes(kept), f"{part}-{kind}{mark}idx{array.ndim}-ubyte"
            if compressed:
                data, name = gzip.compress(data, 1), f"{name}.gz"
            (folder / name).write_bytes(data)
    return arrays


def test_packaged_digits_are_those_of_the_source():
    parts = [read_labelled(PACKAGED, part) for part in ("train", "t10k")]
    records = sorted(bytes([k]) + x.tobytes() for images, labels in parts for x, k in zip(images, labels, strict=True))
    assert len(set(records)) == 5000
    assert hashlib.sha256(b"".join(records)).hexdigest() == SOURCE_RECORDS


def test_packaged_split_is_stratified_and_disjoint():
    splits = Mnist().splits()
    images = [{image.numpy().tobytes() for image in split.tensors[0]} for split in splits]
    assert [len(part) for part in images] == [4000, 500, 500]
    assert len(set.union(*images)) == 5000
    for split, per_class in zip(splits, (400, 50, 50), strict=True):
        assert split.tensors[0].shape[1:] == (1, 28, 28)
        assert split.tensors[0].dtype == torch.float32
        assert split.tensors[1].dtype == torch.int64
        assert split.tensors[1].bincount().tolist() == [per_class] * 10


def test_no_long_run_of_one_class():
    labels = Mnist().splits().train.tensors[1]
    assert all(len(block.unique()) == 10 for block in labels.split(400))
    assert all(len(labels[offset::10].unique()) == 10 for offset in range(10))


def test_inputs_are_standardised_by_the_training_split():
    train, _, test = Mnist().splits()
    assert train.tensors[0].double().mean().item() == pytest.approx(0, abs=1e-6)
    assert train.tensors[0].double().std(correction=0).item() == pytest.approx(1, abs=1e-6)
    pixels = read_labelled(PACKAGED, "train")[0][:4000].astype(np.float64)
    raw = read_labelled(PACKAGED, "t10k")[0]
    expected = (raw - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(test.tensors[0].squeeze(1).numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("network", "count"), [("mlp", 266_610), ("cnn", 416 + 12_832 + 15_690)])
def test_networks(network, count):
    model = Mnist(network).model()
    assert sum(value.numel() for value in model.parameters()) == count
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_hidden_widths_are_those_asked_for():
    shapes = [tuple(p.shape) for p in make_task("mnist", {"hidden": "20,7,5"}).model().parameters()]
    assert shapes == [(20, 784), (20,), (7, 20), (7,), (5, 7), (5,), (10, 5), (10,)]
    assert sum(p.numel() for p in make_task("mnist", {"hidden": "2048,2048"}).model().parameters()) == 5_824_522
    assert len(list(make_task("mnist", {"hidden": 16}).model().parameters())) == 4
    torch.manual_seed(3)
    default = make_task("mnist", {}).model().state_dict()
    torch.manual_seed(3)
    asked = make_task("mnist", {"hidden": "300,100"}).model().state_dict()
    assert all(torch.equal(default[name], asked[name]) for name in default)


@pytest.mark.parametrize("hidden", ["", "0", "20,", "20,0", "20, 10", "-3", "wide", 0, -3])
def test_widths_that_are_none_are_refused(hidden):
    with pytest.raises(TaskError, match=r"^task\.hidden = .*: must be widths of at least 1 with commas between"):
        make_task("mnist", {"hidden": hidden})


def test_only_the_mlp_has_widths():
    with pytest.raises(TaskError, match=r"^task\.hidden = '20': network 'cnn' takes no widths; give network 'mlp'$"):
        make_task("mnist", {"network": "cnn", "hidden": "20"})


def test_mlp_learns_the_packaged_digits():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = Mnist()
        train, _, test = task.splits()
        torch.manual_seed(0)
        model = task.model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = task.evaluate(model, test)
        for _ in range(6):
            for positions in torch.randperm(len(train)).split(50):
                optimizer.zero_grad()
                task.loss(model, train.take(positions)).backward()
                optimizer.step()
        after = task.evaluate(model, test)
    finally:
        torch.set_num_threads(threads)
    assert before.metric < 0.3
    assert after.metric > 0.9
    assert after.loss < 0.4


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_folder_of_idx_files(tmp_path, mark, compressed):
    arrays = write_folder(tmp_path, mark=mark, compressed=compressed)
    train, validation, test = make_task("mnist", {"source": "mnist", "folder": str(tmp_path)}).splits()
    assert [len(train), len(validation), len(test)] == [10, 5000, 20]
    images, labels = arrays["train"]
    kept = images[:10].astype(np.float64)
    for split, (pixels, classes) in (
        (train, (images[:10], labels[:10])),
        (validation, (images[10:], labels[10:])),
        (test, arrays["t10k"]),
    ):
        expected = (pixels - kept.mean()) / kept.std()
        np.testing.assert_allclose(split.tensors[0].squeeze(1).numpy(), expected, rtol=1e-5, atol=1e-6)
        assert split.tensors[1].tolist() == classes.tolist()


def test_digest_changes_with_one_pixel(tmp_path):
    write_folder(tmp_path)
    task = Mnist(source="mnist", folder=str(tmp_path))
    before = task.digest()
    path = tmp_path / "t10k-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert task.digest() != before
    data[-1] ^= 1
    path.write_bytes(data)
    assert task.digest() == before


def test_folders_that_are_no_data_set(tmp_path):
    def refused(message):
        with pytest.raises(IdxError, match=message) as caught:
            Mnist(source="mnist", folder=str(tmp_path / "set")).splits()
        assert "\n" not in str(caught.value)

    refused(
        r"set: that is not a folder; looked for train-images-idx3-ubyte, train-images-idx3-ubyte\.gz, train-images\."
    )
    (tmp_path / "set").mkdir()
    refused("set: none of these is there; looked for train-images-idx3-ubyte")
    write_folder(tmp_path / "set", labels_short_by=1)
    refused("train-labels-idx1-ubyte: has 5009 labels, expected 5010, one for each image in train-images-idx3-ubyte")
    write_folder(tmp_path / "set", train=5000)
    refused("set: has 5000 training images, expected more than the 5000 that validate")
    write_folder(tmp_path / "set")
    labels = tmp_path / "set" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0a")
    refused("set: t10k labels go up to 10, expected 0 to 9")
    write_folder(tmp_path / "set")
    images = tmp_path / "set" / "t10k-images-idx3-ubyte"
    images.write_bytes(idx_bytes(np.zeros((20, 28, 27))))
    refused(r"set: t10k images have shape \(20, 28, 27\), expected \(1 or more, 28, 28\)")
    write_folder(tmp_path / "set")
    images = tmp_path / "set" / "train-images-idx3-ubyte"
    images.write_bytes(idx_bytes(np.full((5010, 28, 28), 3)))
    refused("set: has the same value in all pixels of its training images")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:0], r"starts with bytes \(none\), expected 00 00 08 03"),
        (lambda data: b"\x89PNG" + data[4:], "starts with bytes 89 50 4e 47, expected 00 00 08 03"),
        (lambda data: data[:2] + b"\x0d" + data[3:], r"starts with bytes 00 00 0d 03, expected 00 00 08 03"),
        (lambda data: data[:3] + b"\x01" + data[4:], r"starts with bytes 00 00 08 01, .* 3 dimensions"),
        (lambda data: data[:9], "ends within its header, after 9 bytes; expected at least 16"),
        (lambda data: data[:-1], r"has 39 bytes, expected 40 for the shape \(2, 3, 4\) in its header"),
        (lambda data: data + b"!", r"has 41 bytes, expected 40 for the shape \(2, 3, 4\) in its header"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "has 40 bytes, expected 79228162458924105385300197391"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_wrong_idx_files(tmp_path, change, message, compressed):
    path = tmp_path / ("file.gz" if compressed else "file")
    data = change(idx_bytes(np.arange(24).reshape(2, 3, 4)))
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(IdxError, match=message) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_gzip_files(tmp_path):
    whole = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = gzip.compress(idx_bytes(whole))
    path = tmp_path / "file.gz"
    path.write_bytes(data)
    assert np.array_equal(read_idx(path, 3), whole)
    flipped = data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]
    for wrong in (data[:-9], data[:12], flipped, b"\0" * 20, data[:10] + b"\xff" * 20):
        path.write_bytes(wrong)
        with pytest.raises(IdxError, match=r"file\.gz: is not a whole gzip file: \S") as caught:
            read_idx(path, 3)
        assert caught.value.__cause__ is not None
    with pytest.raises(IdxError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, 3)


def test_fashion_mnist_from_debians_package():
    if not DEBIAN_FASHION.is_dir():
        pytest.skip(f"{DEBIAN_FASHION} is absent: Debian's package dataset-fashion-mnist is not installed")
    train, validation, test = make_task("mnist", {"source": "fashion-mnist"}).splits()
    assert [len(train), len(validation), len(test)] == [55_000, 5_000, 10_000]
    assert (train.tensors[1].bincount() + validation.tensors[1].bincount()).tolist() == [6000] * 10
    assert test.tensors[1].bincount().tolist() == [1000] * 10
    assert test.tensors[1][:5].tolist() == [9, 2, 1, 1, 6]
    assert train.tensors[0].double().square().mean().item() == pytest.approx(1, abs=1e-5)


def test_fashion_mnist_without_debians_package(monkeypatch, tmp_path):
    monkeypatch.setattr(mnist_module, "DEBIAN_FASHION", tmp_path / "absent")
    with pytest.raises(TaskError, match=r"^task\.folder: source 'fashion-mnist' needs .*absent is not there") as caught:
        make_task("mnist", {"source": "fashion-mnist"})
    assert (caught.value.key, caught.value.value) == ("folder", None)
