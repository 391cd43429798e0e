import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from samgan.errors import SamganError, UsageError
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.frechet import frechet_distance, kernel_distance
from samgan.metrics.legacy import adjacent_ms_ssim
from samgan.metrics.ms_ssim import mean_ms_ssim
from samgan.metrics.prdc import prdc
from samgan.metrics.swd import sliced_wasserstein_distance
from samgan.scoring import (
    CHOOSES_BEST,
    Classes,
    Scored,
    Scores,
    check_inputs,
    format_table,
    ms_ssim_gaps,
    quick_scores,
    score_images,
)
from samgan.scoring.words import summary

DISTRIBUTION_SCORES = ["frechet", "kid_x1000", "precision", "recall", "density", "coverage"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path / "cache"))


def blobs(n, c=1, size=32, *, seed=0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(n, c, size, size)), (0, 0, 2, 2))
    return torch.from_numpy((smooth / smooth.std() * 40 + 128).clip(0, 255).astype(np.uint8))


def stub_extractor():
    """Four features, the means of the quarters of an image."""

    def network(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float().mean(dim=1), 2).flatten(1) / 30 - 4

    return FeatureExtractor(network, name="stub", sha256="ab" * 32, device=torch.device("cpu"))


def test_a_generator_like_the_data_scores_its_floor():
    scores = score_images(real=blobs(160), fake=blobs(80, seed=1), features=stub_extractor())
    assert scores.count == 80
    assert asdict(scores.counts) == {"real": 160, "fake": 80}
    assert scores.resolution == 32
    assert asdict(scores.features) == {"name": "stub", "sha256": "ab" * 32, "dim": 4, "at_least": 0}
    assert scores.skipped == ()
    assert scores.mode_collapse.verdict == "no sign of mode collapse"
    for name in ("precision", "recall", "density", "coverage"):
        assert scores.scores[name].value == pytest.approx(scores.scores[name].floor, abs=0.25)
    assert scores.scores["swd"].value == pytest.approx(scores.scores["swd"].floor, rel=0.25)
    assert list(scores.swd_by_level) == ["32", "16"]
    assert abs(scores.scores["kid_x1000"].value) < 50


def test_scores_are_those_of_the_metrics_at_one_number_of_images():
    real, fake, extractor = blobs(50), blobs(40, seed=1), stub_extractor()
    scores = score_images(real=real, fake=fake, features=extractor, count=20, seed=3)
    order_real, order_fake = (torch.randperm(n, generator=torch.Generator().manual_seed(3)) for n in (50, 40))
    first, second = extractor(real[order_real[:20]]), extractor(real[order_real[20:40]])
    generated = extractor(fake[order_fake[:20]])
    assert scores.count == 20
    assert scores.scores["frechet"].value == pytest.approx(frechet_distance(first, generated))
    assert scores.scores["frechet"].floor == pytest.approx(frechet_distance(first, second))
    assert scores.scores["kid_x1000"].value == pytest.approx(1000 * kernel_distance(first, generated))
    assert scores.scores["recall"].value == prdc(first, generated).recall
    assert scores.scores["coverage"].floor == prdc(first, second).coverage


def test_the_papers_protocol_compares_all_images_and_has_its_floor_at_half():
    real, fake, extractor = blobs(51), blobs(51, seed=1), stub_extractor()
    scores = score_images(real=real, fake=fake, features=extractor, protocol="paper", seed=3)
    assert (scores.protocol, scores.count, scores.floor_count, scores.skipped) == ("paper", 51, 25, ())
    order = torch.randperm(51, generator=torch.Generator().manual_seed(3))
    real, fake = real[order], fake[order]
    every, generated = extractor(real), extractor(fake)
    found = scores.scores
    assert found["frechet"].value == pytest.approx(frechet_distance(every, generated))
    assert found["frechet"].floor == pytest.approx(frechet_distance(every[:25], every[25:50]))
    assert found["kid_x1000"].value == pytest.approx(1000 * kernel_distance(every, generated))
    assert (found["recall"].value, found["density"].value) == prdc(every, generated)[1:3]
    assert found["coverage"].floor == prdc(every[:25], every[25:50]).coverage
    assert found["swd"].value == sliced_wasserstein_distance(real, fake, seed=3)["mean"]
    assert found["swd"].floor == sliced_wasserstein_distance(real[:25], real[25:50], seed=3)["mean"]


