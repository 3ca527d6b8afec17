"""The datasets that come with the harness; listing them imports nothing heavy."""

from __future__ import annotations

from functools import cache, partial

from genbench.datasets import DatasetSpec
from genbench.datasets.binary import load_binary
from genbench.datasets.bundled import load_digits
from genbench.datasets.torchvision import load_celeba, load_cifar, load_mnist_like, load_stl10, load_svhn

_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def builtin_datasets() -> list[DatasetSpec]:
    """Digits, and what torchvision knows how to fetch. ``folder:PATH`` and ``zip:PATH`` are made as they are named."""
    return list(_specs())


@cache  # so that two lists hold the same specs: a partial equals itself alone
def _specs() -> tuple[DatasetSpec, ...]:
    return (
        DatasetSpec(
            "digits", load_digits, 1, 8, 10, holdout=300, class_names=_DIGITS, licence="CC BY 4.0",
            url="https://doi.org/10.24432/C50P49", description="1 797 handwritten digits at 8×8, in the package",
        ),
        DatasetSpec(
            "mnist", partial(load_mnist_like, name="MNIST"), 1, 28, 10, holdout=10_000, resize="pad", class_names=_DIGITS,
            licence="CC BY-SA 3.0", url="http://yann.lecun.com/exdb/mnist/", description="70 000 handwritten digits at 28×28",
        ),
        DatasetSpec(
            "mnist-binary", partial(load_binary, load=partial(load_mnist_like, name="MNIST")), 1, 28, 10, holdout=10_000,
            class_names=_DIGITS, licence="CC BY-SA 3.0", url="http://yann.lecun.com/exdb/mnist/",
            description="MNIST in black and white, drawn once from its grey levels",
        ),
        DatasetSpec(
            "mnist-dynamic", partial(load_mnist_like, name="MNIST"), 1, 28, 10, holdout=10_000, class_names=_DIGITS, dynamic=True,
            licence="CC BY-SA 3.0", url="http://yann.lecun.com/exdb/mnist/",
            description="MNIST in black and white, training images drawn anew for every batch",
        ),
        DatasetSpec(
            "fashion-mnist", partial(load_mnist_like, name="FashionMNIST"), 1, 28, 10, holdout=10_000, resize="pad", class_names=_FASHION,
            licence="MIT", url="https://github.com/zalandoresearch/fashion-mnist", description="70 000 articles of clothing at 28×28",
        ),
        DatasetSpec(
            "kmnist", partial(load_mnist_like, name="KMNIST"), 1, 28, 10, holdout=10_000, resize="pad", class_names=_KUZUSHIJI,
            licence="CC BY-SA 4.0", url="http://codh.rois.ac.jp/kmnist/", description="70 000 cursive Japanese characters at 28×28",
        ),
        DatasetSpec(
            "cifar10", partial(load_cifar, name="CIFAR10"), 3, 32, 10, holdout=5_000, resize="area", class_names=_CIFAR10,
            url="https://www.cs.toronto.edu/~kriz/cifar.html", description="60 000 photographs of 10 classes at 32×32",
        ),
        DatasetSpec(
            "cifar100", partial(load_cifar, name="CIFAR100"), 3, 32, 100, holdout=5_000, resize="area",
            url="https://www.cs.toronto.edu/~kriz/cifar.html", description="60 000 photographs of 100 classes at 32×32",
        ),
        DatasetSpec(
            "svhn", load_svhn, 3, 32, 10, holdout=5_000, resize="area", class_names=_DIGITS,
            licence="non-commercial", url="http://ufldl.stanford.edu/housenumbers/", description="99 289 house numbers at 32×32",
        ),
        DatasetSpec(
            "stl10", load_stl10, 3, 96, 0, holdout=5_000, resize="area",
            url="https://cs.stanford.edu/~acoates/stl10/", description="113 000 photographs at 96×96, used without labels",
        ),
        DatasetSpec(
            "celeba", load_celeba, 3, 178, 0, holdout=10_000, resize="area", licence="non-commercial research",
            url="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", description="182 732 celebrities' faces, centre crop at 178×178",
        ),
    )  # fmt: skip
