import json

import pytest
import torch
from safetensors.torch import save_file

from genbench.errors import GenbenchError
from genbench.extractors.cnn import Cnn, CnnExtractor, load_cnn, read_header, to_signed

CPU = torch.device("cpu")


def network(channels=1, size=8, num_classes=10):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Cnn(channels, size, num_classes).eval()


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (1, 28, 3), (1, 32, 10), (3, 32, 100), (3, 64, 2)])
def test_one_architecture_serves_every_size(channels, size, classes):
    net = network(channels, size, classes)
    features, logits = net(torch.zeros(2, channels, size, size))
    assert features.shape == (2, 128)
    assert logits.shape == (2, classes)
    macs = []
    convolutions = [m for m in net.convolutions if isinstance(m, torch.nn.Conv2d)]
    for m in convolutions:
        m.register_forward_hook(lambda m, _, y: macs.append(m.weight.numel() * y[0, 0].numel()))
    net(torch.zeros(1, channels, size, size))
    assert len(macs) == len(convolutions)
    assert sum(macs) < (30e6 if size == 64 else 8e6)  # it runs along every curve


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
