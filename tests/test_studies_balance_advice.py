"""What is known before a set is balanced: it is what the map says, and says so where the map says nothing."""

import json
from dataclasses import replace

import pytest

from samgan.commands.main import main
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError
from samgan.studies import BalanceRequest, advise, balance, read_utility_map, short_advice
from samgan.studies.utility_map import PATH, PlannedCell, Question, UtilityMap, Verdict, known_rows
from samgan.trust.utility_document import HARMS, HELPS, UNDECIDED

CASE = Verdict("here", 32, 14, None, "a use", "a rival", 0.998, 0.0001, -0.001, 0.001, UNDECIDED, 0.0014, 1)
EASY = Question("easy", "sick or not", "easy", (CASE, replace(CASE, verdict=HARMS)), ())
HARD = Question("hard", "which germ", "hard", (), (PlannedCell(32, 25), PlannedCell(32, 10)))


def known(*questions):
    return UtilityMap(questions=questions)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    write_phantoms(folder / "images", 40, resolution=32)
    prepare(folder / "images", folder / "all", resolution=32, holdout=0.3, workers=1)
    return subset(PreparedSet.open(folder / "all"), folder / "data", images={"NORMAL": 24})


def test_a_case_like_the_set_is_named_and_what_is_not_measured_too(data):
    advice = advise(data, {"NORMAL": 4, "PNEUMONIA": 0}, known(EASY, HARD))
    text = "\n".join(advice.lines)
    assert [(one.name, one.images, one.patients, one.missing) for one in advice.small] == [("NORMAL", 24, 24, 4)]
    assert (advice.side, advice.measured, advice.helps) == (32, 2, 0)
    assert (
        "With 32 px and about as many as NORMAL has (sick or not, easy): of 2 cases, they helped in 0, harmed" in text
    )
    assert "Not measured: which germ (hard)." in text
    assert "nobody has measured it with samgan" in text
    assert "The best way without them was most often: a rival." in text
    assert "one random choice of patients" in text


@pytest.mark.parametrize("other", [{"side": 64}, {"images": 50}, {"images": 11}, {"images": None, "patients": 50}])
def test_a_case_of_another_size_is_not_taken_for_the_set_s(data, other):
    advice = advise(data, {"NORMAL": 4}, known(replace(EASY, verdicts=(replace(CASE, **other),))))
    assert "No measured case has 32 px and about as many patients or images as NORMAL." in advice.lines


def test_a_gain_on_a_hard_question_is_told(data):
    gain = replace(CASE, patients=20, images=None, gain=0.03, low=0.01, high=0.05, verdict=HELPS, draws=4)
    hard = replace(HARD, verdicts=(gain,), open=(PlannedCell(32, 10),))
    text = "\n".join(advise(data, {"NORMAL": 4}, known(EASY, hard)).lines)
    assert "They helped with: which germ, 20 patients, 32 px, by a use (+0.0300 in AUC)." in text
    assert "Some cases of the measured questions are not measured yet" in text
    for untrue in ("nobody has measured", "expect no gain", "Not measured:"):
        assert untrue not in text
    assert "Measured on some questions only: of 3 cases, they helped in 1, harmed in 1" in short_advice(
        known(EASY, hard)
    )
    rows = list(known_rows(known(EASY, hard)))
    assert rows[1][2:] == ("32", "20 patients", "1", "1", "0", "0", "0.0014")
    assert rows[2][3:5] == ("10 patients", "not measured")


def test_without_any_measurement_it_says_so(data):
    assert short_advice(known(HARD)).startswith("Do synthetic images help a classifier? Not measured yet.")
    assert "Not measured: which germ (hard)." in advise(data, {"NORMAL": 4}, known(HARD)).lines


def test_what_came_with_samgan_is_checked_when_it_is_read(tmp_path):
    assert UtilityMap.from_dict(read_utility_map().to_dict(), "here") == read_utility_map()
    tree = json.loads(PATH.read_text())
    case = tree["questions"][0]["verdicts"][0]
    for change in ({"low": 0.5}, {"rival_auc": 1.5}, {"images": None, "patients": None}, {"verdict": "great"}):
        before = dict(case)
        case.update(change)
        (tmp_path / "map.json").write_text(json.dumps(tree))
        with pytest.raises(SamganError, match=r"is not a map of utility .* make it again with python results"):
            UtilityMap.read(tmp_path / "map.json")
        case.update(before)


def test_the_command_says_it_and_makes_nothing(data, tmp_path, capsys):
    out = tmp_path / "balanced"
    assert main(["balance", str(data.path), "--advise", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["small"] == [{"name": "NORMAL", "images": 24, "patients": 24, "missing": 4}]
    assert said["lines"] == list(advise(data, {"NORMAL": 4}).lines)
    assert main(["balance", str(data.path), str(out), "--advise", "--target", "26"]) == 0
    assert "NORMAL has 24 training images of 24 patients, and lacks 2." in capsys.readouterr().out
    assert not out.exists()
    assert main(["balance", str(data.path)]) == 2
    assert "both are needed, except with --advise" in capsys.readouterr().err


def test_balance_says_it_in_short_before_it_spends_time(data, tmp_path, monkeypatch, capsys):
    def stop(work):
        raise SamganError("stopped here")

    monkeypatch.setattr("samgan.studies.balancing.train_models", stop)
    request = BalanceRequest(seeds=0, device="cpu")
    with pytest.raises(SamganError, match="stopped here"):
        balance(data, tmp_path / "balanced", request)
    said = capsys.readouterr().err
    assert f"samgan: {short_advice()}\n" in said
    assert said.index(short_advice()) < said.index("samgan: training")
