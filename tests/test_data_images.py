import contextlib
import csv
import dataclasses

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data_readers import png, tiff
from test_data_survey import tiff_of_12_bits

from samgan.data import PreparedSet, prepare
from samgan.data.images import picture_files, read_pictures
from samgan.errors import SamganError
from samgan.pictures import to_uint8, to_uint16, write_png
from samgan.provenance import FORMATS, Mark, Sample


def read_images(path, like=None):
    return read_pictures(path, like).images


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
    assert torch.equal(read_images(folder), images)


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
    read = read_images(folder)
    assert torch.equal(read[[0, 3, 4]], images[[0, 3, 4]])
    assert (read.int() - images.int()).abs().max() <= 8  # JPEG is not exact


def test_16_bit_pngs_are_read_as_the_8_bit_images_of_the_same_samples(tmp_path):
    samples = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for i, image in enumerate(to_uint16(samples)):
        with open(tmp_path / f"{i}.png", "wb") as file:
            write_png(file, image, {})
    read = read_images(tmp_path)
    assert read.dtype == torch.uint8
    difference = (read.int() - to_uint8(samples).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01  # rounded twice, which seldom differs from once
    every = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    folder = tmp_path / "every"
    folder.mkdir()
    Image.fromarray(every[0]).save(folder / "every.png")
    Image.fromarray(every[0] % 300).save(folder / "dark.png")  # nine bits are in use
    read = read_images(folder).numpy()
    assert np.array_equal(read[0, 0], np.rint(every[0] % 300 / 257))
    assert np.array_equal(read[1, 0], np.rint(every[0] / 257))


def test_a_folder_of_samples_in_one_array_is_read(tmp_path):
    images = random_images(4)
    np.savez(tmp_path / "samples.npz", images=images.numpy(), seeds=np.arange(4), provenance="{}")
    (tmp_path / "samples.json").write_text("{}")
    (tmp_path / "sheets").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "sheets/grid.png")
    assert torch.equal(read_images(tmp_path), images)
    Image.new("L", (16, 16)).save(tmp_path / "000.png")
    assert read_images(tmp_path).shape == (1, 1, 16, 16)


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
        assert torch.equal(read_images(tmp_path / name), images)


