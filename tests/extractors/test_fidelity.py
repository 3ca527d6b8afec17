import pytest
import torch

from genbench.errors import GenbenchError
from genbench.extractors import fidelity
from genbench.extractors.builtin import builtin_extractors
from genbench.torchvision_shim import import_torchvision

CPU = torch.device("cpu")
SPECS = {spec.name: spec for spec in builtin_extractors() if spec.name in fidelity._LAYERS}
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
        assert ("--weights PATH" in message) == (spec.name != "dinov2-vit-b-14")
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
    with pytest.raises(GenbenchError, match="--weights cannot replace"):
        fidelity.require(weights, "dinov2-vit-b-14")


def test_every_network_provides_the_layers_asked_of_it():
    import_torchvision()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    for spec in SPECS.values():
        network = FEATURE_EXTRACTORS_REGISTRY[spec.name]
        layers = fidelity._LAYERS[spec.name]
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
