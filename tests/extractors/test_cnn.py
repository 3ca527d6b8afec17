import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from genbench.errors import GenbenchError
from genbench.extractors import cnn
from genbench.extractors.cnn import Cnn, CnnExtractor, load_cnn, read_header, to_signed

CPU = torch.device("cpu")


def network(channels=1, size=8, num_classes=10, photos=False):
    """With normalisations as a training leaves them: no constant of theirs is 0 or 1."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = Cnn(channels, size, num_classes, photos).eval()
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                for values, low, high in ((m.weight, 0.5, 1.5), (m.bias, -0.5, 0.5), (m.running_mean, -1, 1), (m.running_var, 0.5, 3)):
                    torch.nn.init.uniform_(values, low, high)
        net.feature_scale.fill_(0.7)
        return net


def multiplications(net):
    """Of each convolution for one image, in a list that a pass through the network fills."""
    macs = []
    for m in net.convolutions.modules():
        if isinstance(m, torch.nn.Conv2d):
            m.register_forward_hook(lambda m, _, y: macs.append(m.weight.numel() * y[0, 0].numel()))
    return macs


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (1, 28, 3), (1, 32, 10), (3, 32, 100), (3, 64, 2)])
def test_one_architecture_serves_every_size(channels, size, classes):
    net = network(channels, size, classes)
    features, logits = net(torch.zeros(2, channels, size, size))
    assert features.shape == (2, 128)
    assert logits.shape == (2, classes)
    macs = multiplications(net)
    net(torch.zeros(2, channels, size, size))
    assert len(macs) > 2
    assert sum(macs) < (30e6 if size == 64 else 8e6)  # it runs along every curve


def test_the_network_for_photographs_is_wider_deeper_and_still_cheap():
    net = network(3, 32, 10, photos=True)
    macs = multiplications(net)
    features, logits = net(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 256)
    assert logits.shape == (2, 10)
    assert 30e6 < sum(macs) < 65e6
    assert network(3, 64, 7, photos=True)(torch.zeros(2, 3, 64, 64))[0].shape == (2, 256)
    block = cnn.Residual(8).eval()
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x) - x, block.branch(x))


@pytest.mark.parametrize("photos", [False, True])
def test_the_extractor_is_its_network_with_normalisations_folded_in(photos):
    net = network(3, 32, 10, photos)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(9)
    stream = torch.random.get_rng_state()
    extractor = CnnExtractor(net, "d", CPU)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in extractor._convolutions.modules())
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = copy.deepcopy(net).double()(to_signed(images).double())
    for found, wanted in zip(extractor(images), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())


def test_a_batch_in_parts_is_the_batch(monkeypatch):
    extractor = CnnExtractor(network(), "d", CPU)
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = extractor(images)
    monkeypatch.setattr(cnn, "MOST_AT_ONCE", 3)
    for found, wanted in zip(extractor(images), whole, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_uint8_becomes_the_signed_range_of_the_protocol():
    assert to_signed(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)).flatten().tolist() == pytest.approx([-1, -0.6, 1])


def test_an_image_does_not_depend_on_its_batch_nor_on_autocast():
    extractor = CnnExtractor(network(), "d", CPU)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features, logits = extractor(images)
    torch.testing.assert_close(extractor(images[3:4])[0], features[3:4], rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        again = extractor(images)
    assert torch.equal(again[0], features)
    assert torch.equal(again[1], logits)
    assert not features.requires_grad


def test_images_of_another_shape_or_type_are_refused():
    extractor = CnnExtractor(network(), "d", CPU, "digits-cnn")
    for images in (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 9, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)):
        with pytest.raises(GenbenchError, match="extractor digits-cnn sees 1x8x8 uint8 images, not"):
            extractor(images)


def test_files_that_are_no_weights_of_ours_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(GenbenchError, match="cannot be read"):
        load_cnn(path, CPU)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(GenbenchError, match="cannot be read"):
        load_cnn(path, CPU)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(GenbenchError, match="not written by genbench extractor train"):
        load_cnn(path, CPU)
    header = {"channels": 1, "size": 8, "num_classes": 10, "dataset": "digits"}
    save_file({"x": torch.zeros(1)}, path, metadata={"genbench": json.dumps(header)})
    assert read_header(path) == header
    with pytest.raises(GenbenchError, match="do not fit genbench's CNN"):
        load_cnn(path, CPU)