def test_the_papers_protocol_is_the_standard_one_beside_the_count():
    real, fake = blobs(50), blobs(60, seed=1)
    arguments = {"real": real, "fake": fake, "features": stub_extractor()}
    few, standard = (score_images(**arguments, count=20, protocol=name) for name in ("paper", "standard"))
    assert replace(few, protocol="standard") == standard
    assert few.floor_count is None
    many, standard = (score_images(**arguments, protocol=name) for name in ("paper", "standard"))
    assert (many.count, many.floor_count) == (50, 25)
    assert [own.floor for own in many.scores.values()] == [own.floor for own in standard.scores.values()]
    for name in ("ms_ssim_real", "ms_ssim_generated"):  # as ever of all images given
        assert getattr(many, name) == getattr(standard, name)
    between = score_images(**arguments, count=40, protocol="paper")
    assert (between.count, between.floor_count) == (40, 25)
    assert [own.floor for own in between.scores.values()] == [own.floor for own in standard.scores.values()]
    fewer_fakes = score_images(**{**arguments, "fake": fake[:30]}, protocol="paper")
    assert (fewer_fakes.count, fewer_fakes.floor_count) == (30, 25)


def test_real_images_that_are_generated_score_perfectly_by_the_papers_protocol():
    real = blobs(80)
    scores = score_images(real=real, fake=real, features=stub_extractor(), protocol="paper").scores
    assert scores["frechet"].value == pytest.approx(0, abs=1e-6)
    assert [scores[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert scores["frechet"].floor > 0.001


def test_a_floor_at_another_count_is_labelled_as_such():
    (real, real_classes), (fake, fake_classes) = two_classes((41, 30), (41, 30))
    scores = score_images(
        real=real,
        fake=fake,
        features=stub_extractor(),
        protocol="paper",
        classes=Classes(real_classes, fake_classes),
    )
    assert {name: (own.count, own.floor_count) for name, own in scores.classes.items()} == {
        "a": (41, 20),
        "b": (30, 15),
    }
    table = format_table(scores)
    assert "| score | generated | real against real (floor at 35 images) | better |" in table
    assert "71 images per set at 32 px (71 generated and 71 real were given" in table
    assert "The floor is at 35 images per set, not at 71" in table
    assert "MS-SSIM does not depend on the number of images" in table
    titles, *rows = [line for line in table.splitlines() if line.startswith(("| class", "| a", "| b"))]
    assert titles.endswith(" | floor |")
    assert [row.endswith(f" | at {half} images |") for row, half in zip(rows, (20, 15), strict=True)] == [True, True]
    standard = score_images(real=real, fake=fake, features=stub_extractor())
    assert "floor at" not in format_table(standard).lower()
    tree = standard.to_dict()
    assert tree.pop("floor_count") is None
    assert Scores.from_dict(tree, "scores.json") == standard  # from before there was such a field


def test_ms_ssim_is_of_all_images_given(monkeypatch):
    monkeypatch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 100)
    real, fake = blobs(50), blobs(40, seed=1)
    scores = score_images(real=real, fake=fake, features=None, count=10, seed=3)
    for key, images in (("ms_ssim_real", real), ("ms_ssim_generated", fake)):
        assert asdict(getattr(scores, key)) == mean_ms_ssim(images, pairs=100, seed=3)._asdict()
    monkeypatch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 10_000)
    assert score_images(real=real, fake=fake, features=None).ms_ssim_real.pairs == 50 * 49 / 2  # all that there are


def test_a_collapsed_generator_is_told():
    fake = blobs(4, seed=1).repeat(20, 1, 1, 1)
    scores = score_images(real=blobs(160), fake=fake, features=stub_extractor())
    collapse = scores.mode_collapse
    assert collapse.verdict == "mode collapse"
    assert 0 < collapse.low < collapse.difference < collapse.high
    expected = scores.ms_ssim_generated.mean - scores.ms_ssim_real.mean
    assert collapse.difference == pytest.approx(expected)
    assert scores.scores["recall"].value < 0.5 * scores.scores["recall"].floor
    assert scores.scores["coverage"].value < 0.5 * scores.scores["coverage"].floor


