import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.spatial.distance import cdist

from samgan.data.curation import patients_from_names
from samgan.data.phantom import phantoms
from samgan.errors import SamganError
from samgan.metrics.memorisation import closer_than_held_out, membership_auc, nearest_is_training
from samgan.metrics.nearest import Nearest, nearest_image
from samgan.metrics.planted import changed_copies


def test_images_like_the_held_out_ones_are_as_close_as_these():
    """Whatever the distances are: one time in 40 more than by chance, and the mean share is that of the held-out."""
    draw = np.random.default_rng(0)
    signs = []
    for _ in range(800):
        distances = torch.from_numpy(draw.gamma(2.0, size=700).astype(np.float32))
        signs.append(closer_than_held_out(distances[:300], distances[300:]))
    expected = 4 / 401
    assert signs[0].expected.value == pytest.approx(expected)
    assert np.mean([sign.share.value for sign in signs]) == pytest.approx(expected, rel=0.1)
    assert np.mean([sign.found for sign in signs]) == pytest.approx(0.025, abs=0.018)


def test_the_threshold_is_the_first_percentile_of_the_held_out_images():
    held_out = torch.linspace(0.1, 1, 999).flip(0)
    sign = closer_than_held_out(torch.cat([torch.full((30,), 0.105), torch.full((70,), 0.5)]), held_out)
    assert sign.threshold == pytest.approx(held_out.sort().values[9])  # the tenth of 999
    assert (sign.count, sign.share.value, sign.found) == (30, 0.3, True)
    assert sign.expected.value == 0.01
    assert sign.expected.low < 0.01 < sign.expected.high < 0.06
    assert not closer_than_held_out(held_out, held_out).found  # nine of them lie below the tenth


