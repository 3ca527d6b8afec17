import warnings
from collections import OrderedDict

import pytest
import torch

from genbench.errors import GenbenchError
from genbench.extractors import fidelity
from genbench.extractors.builtin import builtin_extractors
from genbench.torchvision_shim import import_torchvision

CPU = torch.device("cpu")
SPECS = {spec.name: spec for spec in builtin_extractors() if spec.name in fidelity.NETWORKS}
SPEC = SPECS["inception-v3-compat"]


@pytest.fixture(scope="module")
def inception():
    """torch-fidelity's own InceptionV3 with seeded random weights, never downloaded."""
    import_torchvision()
    import torch_fidelity.feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    generator = torch.Generator().manual_seed(1)
    for m in network.modules():
        if isinstance(m, torch.nn.Conv2d):
            fan_in = m.weight[0].numel()
            m.weight.data = torch.randn(m.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
    return network


@pytest.fixture(scope="module")
def weights(inception, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception.state_dict(), path)
    return path


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv(fidelity.OFFLINE, "1")


def test_it_is_torch_fidelitys_network_on_grey_and_colour(inception, weights):
    SPEC.require(weights)
    extractor = SPEC.load(CPU, weights)
    images = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    features, logits = extractor(images)
    expected = inception(images)
    assert features.shape == (2, SPEC.dim)
    assert logits.shape == (2, SPEC.num_classes)
    assert features.std() > 1e-3
    torch.testing.assert_close(features, expected[0], rtol=1e-4, atol=1e-4 * float(expected[0].abs().max()))
    torch.testing.assert_close(logits, expected[1], rtol=1e-4, atol=1e-4 * float(expected[1].abs().max()))
    grey, _ = extractor(images[:1, :1])
    torch.testing.assert_close(grey, extractor(images[:1, :1].repeat(1, 3, 1, 1))[0])
    with pytest.raises(GenbenchError, match="uint8"):
        extractor(images.float())


def test_the_digest_is_of_the_weights_not_of_the_file(inception, weights, tmp_path):
    state = dict(reversed(inception.state_dict().items()))
    torch.save(state, tmp_path / "same.pth", _use_new_zipfile_serialization=False)
    same = fidelity._state_digest(inception)
    assert SPEC.load(CPU, tmp_path / "same.pth").digest == same == SPEC.load(CPU, weights).digest
    state["fc.bias"] = state["fc.bias"] + 1
    torch.save(state, tmp_path / "other.pth")
    assert SPEC.load(CPU, tmp_path / "other.pth").digest != same


def test_absent_weights_offline_are_an_error_that_says_how(no_hub, tmp_path):
    for spec in SPECS.values():
        with pytest.raises(GenbenchError) as caught:
            spec.require(None)
        message = str(caught.value)
        assert message.startswith(f"extractor {spec.name}: its weights are not here ({fidelity.OFFLINE} is set); get https://")
        assert str(tmp_path / "hub" / "checkpoints") in message
        assert ("--weights PATH" in message) == (not spec.name.startswith("dinov2"))
        assert "\n" not in message


def test_a_failed_download_is_the_same_error(tmp_path, monkeypatch):
    import_torchvision()
    import torch_fidelity.feature_extractor_inceptionv3 as module

    def fail(*_, **__):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.delenv(fidelity.OFFLINE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(module, "load_state_dict_from_url", fail)
    with pytest.raises(GenbenchError, match=r"the download failed: .*Name or service not known.*--weights PATH"):
        SPEC.require(None)


class Dangerous:
    """Unpickling it runs code."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_weights_that_are_damaged_foreign_or_dangerous_are_refused(tmp_path, capsys):
    with pytest.raises(GenbenchError, match="no weights file"):
        SPEC.require(tmp_path / "none.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    torch.save({"x": torch.zeros(1)}, tmp_path / "foreign.pth")
    torch.save({"x": Dangerous()}, tmp_path / "dangerous.pth")
    for name in ("junk", "foreign", "dangerous"):
        with pytest.raises(GenbenchError, match="not the network's, or damaged"):
            SPEC.load(CPU, tmp_path / f"{name}.pth")
    assert "never" not in capsys.readouterr().out


def test_dinov2_cannot_take_weights_of_ones_own(weights):
    for letter in "sblg":
        with pytest.raises(GenbenchError, match=f"dinov2-vit-{letter}-14 comes from torch's hub as a whole: --weights cannot replace"):
            fidelity.require(weights, f"dinov2-vit-{letter}-14")


def test_the_table_is_torch_fidelitys_registry():
    import_torchvision()
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    assert set(fidelity.NETWORKS) == set(FEATURE_EXTRACTORS_REGISTRY) == set(SPECS)
    assert {name: network.url for name, network in fidelity.NETWORKS.items() if network.sees} == MODEL_URLS
    for name, network in fidelity.NETWORKS.items():
        if network.sees:
            assert network.file == f"checkpoints/{name}-{MODEL_METADATA[name]['hash']}.pt"
        if not network.takes_weights:
            assert f"/{DINOV2[name]}/{DINOV2[name]}_pretrain.pth" in network.url


def clip_archive(path, name, dim=None, pixels=None, kernel=None):
    """A TorchScript archive like OpenAI's, with seeded random weights of the named network's outer shape, but thin and shallow."""
    import_torchvision()
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    network = fidelity.NETWORKS[name]
    dim, pixels, kernel = dim or network.dim, pixels or network.sees[0], kernel or network.sees[1]
    depth, width, patch = ((1, 1, 1, 1), 8, None) if kernel == 3 else (1, 64, kernel)

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = CLIPVisual(dim, pixels, depth, width, patch).visual
            self.text_projection = torch.nn.Parameter(torch.zeros(2, dim))

        def forward(self, x):
            return x + self.text_projection.sum()

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        made = Holder()
        for p in made.parameters():
            p.data *= 2.4 if p.ndim == 4 else 1  # so that an image's variance lasts through many layers
        made.half()
        torch.jit.trace(made, torch.zeros(1)).save(str(path))
    return made.visual.float().eval()


@pytest.mark.parametrize("name", [name for name, network in fidelity.NETWORKS.items() if network.sees])
def test_clip_runs_offline_from_a_file(name, tmp_path, no_hub):
    visual = clip_archive(tmp_path / "w.pt", name)
    spec, network = SPECS[name], fidelity.NETWORKS[name]
    spec.require(tmp_path / "w.pt")
    images = torch.randint(0, 256, (2, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    features, logits = spec.load(CPU, tmp_path / "w.pt")(images)
    assert logits is None
    assert features.shape == (2, spec.dim)
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as enlarge

    rgb = enlarge(images.float().expand(-1, 3, -1, -1), size=(network.sees[0],) * 2, align_corners=False) / 255
    mean, std = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])[:, None, :, None, None]
    with torch.inference_mode():
        expected = visual((rgb - mean) / std)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert (features[0] - features[1]).abs().max() > 1e-3 * features.abs().max()


@pytest.mark.parametrize(
    ("given", "asked"), [("clip-vit-b-16", "clip-vit-b-32"), ("clip-vit-l-14", "clip-vit-l-14-336px"), ("clip-rn50", "clip-rn101")]
)
def test_a_file_of_another_clip_network_is_refused(given, asked, tmp_path):
    clip_archive(tmp_path / "w.pt", given)
    with pytest.raises(
        GenbenchError, match=f"extractor {asked}: the weights in .* are not the network's, or damaged: embedding, pixels"
    ) as caught:
        SPECS[asked].load(CPU, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_damaged_clip_archive_is_refused(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(GenbenchError, match="not the network's, or damaged"):
        SPECS["clip-vit-b-32"].load(CPU, tmp_path / "junk.pt")


def thin_vgg():
    """VGG-16's shape on the outside, with few channels within."""
    sizes = [(27, 16), None, None, (16, 4096), None, None, (4096, 2)]
    classifier = [torch.nn.ReLU() if size is None else torch.nn.Linear(*size) for size in sizes]
    features = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten())
    return torch.nn.Sequential(OrderedDict(features=features, classifier=torch.nn.Sequential(*classifier)))


def test_vgg16_runs_offline_from_a_file(tmp_path, no_hub, monkeypatch):
    import_torchvision()
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = thin_vgg()
    torch.save(network.state_dict(), tmp_path / "vgg.pth")
    monkeypatch.setattr(torchvision.models, "vgg16", thin_vgg)
    extractor = SPECS["vgg16"].load(CPU, tmp_path / "vgg.pth")
    levels = torch.tensor([[0.0, 64.0, 255.0], [9.0, 200.0, 30.0]])
    images = levels.to(torch.uint8)[:, :, None, None].expand(2, 3, 5, 5).contiguous()  # of one colour each: enlarging changes nothing
    features, logits = extractor(images)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    expected = network.classifier[:5]((((levels / 255) - mean) / std).repeat_interleave(9, dim=1)).relu()
    assert logits is None
    assert features.shape == (2, SPECS["vgg16"].dim)
    torch.testing.assert_close(features, expected.detach(), rtol=1e-4, atol=1e-4)


def test_every_network_provides_the_layers_asked_of_it():
    import_torchvision()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    for spec in SPECS.values():
        network = FEATURE_EXTRACTORS_REGISTRY[spec.name]
        layers = fidelity.NETWORKS[spec.name].layers
        assert set(layers) <= set(network.get_provided_features_list())
        assert layers[0] == network.get_default_feature_layer_for_metric("fid")
        if spec.num_classes:
            assert layers[1] == network.get_default_feature_layer_for_metric("isc")


def test_loading_leaves_the_callers_random_stream_alone(weights):
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    SPEC.load(CPU, weights)
    for spec in builtin_extractors():
        if spec.name in ("digits-cnn", "mnist-cnn"):
            spec.load(CPU, None)
    assert torch.equal(torch.random.get_rng_state(), before)