def test_many_images_that_are_a_few_dozen_repeated_are_told():
    """Hardly any pair is of the same image, so the mean over pairs does not tell."""
    fake = blobs(30, seed=1).repeat(10, 1, 1, 1)
    scores = score_images(real=blobs(600), fake=fake, features=None)
    assert scores.mode_collapse.verdict == "no sign of mode collapse"
    assert asdict(scores.repeats) == {"generated": 270, "real": 0, "found": True}
    words = "270 of 300 generated images are nearly the same as an earlier one; of as many real ones, 0 are."
    assert summary(scores)[0] == (words, True)
    assert words in format_table(scores)
    some = score_images(real=blobs(600), fake=torch.cat([fake[:40], blobs(260, seed=2)]), features=None)
    assert [verdict.collapsed for verdict in summary(some)[:2]] == [False, False]
    assert summary(some)[1].sentence.startswith("10 of 300 generated images")
    assert "nearly the same" not in format_table(score_images(real=blobs(600), fake=blobs(300, seed=2), features=None))
    assert score_images(real=blobs(40), fake=fake, features=None, protocol="legacy").repeats is None


def test_no_sign_of_collapse_is_not_called_equality():
    scores = score_images(real=blobs(160), fake=blobs(80, seed=1), features=None)
    test = scores.mode_collapse
    interval = f"{test.difference:+.3f}, 95 % interval {test.low:+.3f} to {test.high:+.3f}"
    assert summary(scores)[0].sentence == (
        "No sign of mode collapse: generated images were not found to be more alike than real ones (MS-SSIM "
        f"generated - real = {interval})."
    )


@pytest.mark.parametrize(("value", "below"), [(0.79, True), (0.81, False)])
def test_a_distance_clearly_below_its_floor_calls_for_an_audit(value, below):
    scores = score_images(real=blobs(16), fake=blobs(8, seed=1), features=None)
    found = summary(replace(scores, scores={"frechet": Scored(value, 1.0)}))[-1].sentence
    assert found.startswith("Frechet distance: 0.8 times its floor")
    assert ("Below the floor: training images may be repeated; run samgan audit." in found) == below
    assert ("Real images reach about 1." in found) != below


def test_more_diverse_images_than_the_real_ones_are_no_collapse():
    scores = score_images(real=blobs(2).repeat(40, 1, 1, 1), fake=blobs(40, seed=1), features=None)
    assert scores.mode_collapse.high < 0
    assert scores.mode_collapse.verdict == "no sign of mode collapse"


def test_the_real_images_themselves_score_perfectly():
    real = blobs(80)
    fake = real[torch.randperm(80, generator=torch.Generator().manual_seed(0))[:40]]
    scores = score_images(real=real, fake=fake, features=stub_extractor(), seed=0)
    assert scores.scores["frechet"].value == pytest.approx(0, abs=1e-6)
    assert [scores.scores[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert scores.scores["frechet"].floor > 0.001


@pytest.mark.parametrize("protocol", ["standard", "paper", "legacy"])
def test_scores_are_json_and_repeat(protocol):
    real, fake = blobs(100), blobs(44, seed=1)
    scores = score_images(real=real, fake=fake, features=stub_extractor(), protocol=protocol)
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False)), "scores.json") == scores
    assert score_images(real=real, fake=fake, features=stub_extractor(), protocol=protocol) == scores
    as_arrays = score_images(real=real.numpy(), fake=fake.numpy(), features=stub_extractor(), protocol=protocol)
    assert as_arrays == scores


def test_the_real_set_limits_the_count():
    scores = score_images(real=blobs(31), fake=blobs(64, seed=1), features=None)
    assert scores.count == 15
    assert "15 images per set at 32 px (64 generated and 31 real were given" in format_table(scores)


def test_scores_without_features_are_skipped_with_the_reason():
    scores = score_images(real=blobs(32), fake=blobs(16, seed=1), features=None, skip_reason="no weights")
    assert scores.features is None
    assert [skipped.score for skipped in scores.skipped] == DISTRIBUTION_SCORES
    assert {skipped.reason for skipped in scores.skipped} == {"no weights"}
    assert list(scores.scores) == ["swd"]
    assert "Skipped: frechet, kid_x1000, precision, recall, density, coverage (no weights)." in format_table(scores)