def test_unusable_images_are_named(tmp_path):
    def refused(path, message):
        with pytest.raises(SamganError, match=message):
            read_images(path)

    refused(tmp_path / "missing", "expected an existing folder")
    refused(tmp_path, "holds no images and no samples.npz or medmnist.npz")
    folder = write_pngs(tmp_path / "mixed", random_images(2))
    Image.new("L", (16, 32)).save(folder / "900.png")
    refused(folder, r"mixed/900\.png is 16x32 px grey, but 000\.png is 32x32 px grey")
    refused(tmp_path, "holds no images itself, but mixed in it: name one of these folders")
    folder = write_pngs(tmp_path / "coloured", random_images(1))
    Image.new("RGB", (32, 32)).save(folder / "900.png")
    refused(folder, r"coloured/900\.png is 32x32 px RGB, but 000\.png is 32x32 px grey")
    folder = write_pngs(tmp_path / "others", random_images(1))
    Image.new("L", (32, 32)).save(folder / "two.tif", save_all=True, append_images=[Image.new("L", (32, 32))])
    refused(folder, r"two\.tif cannot be used \(holds 2 frames; expected one radiograph\): remove or replace it")
    (folder / "two.tif").unlink()
    (folder / "two.tif").symlink_to("nowhere")
    refused(folder, r"two\.tif cannot be read \(No such file")
    folder = write_pngs(tmp_path / "broken", random_images(2))
    data = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(data[: len(data) // 2])
    refused(folder, r"001\.png cannot be used \(damaged \(")
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


# ---- beside a prepared set


def save_any(folder, draw, number):
    """A picture of any size and format, perhaps with an orientation in EXIF."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = (draw(st.integers(8, 24)) for _ in range(2))
    deep = random.integers(0, 2 ** draw(st.sampled_from([10, 12, 16])), (height, width)).astype(np.uint16)
    grey, colour = (random.integers(0, 256, (height, width, *more)).astype(np.uint8) for more in ((), (3,)))
    suffix, values = draw(
        st.sampled_from(
            [
                *(("png", grey), ("png", colour), ("png", deep), ("jpg", grey), ("JPEG", colour), ("bmp", grey)),
                *(("webp", colour), ("tif", grey), ("tiff", deep), ("", colour)),
            ]
        )
    )
    path = folder / (f"{number}.{suffix}" if suffix else f"{number}")
    exif = Image.Exif()
    if suffix.lower() in ("jpg", "jpeg", "png", "webp"):
        exif[0x0112] = draw(st.integers(1, 8))
    if suffix:
        Image.fromarray(values).save(path, exif=exif)
    else:  # DICOM files often have no suffix
        FORMATS["dicom"].write(folder, [Sample(values.transpose(2, 0, 1), Mark("a" * 64, "tiny", 16, 7))], 1)
        remake_as_real(folder / "seed-00000007.dcm", path)


def remake_as_real(source, target):
    dataset = pydicom.dcmread(source)
    for keyword in ("SyntheticData", "DerivationDescription", "ImageComments"):
        delattr(dataset, keyword)
    dataset.save_as(target)
    source.unlink()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_files_are_read_as_the_set_was_prepared_from_them(tmp_path_factory, data):
    """Whatever their sizes, formats and orientations, and whatever the options."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "a").mkdir()
    for number in range(data.draw(st.integers(1, 4))):
        save_any(folder / "a", data.draw, number)
    for junk in (".DS_Store", "._0.png", "Thumbs.db", "notes.txt", ".hidden.png"):
        (folder / "a" / junk).write_bytes(b"junk")
    options = {
        "resolution": data.draw(st.sampled_from([8, 16, 32])),
        "channels": data.draw(st.sampled_from([1, 3])),
        "fit": data.draw(st.sampled_from(["crop", "pad", "stretch"])),
        "normalize": data.draw(st.sampled_from(["none", "percentile", "clahe"])),
    }
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name, values in (("L", ramp), ("R", 255 - ramp)):  # `prepare` needs two distinct images
        Image.fromarray(values).save(folder / "a" / f"{name}.png")
    prepared = prepare(folder, folder / "set", workers=1, holdout=0.0, duplicates="keep", max_bad=0.0, **options)
    read = read_pictures(folder / "a", prepared)
    assert [f"a/{name}" for name in read.names] == [row.source for row in prepared.manifest]
    assert np.array_equal(read.images.numpy(), prepared.images)


def make_set(folder, size=24, resolution=16, **options):
    """A set, and the folder of the 20 grey files that it was prepared from."""
    (folder / "files").mkdir(parents=True)
    for index, image in enumerate(random_images(20, size=size)):
        Image.fromarray(image[0].numpy()).save(folder / "files" / f"{index:03d}.png")
    return prepare(folder / "files", folder / "set", resolution=resolution, workers=1, **options), folder / "files"


def test_what_was_done_is_said(tmp_path):
    data, files = make_set(tmp_path / "larger")
    assert read_pictures(files, data).said == (
        "20 images of 24x24 px were fitted to 16x16 px as set was prepared: crop, normalize none",
    )
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(12, 10)).convert("RGB").save(files / "900.png")
    assert read_pictures(files, data).said == (
        "21 images of 10x12 px to 24x24 px were fitted to 16x16 px as set was prepared: crop, normalize none; 1 were "
        "smaller, and are enlarged",
        "1 images are stored in colour, and were made grey as those of set",
    )
    data, files = make_set(tmp_path / "same", 16)
    read = read_pictures(files, data)
    assert read.said == ()
    assert np.array_equal(read.images.numpy(), data.images)
    data, files = make_set(tmp_path / "normalized", 16, normalize="percentile")
    read = read_pictures(files, data)
    assert read.said == (
        "20 images are files that set was prepared from, and were read as it was prepared: crop, normalize percentile",
    )
    assert np.array_equal(read.images.numpy(), data.images)
    others = write_pngs(tmp_path / "others", random_images(3, size=16) // 2)
    read = read_pictures(others, data)
    assert torch.equal(read.images, random_images(3, size=16) // 2)
    assert read.said == (
        "the images have 16x16 px, as those of set, and are taken as they are: normalize percentile is not applied to "
        "them",
    )


def test_arrays_are_fitted_like_files(tmp_path):
    data, files = make_set(tmp_path, 24)
    images = read_images(files)
    for name, arrays in (
        ("a.npy", images),
        ("b.npz", {"images": images[:, 0]}),
        ("c.npz", {"train_images": images[:4, 0], "val_images": images[4:5, 0], "test_images": images[5:, 0]}),
    ):
        path = tmp_path / name
        if isinstance(arrays, dict):
            np.savez(path, **{key: array.numpy() for key, array in arrays.items()}, labels=np.zeros(3))
        else:
            np.save(path, arrays.numpy())
        read = read_pictures(path, data)
        assert np.array_equal(read.images.numpy(), data.images)
        assert "20 images of 24x24 px were fitted to 16x16 px" in read.said[-1]
        assert torch.equal(read_images(path), images)
    assert read.said[0] == "the train_images, val_images, test_images of c.npz are taken together"


def test_a_set_that_does_not_say_how_it_was_prepared_fits_nothing(tmp_path):
    data, files = make_set(tmp_path)
    silent = dataclasses.replace(data, info=dataclasses.replace(data.info, options=None))
    with pytest.raises(SamganError, match="set does not say how it was prepared"):
        read_images(files, silent)
    assert isinstance(data, PreparedSet)


def test_a_folder_of_samples_in_sub_folders_or_archives_has_its_files(tmp_path):
    images = random_images(4)
    marks = [Mark("a" * 64, "tiny", 16, seed, "PNEUMONIA").of(image) for seed, image in enumerate(images.numpy())]
    for name, known in FORMATS.items():
        (tmp_path / name).mkdir()
        values = images.numpy() if known.bits == 8 else images.numpy().astype(np.uint16) * 257
        known.write(tmp_path / name, map(Sample, values, marks), 4)
        (tmp_path / name / ".DS_Store").touch()
        (tmp_path / name / "samples.json").write_text("{}")
        assert torch.equal(read_images(tmp_path / name), images), name
        assert all(file.is_file() for file in picture_files(tmp_path / name))
    with open(tmp_path / "imagefolder/train/metadata.csv", newline="") as file:
        rows = [row["file_name"] for row in csv.DictReader(file)]
    assert list(read_pictures(tmp_path / "imagefolder").names) == rows


def test_synthetic_images_of_another_size_are_refused(tmp_path):
    data, _ = make_set(tmp_path)
    images = random_images(3)
    marks = [Mark("a" * 64, "tiny", 16, seed) for seed in range(3)]
    for name, known in FORMATS.items():
        (tmp_path / name).mkdir()
        values = images.numpy() if known.bits == 8 else images.numpy().astype(np.uint16) * 257
        with pytest.warns() if name == "medmnist" else contextlib.nullcontext():
            known.write(tmp_path / name, map(Sample, values, marks), 3)
        with pytest.raises(SamganError, match=r"has 32x32 px and says that it is synthetic, .*set has 16x16 px"):
            read_images(tmp_path / name, data)
        Image.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30)).save(
            tmp_path / name / "0.png"
        )
        if known.in_sets:  # beside a real image too
            with pytest.raises(SamganError, match="says that it is synthetic"):
                read_images(tmp_path / name, data)


def test_deep_files_are_read_at_the_depth_of_their_set(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "dark").mkdir()
    for index, top in enumerate((4000, 3000, 900)):
        deep = np.random.default_rng(index).integers(0, top, (24, 20)).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / "files" / f"{index}.png")
    data = prepare(tmp_path / "files", tmp_path / "set", resolution=16, workers=1)
    (tmp_path / "files/2.png").rename(tmp_path / "dark/2.png")
    read = read_pictures(tmp_path / "dark", data)
    assert np.array_equal(read.images[0].numpy(), data.images[2])
    assert read.images.max() < 80
    assert len(read.said) == 1


def test_blank_images_of_a_collapsed_generator_are_read(tmp_path):
    data, _ = make_set(tmp_path)
    blank = write_pngs(tmp_path / "blank", torch.full((3, 1, 16, 16), 7, dtype=torch.uint8))
    assert read_images(blank, data).unique().tolist() == [7]


def test_deep_images_of_the_size_of_the_set_that_may_have_another_depth_are_said(tmp_path):
    """12 bits in a 16-bit PNG would be nearly black, and a TIFF has a depth of its own."""
    values = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint16) * 100
    declared = tiff_of_12_bits(values)
    for name, data in {"png": png(values), "tif": tiff(values), "full": png(values * 20), "own": declared}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(data)  # the content decides
    dark, guessed, full, own = (read_pictures(tmp_path / name).said for name in ("png", "tif", "full", "own"))
    assert [sentence.split(":")[0] for sentence in dark] == ["WARNING"]
    assert "1 of 1 images are 16-bit PNG that use less than 1/16 of 16 bits" in dark[0]
    assert [sentence.split(":")[0] for sentence in guessed] == ["1 of 1 images do not declare their bit depth"]
    assert full == own == ()
