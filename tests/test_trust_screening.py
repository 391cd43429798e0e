"""Near-copies, failures and duplicates are planted among good images, and each is recognised."""

import numpy as np
import pytest
import torch

from samgan.data.phantom import phantoms
from samgan.errors import SamganError
from samgan.metrics.planted import changed_copies
from samgan.trust import Screen

TRAINING, FRESH = 150, 100


@pytest.fixture(scope="module")
def training():
    """Phantoms of two classes, two images of each patient; the first class is the one that is screened."""
    both = [phantoms(TRAINING, 32, pneumonia=pneumonia) for pneumonia in (False, True)]
    return torch.from_numpy(np.concatenate(both))


@pytest.fixture(scope="module")
def fresh():
    """Phantoms of other patients, of the first class."""
    return torch.from_numpy(phantoms(FRESH, 32, pneumonia=False, first=1000))


@pytest.fixture(scope="module")
def patients():
    return [f"patient {i}" for i in range(2 * TRAINING)]


def make_screen(training, patients, **more):
    return Screen(training, np.arange(TRAINING), patients, **more)


@pytest.fixture(scope="module")
def screen(training, patients):
    return make_screen(training, patients)


def test_images_of_new_patients_stay_but_for_the_stated_price(screen, fresh):
    reasons = screen(fresh).reason
    assert reasons.count("") >= 0.9 * FRESH  # 2 % are to go, and of 100 images not often more than 7
    assert reasons.count("duplicate") == 0


@pytest.mark.parametrize("change", ["exact", "mirrored", "brighter, less contrast"])
@pytest.mark.parametrize("first", [0, TRAINING])
def test_copies_of_training_images_of_any_class_are_left_out(screen, training, fresh, change, first):
    copies = changed_copies(training[first : first + 20], change)
    screened = screen(torch.cat([fresh[:20], copies]))
    assert screened.reason[20:] == ["near-copy"] * 20
    assert screened.nearest[20:].tolist() == list(range(first, first + 20))
    assert screened.distance["pixels"][20:].max() < screen.limits["pixels"][0]


def test_what_is_no_radiograph_has_failed(screen, fresh):
    noise = torch.randint(0, 256, (10, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    upside_down, grey = fresh[:5].flip(2), torch.full((5, 1, 32, 32), 99, dtype=torch.uint8)
    assert screen(torch.cat([noise, upside_down, grey])).reason == ["failed"] * 20


def test_the_second_of_two_like_images_is_left_out_even_if_the_first_was_kept_earlier(screen, fresh):
    fit = fresh[[i for i, reason in enumerate(screen(fresh).reason) if not reason]][:10]
    assert screen(torch.cat([fit, fit.flip(0)])).reason == [""] * 10 + ["duplicate"] * 10
    assert screen(fit[5:].flip(-1), kept=fit[:8]).reason == ["duplicate"] * 3 + [""] * 2


def test_images_of_one_patient_set_no_limit(training, patients):
    twice = torch.cat([training, training])  # each patient now has two equal images
    own = np.concatenate([np.arange(TRAINING), 2 * TRAINING + np.arange(TRAINING)])
    by_patient = Screen(twice, own, [*patients, *patients])
    assert by_patient.limits["pixels"][0] > 0.001
    by_image = Screen(twice, own, [f"image {i}" for i in range(len(twice))])
    assert by_image.limits["pixels"][0] < 1e-5


def test_features_decide_what_failed_and_what_is_near_as_well(training, patients, fresh):
    def extract(images):
        return images.float().mean(dim=(1, 2, 3), keepdim=True)[:, :, 0, 0]

    screen = make_screen(training, patients, features=extract(training), extract=extract)
    assert set(screen.limits) == {"pixels", "features"}
    screened = screen(torch.cat([torch.full((1, 1, 32, 32), 255, dtype=torch.uint8), fresh[:3]]))
    assert screened.reason[0] == "failed"
    assert set(screened.distance) == {"pixels", "features"}
    assert "distance of features >" in " ".join(screen.rules())
    # As a radiograph it is far from all, but one of them has its mean.
    mean = int(extract(training)[0].round())
    same_mean = torch.full((1, 1, 32, 32), mean, dtype=torch.uint8)
    expected = "near-copy" if abs(extract(training) - mean).min() < screen.limits["features"][0] else ""
    assert screen(same_mean).reason == [expected]


def test_images_of_which_the_classifier_is_not_sure_are_left_out(training, patients, screen, fresh):
    fit = fresh[[i for i, reason in enumerate(screen(fresh).reason) if not reason]][:4]
    probabilities = np.array([0.2, 0.5, 0.49, 0.9])
    judged = make_screen(training, patients, classify=lambda images: probabilities, confidence=0.5)(fit)
    assert judged.reason == ["unsure", "", "unsure", ""]
    assert judged.confidence.tolist() == probabilities.tolist()


@pytest.mark.parametrize(("count", "names"), [(19, 19), (150, 1)])
def test_too_few_images_or_patients_give_no_limits(training, count, names):
    with pytest.raises(SamganError, match="at least 20 training images and two patients of a class"):
        Screen(training, np.arange(count), [str(i % names) for i in range(len(training))])