def test_few_held_out_images_and_few_patients_widen_what_is_expected():
    distances, held_out = torch.rand(1000), torch.rand(400) + 0.5
    many = closer_than_held_out(distances, held_out)
    patients = closer_than_held_out(distances, held_out, groups=[str(i // 4) for i in range(400)])
    assert patients.expected.value == many.expected.value
    assert patients.expected.high > 1.3 * many.expected.high
    few = closer_than_held_out(distances, held_out[:20])
    assert few.threshold == held_out[:20].min()
    assert few.expected.value == pytest.approx(1 / 21)
    with pytest.raises(SamganError, match="1000 and 0"):
        closer_than_held_out(distances, held_out[:0])


def nearest(distance, index):
    distance = torch.as_tensor(distance, dtype=torch.float32)
    return Nearest(distance, torch.as_tensor(index), torch.zeros(len(distance), dtype=torch.bool))


def test_images_that_know_nothing_of_the_split_are_nearest_to_each_side_by_its_size():
    draw = np.random.default_rng(0)
    points, patients = draw.normal(size=(260, 3)), [str(i // 2) for i in range(260)]
    found = []
    for seed in range(60):
        fake = draw.normal(size=(200, 3))
        order = np.repeat(2 * draw.permutation(130), 2) + np.tile([0, 1], 130)  # by patient
        train, held = order[:200], order[200:]
        sides = [cdist(fake, points[side]) for side in (train, held)]
        sign = nearest_is_training(
            *(nearest(side.min(axis=1), side.argmin(axis=1)) for side in sides),
            [patients[i] for i in train],
            [patients[i] for i in held],
            seed=seed,
        )
        assert sign.expected.value == pytest.approx(200 / 260)
        found.append(sign.found)
    assert np.mean(found) < 0.12  # 0.025 in the long run


def test_images_near_to_training_images_are_told():
    patients = [str(i) for i in range(100)], [str(i) for i in range(100, 150)]
    copies = nearest(torch.zeros(80), torch.arange(80)), nearest(torch.ones(80), torch.arange(80) % 50)
    sign = nearest_is_training(*copies, *patients)
    assert (sign.count, sign.share.value) == (80, 1)
    assert sign.expected.low < 2 / 3 < sign.expected.high < 0.85
    assert sign.found
    away = nearest(torch.ones(80), torch.arange(80)), nearest(torch.zeros(80), torch.arange(80) % 50)
    assert nearest_is_training(*away, *patients).share.value == 0
    # One real image that is the nearest of all of them says no more than one image can.
    hub = nearest(torch.zeros(80), torch.zeros(80, dtype=torch.long)), copies[1]
    assert not nearest_is_training(*hub, *patients).found
    # Nor do many images of one patient.
    one = nearest_is_training(*copies, ["one"] * 80 + patients[0][80:], patients[1])
    assert not one.found


def test_auc_is_that_of_mann_and_whitney():
    draw = np.random.default_rng(0)
    members, others = np.round(draw.normal(0.4, 1, 70), 1), np.round(draw.normal(0, 1, 50), 1)  # ties
    auc = membership_auc(members, others)
    assert auc.value == pytest.approx(stats.mannwhitneyu(members, others).statistic / (70 * 50))
    assert membership_auc(-members, -others).value == pytest.approx(1 - auc.value)
    assert auc.low < auc.value < auc.high


def test_its_interval_is_delongs():
    draw = np.random.default_rng(1)
    members, others = np.round(draw.normal(0.5, 1, 30), 1), np.round(draw.normal(0, 1, 40), 1)
    kernel = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    # DeLong et al. 1988: the variances of the structural components.
    error = np.sqrt(kernel.mean(1).var(ddof=1) / 30 + kernel.mean(0).var(ddof=1) / 40)
    auc = membership_auc(members, others)
    assert auc.high - auc.value == pytest.approx(stats.norm.ppf(0.975) * error)
    assert auc.value - auc.low == pytest.approx(stats.norm.ppf(0.975) * error)


def test_scores_of_one_distribution_are_at_one_half_and_separate_ones_at_one():
    draw = np.random.default_rng(2)
    areas = [membership_auc(draw.normal(size=60), draw.normal(size=90)) for _ in range(400)]
    assert np.mean([auc.value for auc in areas]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([auc.low <= 0.5 <= auc.high for auc in areas]) == pytest.approx(0.95, abs=0.03)
    assert membership_auc(np.arange(3, 9.0), np.arange(3.0)) == (1, 1, 1)
    assert membership_auc(np.ones(5), np.ones(4)).value == 0.5


def test_repeated_images_of_a_patient_tell_nothing_more():
    draw = np.random.default_rng(3)
    members, others = draw.normal(0.3, 1, 40), draw.normal(0, 1, 25)
    once = membership_auc(members, others)
    groups = [np.arange(len(scores)).repeat(3).astype(str).tolist() for scores in (members, others)]
    thrice = membership_auc(members.repeat(3), others.repeat(3), *groups)
    assert thrice == pytest.approx(once)
    taken_apart = membership_auc(members.repeat(3), others.repeat(3))
    assert taken_apart.high - taken_apart.low < 0.7 * (once.high - once.low)


def test_a_membership_test_needs_patients_and_numbers():
    with pytest.raises(SamganError, match="two held-out patients"):
        membership_auc(np.arange(3.0), np.arange(3.0), ["a", "b", "c"], ["a", "a", "a"])
    with pytest.raises(SamganError, match="not finite"):
        membership_auc(np.array([0.0, np.nan]), np.arange(3.0))


def judged(synthetic, training, held_out, groups=None):
    groups = groups or [[f"{side} {i}" for i in range(len(images))] for side, images in enumerate((training, held_out))]
    of_synthetic, of_held_out = (nearest_image(images, training) for images in (synthetic, held_out))
    closer = closer_than_held_out(of_synthetic.distance, of_held_out.distance, groups=groups[1])
    return of_synthetic, closer, nearest_is_training(of_synthetic, nearest_image(synthetic, held_out), *groups)


def test_copies_among_phantoms_are_found_and_new_phantoms_raise_no_alarm():
    images = torch.from_numpy(phantoms(420, 32, pneumonia=False))
    training, held_out, synthetic = images[:200], images[200:320], images[320:]
    found, closer, pulled = judged(synthetic, training, held_out)
    assert not closer.found
    assert closer.expected.low <= closer.share.value <= closer.expected.high
    assert closer.share.low <= closer.expected.value <= closer.share.high
    assert not pulled.found
    copies = {"exact": 10, "mirrored": 50, "brighter, less contrast": 90, "noise, sd 10 of 255": 130}
    planted = synthetic.clone()
    for place, (change, original) in enumerate(copies.items()):
        planted[20 * place : 20 * place + 5] = changed_copies(training[original : original + 5], change)
    found, closer, pulled = judged(planted, training, held_out)
    assert closer.found
    for place, (change, original) in enumerate(copies.items()):
        rows = slice(20 * place, 20 * place + 5)
        assert found.index[rows].tolist() == list(range(original, original + 5))
        assert (found.distance[rows] < closer.threshold).all()
        assert found.mirrored[rows].tolist() == [change == "mirrored"] * 5
    assert nearest_is_training(
        *(dataclasses.replace(found, distance=torch.full((100,), value)) for value in (0.0, 1.0)),
        [f"a{i}" for i in range(200)],
        [f"b{i}" for i in range(120)],
    ).found


def test_held_out_x_rays_raise_no_alarm(real_images_folder):
    files = sorted((real_images_folder / "PNEUMONIA").iterdir())[:1500]
    patients = np.array(patients_from_names([f"PNEUMONIA/{file.name}" for file in files]))
    images = []
    for file in files:
        with Image.open(file) as image:
            image.draft("L", (128, 128))
            images.append(np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX)))
    images = torch.from_numpy(np.stack(images)[:, None])
    names = np.random.default_rng(0).permutation(np.unique(patients))
    rest, part = len(names) // 2, len(names) // 4
    sides = [np.isin(patients, some) for some in (names[:rest], names[rest : rest + part], names[rest + part :])]
    training, held_out, synthetic = (images[torch.from_numpy(side)] for side in sides)
    groups = [patients[side].tolist() for side in sides[:2]]
    _, closer, pulled = judged(synthetic, training, held_out, groups)
    assert len(held_out) > 200 < len(synthetic)
    assert not closer.found
    assert closer.expected.low <= closer.share.value <= closer.expected.high
    assert closer.share.low <= closer.expected.value <= closer.share.high
    assert not pulled.found
    planted = torch.cat([synthetic, changed_copies(training[:30], "noise, sd 10 of 255")])
    found, closer, _ = judged(planted, training, held_out, groups)
    assert closer.found
    assert found.index[-30:].tolist() == list(range(30))
