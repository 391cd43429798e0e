"""Batches: every image once per epoch, draws that depend on the step only."""

import numpy as np
import pytest
import torch

from samgan.pictures import to_uint8
from samgan.training import (
    Sampler,
    random_generator,
)

CPU = torch.device("cpu")


def batches(config, images, count):
    sampler = Sampler(images, config, CPU)
    return [sampler(step) for step in range(count)]


# ---- what is drawn


def test_random_generator_depends_on_all_its_arguments_and_nothing_else():
    def draw(*arguments):
        return torch.rand(4, generator=random_generator(*arguments)).tolist()

    first = draw(1, "latents", 5)
    torch.rand(3)
    assert draw(1, "latents", 5) == first
    assert (
        len({tuple(draw(*key)) for key in [(1, "latents", 5), (2, "latents", 5), (1, "mix", 5), (1, "latents", 6)]})
        == 4
    )


def test_every_step_has_its_own_latents_and_mixtures(tiny_config, images):
    config = tiny_config.override({"training.shared_latents": False})
    drawn = [
        tensor
        for batch in batches(config, images, 12)
        for tensor in (batch.latents, batch.generator_latents, batch.mix)
    ]
    rows = [tuple(row.tolist()) for tensor in drawn for row in tensor.view(4, -1)]
    assert len(set(rows)) == len(rows)


def keys_of_epochs(config, images, epochs, factor=1):
    """The images of whole epochs in the order they come, as bytes."""
    count = len(images) * factor * epochs
    steps = -(-count // config.training.batch_size)
    real = torch.cat([to_uint8(batch.real) for batch in batches(config, images, steps)])[:count]
    return [picture.numpy().tobytes() for picture in real]


def test_every_second_image_is_seen_in_a_tile_drawn_for_its_step(tiny_config, images, monkeypatch):
    eyes = {"discriminator_blocks": "vision", "vision_features": "radiograph", "vision_tiles": True}
    config = tiny_config.override({"network": {"spectral_norm": "none", "vision_resolution": 64, **eyes}})
    assert Sampler(images, config, CPU)(0).tiles is None  # it sees these images at full size
    config = config.override({"network": {"resolution": 256, "max_channels": 64}})
    sampler = Sampler(np.zeros((4, 1, 256, 256), np.uint8), config, CPU)
    drawn = torch.stack([sampler(step).tiles for step in range(100)])
    assert (drawn[:, ::2] == -1).all()
    assert set(drawn[:, 1::2].flatten().tolist()) == set(range(16))
    monkeypatch.setattr("samgan.training.batches.world_size", lambda: 2)
    monkeypatch.setattr("samgan.training.batches.rank", lambda: 1)
    assert torch.equal(sampler(7).tiles, drawn[7, 2:])


def test_every_image_comes_exactly_once_per_epoch(tiny_config, images):
    keys = keys_of_epochs(tiny_config, images, 3)
    originals = sorted(picture.tobytes() for picture in images)
    epochs = [keys[start : start + 22] for start in (0, 22, 44)]
    assert [sorted(epoch) for epoch in epochs] == [originals] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_random_flip_shows_each_image_or_its_mirror(tiny_config, images):
    config = tiny_config.override({"data.flip": "random"})
    plain, flipped = keys_of_epochs(tiny_config, images, 4), keys_of_epochs(config, images, 4)
    mirror = {picture.tobytes(): picture[:, :, ::-1].tobytes() for picture in images}
    is_mirrored = [b == mirror[a] for a, b in zip(plain, flipped, strict=True)]
    assert all(b == (mirror[a] if m else a) for a, b, m in zip(plain, flipped, is_mirrored, strict=True))
    assert 25 <= sum(is_mirrored) <= 63  # 88 fair coins: outside with probability 5e-5


def test_double_flip_shows_each_image_plain_once_and_mirrored_once(tiny_config, images):
    keys = keys_of_epochs(tiny_config.override({"data.flip": "double"}), images, 1, factor=2)
    both = [p.tobytes() for p in images] + [p[:, :, ::-1].tobytes() for p in images]
    assert sorted(keys) == sorted(both)


def test_a_batch_larger_than_the_set(tiny_config, images):
    config = tiny_config.override({"training.batch_size": 64})
    batch = batches(config, images, 1)[0]
    assert batch.real.shape == (64, 1, 32, 32)
    counts = np.unique([picture.numpy().tobytes() for picture in batch.real], return_counts=True)[1]
    assert counts.min() >= 2
    assert counts.max() <= 3


def test_memory_mapped_images_give_the_same_batches(tiny_config, images, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    resident = Sampler(images, tiny_config, CPU)
    streamed = Sampler(mapped, tiny_config, CPU)
    streamed.tensor = None  # as for a set of more than 2 GiB
    for step in range(12):
        assert torch.equal(resident(step).real, streamed(step).real)


@pytest.mark.parametrize("flip", ["random", "double"])
def test_a_part_of_the_images_gives_the_batches_of_that_part_alone(tiny_config, images, flip):
    config, indices = tiny_config.override({"data.flip": flip}), np.array([3, 4, 9, 11, 20])
    alone = Sampler(images[indices], config, CPU)
    chosen, streamed = (Sampler(images, config, CPU, indices) for _ in range(2))
    streamed.tensor = None
    assert np.array_equal(chosen.first(2), images[[3, 4]])
    for step in range(12):
        assert torch.equal(chosen(step).real, alone(step).real)
        assert torch.equal(streamed(step).real, alone(step).real)