def test_images_too_small_for_a_score_are_skipped_with_the_reason():
    scores = score_images(real=blobs(32, size=8), fake=blobs(16, size=8, seed=1), features=stub_extractor())
    assert scores.ms_ssim_real is scores.mode_collapse is None
    assert "swd" not in scores.scores
    assert scores.scores["frechet"].value > 0
    assert {skipped.score for skipped in scores.skipped} >= {"swd", "ms_ssim_generated"}
    assert "at least 16 px" in format_table(scores)


def test_legacy_protocol_goes_by_file_order():
    real, fake = blobs(100), blobs(44, seed=1)
    scores = score_images(real=real, fake=fake, features=stub_extractor(), protocol="legacy")
    assert scores.protocol == "legacy"
    assert scores.ms_ssim_generated.pairs == 43
    assert scores.ms_ssim_real.mean == pytest.approx(adjacent_ms_ssim(real).mean().item())
    assert scores.ms_ssim_generated.mean == pytest.approx(adjacent_ms_ssim(fake).mean().item())
    assert scores.scores["frechet"].value > 0 < scores.scores["frechet"].floor
    assert list(scores.scores) == ["frechet"]
    assert "Legacy protocol" in format_table(scores)
    few = score_images(real=real[:30], fake=fake, features=stub_extractor(), protocol="legacy")
    assert few.scores == {}
    assert "at least 20 images (one batch)" in few.skipped[0].reason
    missing = score_images(real=real, fake=fake, features=None, protocol="legacy", skip_reason="no weights")
    assert [asdict(skipped) for skipped in missing.skipped] == [{"score": "frechet", "reason": "no weights"}]


@pytest.mark.parametrize(
    ("real", "fake", "arguments", "error", "message"),
    [
        ((32, 1, 32), (16, 1, 64), {}, SamganError, "32x32 px with 1 channel, the generated ones 64x64"),
        ((32, 1, 32), (16, 3, 32), {}, SamganError, "1 channel, the generated ones 32x32 px with 3 channels"),
        ((32, 1, 32), (7, 1, 32), {}, SamganError, "at least 8 generated and 16 real"),
        ((15, 1, 32), (16, 1, 32), {}, SamganError, "at least 8 generated and 16 real"),
        ((32, 1, 32), (16, 1, 32), {"count": 3}, SamganError, "count: 3"),
        ((15, 1, 32), (16, 1, 32), {"protocol": "paper"}, SamganError, "at least 8 generated and 16 real"),
        ((32, 1, 32), (7, 1, 32), {"protocol": "paper"}, SamganError, "at least 8 generated and 16 real"),
        ((32, 1, 32), (16, 1, 32), {"protocol": "fid"}, UsageError, "standard, paper, legacy"),
    ],
)
def test_what_cannot_be_scored_is_refused(real, fake, arguments, error, message):
    with pytest.raises(error, match=message):
        score_images(real=blobs(*real), fake=blobs(*fake), features=None, **arguments)
    real, fake = ((n, c, size, size) for n, c, size in (real, fake))
    with pytest.raises(error, match=message):
        check_inputs(real, fake, **arguments)


@pytest.mark.parametrize(("real", "fake", "count"), [(100, 44, None), (31, 64, None), (100, 44, 20), (100, 44, 44)])
def test_shapes_alone_tell_how_many_images_will_be_used(real, fake, count):
    images = blobs(real), blobs(fake, seed=1)
    used = check_inputs(*(some.shape for some in images), count=count)
    assert used == score_images(real=images[0], fake=images[1], features=None, count=count).count


@pytest.mark.parametrize(("real", "fake", "count", "most"), [(100, 44, 45, 44), (60, 44, 44, 30)])
def test_a_count_that_cannot_be_had_is_refused(real, fake, count, most):
    with pytest.raises(
        UsageError, match=f"--count {count}: {fake} generated and {real} real images allow at most {most}"
    ):
        check_inputs((real, 1, 32, 32), (fake, 1, 32, 32), count=count)


def test_the_papers_protocol_allows_a_count_of_all_images():
    shapes = (44, 1, 32, 32), (60, 1, 32, 32)
    assert check_inputs(*shapes, protocol="paper") == check_inputs(*shapes, protocol="paper", count=44) == 44
    with pytest.raises(UsageError, match="--count 45: 60 generated and 44 real images allow at most 44"):
        check_inputs(*shapes, protocol="paper", count=45)


