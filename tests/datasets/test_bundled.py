import numpy as np

from genbench.datasets.bundled import load_digits


def test_digits_are_scikit_learns_in_256_levels():
    parts = load_digits(None)
    train, test = parts["train"], parts["test"]
    assert (len(train), len(test)) == (1497, 300)
    images = np.concatenate([train.images, test.images])
    labels = np.concatenate([train.labels, test.labels])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.uint8
    # round(255 v / 16) for v in 0 … 16
    assert np.unique(images).tolist() == [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as its documentation says
    # the sum of all levels of load_digits().data is 561 718
    assert np.rint(images / 255 * 16).sum() == 561718


def test_the_parts_share_no_image():
    parts = load_digits(None)
    train, test = ({image.tobytes() for image in parts[name].images} for name in ("train", "test"))
    assert len(train & test) == 0
