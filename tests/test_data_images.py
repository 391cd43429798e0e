import numpy as np
import pytest
import torch
from PIL import Image

from samgan.data.images import load_images
from samgan.errors import SamganError
from samgan.pictures import to_uint8, to_uint16, write_png


def random_images(n, c=1, size=32):
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=(n, c, size, size), dtype=np.uint8))


def write_pngs(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()).save(
            folder / f"{i:03d}.png"
        )
    return folder


@pytest.mark.parametrize("c", [1, 3])
def test_a_folder_of_pngs_is_read_in_order(c, tmp_path):
    images = random_images(5, c)
    folder = write_pngs(tmp_path / "images", images)
    (folder / "seeds.txt").write_text("0 1 2 3 4")
    assert torch.equal(load_images(folder), images)


@pytest.mark.parametrize("c", [1, 3])
def test_jpeg_and_tiff_files_are_read_beside_pngs(c, tmp_path):
    images = random_images(5, c)
    folder = write_pngs(tmp_path / "images", images)
    for i, name in enumerate(["a.jpg", "b.JPEG", "c.tif", "d.TIFF"], start=1):
        with Image.open(folder / f"{i:03d}.png") as image:
            image.save(folder / name, **({"quality": 100, "subsampling": 0} if i < 3 else {}))
        (folder / f"{i:03d}.png").unlink()
    (folder / "below").mkdir()
    Image.new("L", (8, 8)).save(folder / "below/000.png")
    read = load_images(folder)
    assert torch.equal(read[[0, 3, 4]], images[[0, 3, 4]])
    assert (read.int() - images.int()).abs().max() <= 8  # JPEG is not exact


def test_16_bit_pngs_are_read_as_the_8_bit_images_of_the_same_samples(tmp_path):
    samples = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for i, image in enumerate(to_uint16(samples)):
        with open(tmp_path / f"{i}.png", "wb") as file:
            write_png(file, image, {})
    read = load_images(tmp_path)
    assert read.dtype == torch.uint8
    difference = (read.int() - to_uint8(samples).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01  # rounded twice, which seldom differs from once
    every = np.array([0, 128, 129, 32767, 65406, 65407, 65535], np.uint16)
    folder = tmp_path / "edges"
    folder.mkdir()
    Image.fromarray(every[None]).save(folder / "edges.png")
    assert load_images(folder).flatten().tolist() == [0, 0, 1, 127, 254, 255, 255]


def test_a_folder_of_samples_in_one_array_is_read(tmp_path):
    images = random_images(4)
    np.savez(tmp_path / "samples.npz", images=images.numpy(), seeds=np.arange(4), provenance="{}")
    (tmp_path / "samples.json").write_text("{}")
    (tmp_path / "sheets").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "sheets/grid.png")
    assert torch.equal(load_images(tmp_path), images)
    Image.new("L", (16, 16)).save(tmp_path / "000.png")
    assert load_images(tmp_path).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", lambda path, array: np.save(path, array)),
        ("a.npz", lambda path, array: np.savez(path, array)),
        ("b.npz", lambda path, array: np.savez(path, images=array, labels=np.zeros(3))),
    ],
)
def test_arrays_are_read_in_every_layout(name, write, tmp_path):
    for c, layout in ((1, "nchw"), (3, "nchw"), (1, "nhw"), (1, "nhwc"), (3, "nhwc")):
        images = random_images(4, c)
        array = {"nchw": images, "nhw": images[:, 0], "nhwc": images.permute(0, 2, 3, 1)}[layout].numpy()
        write(tmp_path / name, array)
        assert torch.equal(load_images(tmp_path / name), images)


def test_unusable_images_are_named(tmp_path):
    def refused(path, message):
        with pytest.raises(SamganError, match=message):
            load_images(path)

    refused(tmp_path / "missing", "expected an existing folder")
    refused(tmp_path, "holds no PNG, JPEG or TIFF files and no samples.npz")
    folder = write_pngs(tmp_path / "mixed", random_images(2))
    Image.new("L", (16, 32)).save(folder / "900.png")
    refused(folder, r"mixed/900\.png is 16x32 px 8-bit grey, but 000\.png is 32x32 px 8-bit grey")
    for name, image, kind in (
        ("deep", Image.fromarray(np.zeros((32, 32), np.uint16)), "16-bit grey"),
        ("coloured", Image.new("RGB", (32, 32)), "8-bit RGB"),
    ):
        folder = write_pngs(tmp_path / name, random_images(1))
        image.save(folder / "900.png")
        refused(folder, rf"{name}/900\.png is 32x32 px {kind}, but 000\.png is 32x32 px 8-bit grey")
    folder = write_pngs(tmp_path / "others", random_images(1))
    for name, image, message in (
        ("alpha.png", Image.new("RGBA", (32, 32)), "got PNG of mode RGBA"),
        ("cmyk.jpg", Image.new("CMYK", (32, 32)), "got JPEG of mode CMYK"),
        ("deep.tif", Image.fromarray(np.zeros((32, 32), np.uint16)), "got TIFF of mode I;16"),
    ):
        image.save(folder / name)
        refused(folder, f"{name}: expected 8-bit grey or RGB, or a 16-bit grey PNG, {message}")
        (folder / name).unlink()
    Image.new("L", (32, 32)).save(folder / "two.tif", save_all=True, append_images=[Image.new("L", (32, 32))])
    refused(folder, r"two\.tif: expected one image, got 2 pages")
    folder = write_pngs(tmp_path / "broken", random_images(2))
    data = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(data[: len(data) // 2])
    refused(folder, r"001\.png is not a readable image")
    np.save(tmp_path / "float.npy", np.zeros((4, 1, 8, 8)))
    refused(tmp_path / "float.npy", "expected uint8 images")
    np.save(tmp_path / "flat.npy", np.zeros((4, 8), np.uint8))
    refused(tmp_path / "flat.npy", "expected uint8 images")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    refused(tmp_path / "objects.npy", "not a readable array")
    (tmp_path / "text.npz").write_text("nothing")
    refused(tmp_path / "text.npz", "not a readable array")
    np.savez(tmp_path / "two.npz", train=np.zeros(3), test=np.zeros(3))
    refused(tmp_path / "two.npz", 'expected an array named "images", found train, test')
