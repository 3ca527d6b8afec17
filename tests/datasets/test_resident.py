import pytest
import torch

from genbench.budget import Budget, Meter
from genbench.datasets import resident
from genbench.datasets.resident import TrainingBatches, to_unit
from tests.toys import make_data


def make_batches(data, batch_size=10, seed=0, **options):
    return TrainingBatches(data, batch_size=batch_size, seed=seed, meter=Meter(Budget.parse("1s")), device=torch.device("cpu"), **options)


def test_levels_become_minus_one_to_one():
    assert to_unit(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_batches_carry_images_labels_and_layout():
    data = make_data()
    batch = next(make_batches(data))
    assert batch.images.shape == (10, 3, 8, 8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.images, to_unit(torch.from_numpy(data.train.images[batch.labels.numpy()])))


def test_an_epoch_shows_no_image_twice_and_epochs_differ():
    batches = make_batches(make_data())
    epochs = [torch.cat([next(batches).labels for _ in range(10)]) for _ in range(2)]
    assert all(len(epoch.unique()) == 100 for epoch in epochs)
    assert not torch.equal(*epochs)


def test_the_nth_batch_is_a_function_of_seed_and_n():
    data = make_data()
    walked = make_batches(data)
    for _ in range(25):
        expected = next(walked)
    jumped = make_batches(data)
    jumped.drawn = 24
    assert torch.equal(next(jumped).images, expected.images)
    other = make_batches(data, seed=1)
    other.drawn = 24
    assert not torch.equal(next(other).images, expected.images)


def test_images_are_counted_where_they_are_drawn():
    batches = make_batches(make_data())
    next(batches), next(batches)
    assert batches._meter.images == 20
    _ = batches.holdout
    assert batches._meter.images == 20


def test_a_batch_larger_than_the_data_is_the_data():
    assert len(next(make_batches(make_data(n=7), batch_size=64)).images) == 7


def test_flips_mirror_about_half_and_repeat():
    data = make_data(n=200)
    batch = next(make_batches(data, batch_size=200, flip=True))
    plain = to_unit(torch.from_numpy(data.train.images[batch.labels.numpy()]))
    same = (batch.images == plain).flatten(1).all(1)
    mirrored = (batch.images == plain.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(batch.images, next(make_batches(data, batch_size=200, flip=True)).images)


def test_data_too_large_for_the_device_gives_the_same_images(monkeypatch):
    data = make_data()
    expected = next(make_batches(data))
    monkeypatch.setattr(resident, "RESIDENT_LIMIT", 0.0)
    streamed = next(make_batches(data))
    assert torch.equal(streamed.labels, expected.labels)
    assert torch.equal(streamed.images, expected.images)


@pytest.mark.gpu
def test_on_a_gpu_the_batches_are_the_same():
    data = make_data()
    expected = next(make_batches(data))
    batches = TrainingBatches(data, batch_size=10, seed=0, meter=Meter(Budget.parse("1s")), device=torch.device("cuda"))
    assert torch.equal(next(batches).images.cpu(), expected.images)