@pytest.mark.parametrize("images", [blobs(20).float() / 255, blobs(20)[:, 0], blobs(20).numpy().astype(np.int64)])
def test_images_that_are_not_uint8_are_refused(images):
    with pytest.raises(SamganError, match="expected uint8 images"):
        score_images(real=images, fake=blobs(20), features=None)
    with pytest.raises(SamganError, match="expected uint8 images"):
        quick_scores(blobs(20), images)


def test_read_only_arrays_are_scored(tmp_path):
    np.save(tmp_path / "real.npy", blobs(32).numpy())
    real = np.load(tmp_path / "real.npy", mmap_mode="r")
    assert quick_scores(real, real).ms_ssim_gap == 0


def test_the_table_says_fid_of_the_standard_features_only():
    extractor = stub_extractor()
    assert "| FID |" not in format_table(score_images(real=blobs(40), fake=blobs(20), features=extractor))
    extractor.name = "inception"
    table = format_table(score_images(real=blobs(40), fake=blobs(20), features=extractor))
    assert "| FID |" in table
    assert "Frechet" not in table


def test_the_table_puts_every_score_beside_its_floor():
    scores = score_images(real=blobs(80), fake=blobs(40, seed=1), features=stub_extractor())
    table = format_table(scores)
    for name, label in {"frechet": "Frechet distance, stub", "recall": "recall, stub"}.items():
        assert f"| {label} | {scores.scores[name].value:.3f} | {scores.scores[name].floor:.3f} |" in table
    for level in ("32", "16"):
        score = scores.swd_by_level[level]
        assert f"| SWD x 1000 at {level} px | {score.value:.2f} | {score.floor:.2f} | ↓ lower |" in table
    assert f"Features: stub, sha256 {'ab' * 32}" in table
    assert "Verdict: no sign of mode collapse" in table
    assert format_table(Scores.from_dict(json.loads(json.dumps(scores.to_dict())), "scores.json")) == table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (31.25, "31.250"),
        (-0.5, "-0.500"),
        (0.0, "0.000"),
        (0.001, "0.001"),
        (0.00049, "0.00049"),
        (-1e-9, "-1e-09"),
        (999_999.0, "999999.000"),
        (1.23456e12, "1.235e+12"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_the_table_stays_readable_whatever_the_number(value, shown):
    scores = score_images(real=blobs(16), fake=blobs(8, seed=1), features=None)
    table = format_table(replace(scores, scores={**scores.scores, "frechet": Scored(value, 1.0)}))
    assert f"| Frechet distance | {shown} | 1.000 |" in table


def test_quick_scores_see_collapse_and_agree_with_the_metrics():
    real, fake = blobs(64), blobs(64, seed=1)
    healthy, collapsed = quick_scores(real, fake), quick_scores(real, fake[:2].repeat(32, 1, 1, 1))
    assert CHOOSES_BEST in healthy.to_dict()
    assert healthy.quick_score == pytest.approx((healthy.swd * healthy.thumbnail_frechet) ** 0.5)
    assert abs(healthy.ms_ssim_gap) < 0.1 < collapsed.ms_ssim_gap
    worse, better = collapsed.to_dict(), healthy.to_dict()
    assert all(worse[name] > better[name] for name in ("quick_score", "swd", "thumbnail_frechet"))
    assert quick_scores(real.numpy(), fake.numpy()) == healthy
    with pytest.raises(SamganError, match="64x64"):
        quick_scores(real, blobs(64, size=64))


def test_thumbnails_tell_of_brightness_and_layout_but_not_of_texture():
    real = blobs(64) // 2 + 40
    brighter = quick_scores(real, real + 10).thumbnail_frechet
    assert brighter == pytest.approx(1000 * (10 / 255) ** 2, rel=1e-3)
    assert quick_scores(real, real.roll(8, dims=3)).thumbnail_frechet > 1
    checked = quick_scores(real, real + 4 * (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).byte())
    assert checked.thumbnail_frechet < 0.2
    assert checked.swd > 20
    assert quick_scores(real, real.flip(0)).thumbnail_frechet == pytest.approx(0, abs=1e-6)


def two_classes(real, fake, seed=0):
    """Images of which class b is darker, and the names of their classes, in mixed order."""
    draw, sets = np.random.default_rng(seed), []
    for count, images in ((real, blobs(sum(real))), (fake, blobs(sum(fake), seed=1))):
        names = draw.permutation(np.repeat(["a", "b"], count))
        images[names == "b"] //= 2
        sets.append((images, names))
    return sets


@pytest.mark.parametrize("protocol", ["standard", "paper", "legacy"])
def test_every_class_is_scored_by_itself(protocol, monkeypatch):
    monkeypatch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 100)
    (real, real_classes), (fake, fake_classes) = two_classes((42, 50), (24, 25))
    arguments = {"features": stub_extractor(), "protocol": protocol, "seed": 3}
    scores = score_images(real=real, fake=fake, classes=Classes(real_classes, fake_classes), **arguments)
    assert list(scores.classes) == ["a", "b"]
    for name, count in (("a", 21), ("b", 25)):
        own = {"real": real[real_classes == name], "fake": fake[fake_classes == name]}
        alone = score_images(**own, **arguments)
        assert alone.count == (count if protocol != "paper" else len(own["fake"]))
        assert scores.classes[name] == alone
    whole = score_images(real=real, fake=fake, **arguments)
    assert replace(scores, classes={}) == whole
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False)), "scores.json") == scores


