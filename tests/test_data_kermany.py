"""A real set of 5,216 radiographs is prepared as it always was, where it is at hand."""

import hashlib

from samgan.data import prepare


def test_a_real_set_gives_the_same_bytes_as_ever(real_images_folder, tmp_path):
    prepare(real_images_folder, tmp_path)
    assert {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("images.npy", "manifest.csv")
    } == {
        "images.npy": "5f6cb7fcddc60d378c75281ec7140fc74a9e473b2f9e233f0663686866a72356",
        "manifest.csv": "94384c9577fb1101614eab9ef765417b4ef67beb51ba5f44e5dbaab0b247afd2",
    }
