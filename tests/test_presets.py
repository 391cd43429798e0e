"""The table against the paper's, copied here a second time and parsed, so that a slip of the pen shows."""

import json

import pytest

from samgan.config import Config
from samgan.errors import UsageError
from samgan.presets import (
    ATTENTION,
    PLUS,
    PRESETS,
    RECIPES,
    SCALES,
    preset_config,
    preset_document,
    preset_names,
    scales_of,
)

# Table 2 without MSG-GAN's own row. Columns: row, PN, SN, MBD, AM, FA, optimizer, lr, loss, data, FID, MR, MG.
TABLE_2 = """
| MSG-GAN_1  | y | n | y | n | y | RMSprop | 0.003  | WGAN-GP | CelebA | 18.5   | -    | -    |
| MSG-GAN_2  | y | n | y | n | y | RMSprop | 0.003  | WGAN-GP | X-ray  | 380    | 0.50 | 0.74 |
| MSG-GAN_3  | y | n | y | n | n | RMSprop | 0.003  | WGAN-GP | X-ray  | 310.2  | 0.50 | 0.51 |
| MSG-GAN_4  | y | n | y | n | y | Adam    | 0.003  | WGAN-GP | X-ray  | 330.33 | 0.50 | 0.66 |
| MSG-GAN_5  | y | n | y | n | y | RMSprop | 0.003  | RLHinge | X-ray  | 200    | 0.50 | 0.50 |
| MSG-GAN_6  | y | n | y | n | y | Adam    | 0.003  | RLHinge | X-ray  | 167.1  | 0.50 | 0.47 |
| MSG-GAN_7  | y | n | y | n | n | Adam    | 0.003  | RLHinge | X-ray  | 194.85 | 0.50 | 0.51 |
| SAMGAN_1   | y | n | y | y | n | Adam    | 0.003  | RLHinge | X-ray  | 557.28 | 0.50 | 0.99 |
| MSG-GAN_8  | y | n | y | n | n | Adam    | 0.0003 | RLHinge | X-ray  | 217.3  | 0.50 | 0.54 |
| MSG-GAN_9  | y | n | y | n | n | Adam    | 0.0002 | RLHinge | X-ray  | 272.02 | 0.50 | 0.53 |
| MSG-GAN_10 | y | n | y | n | n | Adam    | 0.0001 | RLHinge | X-ray  | 254.0  | 0.50 | 0.58 |
| MSG-GAN_11 | y | y | y | n | n | Adam    | 0.003  | RLHinge | X-ray  | 413.8  | 0.50 | 1.0  |
| SAMGAN_2   | y | y | y | y | n | Adam    | 0.003  | RLHinge | X-ray  | 413.8  | 0.50 | 1.0  |
| SAMGAN_3   | y | y | y | y | n | Adam    | 0.0003 | RLHinge | X-ray  | 387.2  | 0.50 | 0.55 |
| SAMGAN_4   | y | y | y | y | n | Adam    | 0.0002 | RLHinge | X-ray  | 198.8  | 0.50 | 0.55 |
| SAMGAN_5   | y | y | y | y | n | Adam    | 0.0001 | RLHinge | X-ray  | 282.2  | 0.50 | 0.54 |
| SAMGAN_6   | y | y | y | y | y | Adam    | 0.0003 | RLHinge | X-ray  | 243.0  | 0.50 | 0.47 |
| SAMGAN_7   | y | y | y | y | y | Adam    | 0.0002 | RLHinge | X-ray  | 366.2  | 0.50 | 0.53 |
| SAMGAN_8   | y | y | y | y | y | Adam    | 0.0001 | RLHinge | X-ray  | 139.6  | 0.50 | 0.50 |
"""
ROWS = {}
for line in TABLE_2.strip().splitlines():
    name, *columns = (cell.strip() for cell in line.strip("|").split("|"))
    ROWS[name.lower().replace("_", "-")] = columns


def number(cell):
    return None if cell == "-" else float(cell)


def test_the_rows_are_those_of_table_2():
    assert len(ROWS) == 19
    assert sorted(preset_names()) == sorted([*ROWS, *RECIPES])
    assert [row.name for row in PRESETS] == preset_names()[:19]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ROWS)