def test_features_of_an_image_are_computed_once_for_all_sets_it_is_in(monkeypatch):
    monkeypatch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 100)
    (real, real_classes), (fake, fake_classes) = two_classes((40, 40), (20, 20))
    extractor, seen = stub_extractor(), []
    network = extractor.network
    extractor.network = lambda images: (seen.extend(images), network(images))[1]
    score_images(real=real, fake=fake, features=extractor, classes=Classes(real_classes, fake_classes))
    assert len(seen) == len({image.numpy().tobytes() for image in seen}) == 120


def test_a_class_of_too_few_images_is_skipped_with_the_reason():
    (real, real_classes), (fake, fake_classes) = two_classes((40, 15), (20, 20))
    scores = score_images(real=real, fake=fake, features=None, classes=Classes(real_classes, fake_classes))
    assert scores.classes["b"] is None
    assert scores.classes["a"].count == 20
    table = format_table(scores)
    assert "Skipped: class b (scores need at least 8 generated and 16 real images; there are 20 and 15" in table
    assert "| b |" not in table


def test_the_table_has_a_line_for_every_class(monkeypatch):
    monkeypatch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 100)
    (real, real_classes), (fake, fake_classes) = two_classes((60, 60), (30, 30))
    fake[fake_classes == "b"] = fake[fake_classes == "b"][:1].clone()  # collapsed, which all of them do not show
    real_classes, fake_classes = (np.where(names == "b", "b|c", names) for names in (real_classes, fake_classes))
    scores = score_images(real=real, fake=fake, features=stub_extractor(), classes=Classes(real_classes, fake_classes))
    table = format_table(scores)
    header, _, first, second = [line for line in table.splitlines() if line.startswith("| ")][-4:]
    cells = dict(zip(header.split(" | "), second.split(" | "), strict=True))
    frechet = scores.classes["b|c"].scores["frechet"]
    assert cells["Frechet distance, stub (floor)"] == f"{frechet.value:.3f} ({frechet.floor:.3f})"
    assert (first[:9], cells["| class"], cells["images a set"]) == ("| a | 30 ", "| b/c", "30")
    assert header.count("|") == first.count("|") == second.count("|")
    assert "Verdict on a: no sign of mode collapse" in table
    assert "Verdict on b/c: mode collapse" in table
    hidden = replace(scores, mode_collapse=scores.classes["a"].mode_collapse, repeats=None)
    outcome, *others = summary(hidden)  # of a small class, which all images together do not show
    assert outcome == ("Mode collapse in b/c: generated images repeat themselves within the class.", True)
    assert not any("No sign" in verdict.sentence for verdict in others)


def test_gaps_by_class_see_a_class_that_collapsed():
    (real, real_classes), (fake, fake_classes) = two_classes((40, 24), (40, 24))
    fake[fake_classes == "b"] = fake[fake_classes == "b"][:1].clone()
    gaps = ms_ssim_gaps(real, fake, real_classes, fake_classes)
    assert abs(gaps["a"]) < 0.1 < gaps["b"]
    few = np.where(np.arange(64) < 2, "c", fake_classes)
    assert set(ms_ssim_gaps(real.numpy(), fake.numpy(), real_classes, few)) == {"a", "b"}
