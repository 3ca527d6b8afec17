import json

import pytest
import torch
from torch import nn

from genbench.checkpoint import seal, state_digest, unseal
from genbench.errors import GenbenchError
from genbench.model import ImageSpec
from genbench.sample import draw
from tests.toys import Autoencoder

IMAGE = ImageSpec(3, 8)


class Awkward(nn.Module):
    """Tied weights, a view, channels_last, a scalar, integers, extra state."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("view", torch.arange(12.0).view(3, 4).t())
        self.words = {"phase": "prior", "steps": 3}

    def get_extra_state(self):
        return self.words

    def set_extra_state(self, state):
        self.words = state


def test_a_sealed_model_comes_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    model = Autoencoder(IMAGE).to(memory_format=torch.channels_last)
    seal(model, tmp_path / "c.safetensors", {"steps": 5})
    torch.manual_seed(1)
    other = Autoencoder(IMAGE)
    assert state_digest(other) != state_digest(model)
    assert unseal(other, tmp_path / "c.safetensors")["steps"] == 5
    assert state_digest(other) == state_digest(model)
    other = other.to(memory_format=torch.channels_last)
    assert (draw(model, 20, 0, IMAGE).images == draw(other, 20, 0, IMAGE).images).all()


def test_awkward_state_survives(tmp_path):
    torch.manual_seed(0)
    model, other = Awkward(), Awkward()
    model.count.fill_(9)
    model.words = {"phase": "done", "steps": 4}
    seal(model, tmp_path / "c.safetensors", {})
    unseal(other, tmp_path / "c.safetensors")
    assert other.words == {"phase": "done", "steps": 4}
    assert int(other.count) == 9
    assert other.tied.weight is other.first.weight
    assert torch.equal(other.first.weight, model.first.weight)
    assert state_digest(other) == state_digest(model)


def test_state_that_is_no_tensor_and_no_json_is_refused(tmp_path):
    model = Awkward()
    model.words = {"object": object()}
    with pytest.raises(GenbenchError, match="extra state"):
        seal(model, tmp_path / "c.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    model = Autoencoder(IMAGE)
    seal(model, path, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(GenbenchError, match="digests differ"):
        unseal(model, path)
    path.unlink()
    with pytest.raises(GenbenchError, match="can't be read"):
        unseal(model, path)


def test_another_models_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    digest = seal(nn.Linear(2, 2), path, {})
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == digest
    with pytest.raises(GenbenchError, match="does not fit"):
        unseal(Autoencoder(IMAGE), path)


def test_the_digest_sees_one_changed_weight():
    model = nn.Linear(2, 2)
    before = state_digest(model)
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert state_digest(model) != before


def test_files_are_plain_safetensors(tmp_path):
    from safetensors.torch import load_file

    model = nn.Linear(2, 2)
    seal(model, tmp_path / "c.safetensors", {})
    assert set(load_file(tmp_path / "c.safetensors")) == {"weight", "bias"}