def test_configuration_of_a_row(name, scale):
    pn, sn, mbd, am, fa, optimizer, rate, loss, data, *_ = ROWS[name]
    config = preset_config(name, scale)
    network, training = config.network, config.training
    assert config.preset == name
    assert network.pixel_norm == (pn == "y")
    assert network.spectral_norm == {"y": "both", "n": "none"}[sn]
    assert network.minibatch_std == {"y": "last", "n": "none"}[mbd]
    sides = (4, 8, 16, 32, 64) if scale == "paper" else (4, 8, 16, 32)
    assert network.generator_attention == network.discriminator_attention == (sides if am == "y" else ())
    assert config.data.flip == {"y": "random", "n": "none"}[fa]
    assert training.optimizer == optimizer.lower()
    assert training.learning_rate == float(rate)
    assert training.discriminator_learning_rate is None
    if loss == "WGAN-GP":
        expected = ("wgan", "gradient-per-scale", 10.0, 0.001)
        assert (training.loss, training.penalty, training.penalty_weight, training.drift_weight) == expected
    else:
        assert (training.loss, training.penalty) == ("relativistic-average-hinge", "none")
        assert training.drift_weight == 0
    assert network.image_channels == {"CelebA": 3, "X-ray": 1}[data]
    assert (network.resolution, training.batch_size) == (64, 16)
    assert (network.max_channels, training.kimg) == {"paper": (512, 1808.0), "cpu": (64, 400.0)}[scale]
    if scale == "paper":
        assert training.total_steps == 113_000


@pytest.mark.parametrize("name", ROWS)
def test_published_scores_of_a_row(name):
    fid, real, generated = map(number, ROWS[name][-3:])
    row = {row.name: row for row in PRESETS}[name]
    assert (row.paper_fid, row.paper_ms_ssim_real, row.paper_ms_ssim_generated) == (fid, real, generated)


@pytest.mark.parametrize("name", ROWS)
def test_configuration_survives_json(name):
    config = preset_config(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_document_is_json_with_the_papers_columns():
    document = json.loads(json.dumps(preset_document(), allow_nan=False))
    assert [row["name"] for row in document] == [row.name for row in PRESETS]
    for row in document:
        pn, sn, mbd, am, fa = (cell == "y" for cell in ROWS[row["name"]][:5])
        assert (row["pixel_norm"], row["spectral_norm"], row["minibatch_std"]) == (pn, sn, mbd)
        assert (row["attention"], row["flip"]) == (am, fa)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in RECIPES for scale in scales_of(name)])
def test_other_recipes(name, scale, resolution):
    config = preset_config(name, scale, resolution)
    assert config.preset == name
    assert config.network.resolution == resolution
    assert config.data.flip == "none"  # a mirrored radiograph has the heart on the wrong side
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith(ATTENTION)])
def test_a_recipe_with_attention_differs_in_that_only(name, scale):
    """It is where the rows of the paper have it."""
    own, without = preset_config(name, scale), preset_config(name.removesuffix(ATTENTION), scale)
    assert own.differences(without).keys() == {"network.generator_attention", "network.discriminator_attention"}
    rows = preset_config("samgan-8", {"cpu": "cpu", "gpu": "paper"}[scale]).network
    assert own.network.generator_attention == rows.generator_attention
    assert own.network.discriminator_attention == rows.discriminator_attention


def test_settings_of_a_size_hold_from_that_size_on():
    """R3GAN's gamma: 2 at 64 px, 150 at 256 px, and a tenth of it after the burn-in."""
    for scale in ("cpu", "gpu"):
        found = {side: preset_config("r3gan", scale, side).training for side in (32, 64, 128, 256)}
        gammas = {side: (2 * t.penalty_weight, 2 * t.burnt_in_penalty_weight) for side, t in found.items()}
        assert gammas == {32: (2, 0.2), 64: (2, 0.2), 128: (17.4, 1.74), 256: (150, 15)}


def test_our_own_recipe_is_what_no_name_gives():
    assert preset_config() == preset_config(PLUS, "cpu")


@pytest.mark.parametrize("resolution", [32, 128])
def test_other_resolutions_keep_attention_where_it_fits(resolution):
    network = preset_config("samgan-8", "paper", resolution).network
    assert network.generator_attention == tuple(side for side in (4, 8, 16, 32, 64) if side <= resolution)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("samgan-9",),
            "unknown preset 'samgan-9'; did you mean samgan-.\\? known: msg-gan-1, .*samgan-plus",
        ),
        (("samgan-8", "gpu"), "unknown scale 'gpu' of samgan-8; known: paper, cpu"),
        (("samgan-plus", "paper"), "unknown scale 'paper' of samgan-plus; known: cpu, gpu"),
        (("samgan-8", "paper", 48), "network.resolution: 48"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(UsageError, match=message):
        preset_config(*arguments)
