"""Logs of any length, torn or replaced, are read piece by piece; the alarm says what it would say of the whole log."""

import json
import random
import time

import pytest
from studio import line

from samgan.runs import Run, find_collapse
from samgan.studio.logs import Alarm, Line, curves, read_piece


def write(path, lines, mode="w"):
    with open(path, mode, encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "stats.jsonl"
    write(path, [line(step) for step in range(1, 101)])
    return path


def test_pieces_make_the_whole(log):
    steps, file, after = [], 0, 0
    while True:
        piece = read_piece(log, file, after, most=700)
        steps += [each.step for each in piece.lines]
        if piece.after == piece.start:
            break
        file, after = piece.file, piece.after
    assert steps == list(range(1, 101))
    assert after == log.stat().st_size


def test_only_what_is_new_is_read(log):
    first = read_piece(log)
    assert read_piece(log, first.file, first.after).lines == []
    write(log, [line(101)], "a")
    assert [each.step for each in read_piece(log, first.file, first.after).lines] == [101]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(log):
    first = read_piece(log)
    text = json.dumps(line(101)) + "\n"
    with open(log, "a", encoding="utf-8") as file:
        file.write(text[:30])
        file.flush()
        half = read_piece(log, first.file, first.after)
        assert (half.lines, half.after) == ([], first.after)
        file.write(text[30:])
    assert [each.step for each in read_piece(log, half.file, half.after).lines] == [101]


@pytest.mark.parametrize(
    "torn", ['{"kind": "train", "st', "[]", "null", "\x00\x00", '{"kind": "train"}', "[" * 5000, "é"]
)
def test_torn_lines_are_passed_over(log, torn):
    with open(log, "a", encoding="utf-8") as file:
        file.write(torn + "\n")
    write(log, [line(101)], "a")
    assert [each.step for each in read_piece(log).lines] == list(range(1, 102))


def test_a_line_without_end_does_not_stop_the_reader(log):
    with open(log, "a", encoding="utf-8") as file:
        file.write("x" * 5000 + "\n")
    write(log, [line(101)], "a")
    steps, file, after = [], 0, 0
    for _ in range(200):
        piece = read_piece(log, file, after, most=1000)
        steps += [each.step for each in piece.lines]
        file, after = piece.file, piece.after
    assert steps[-1] == 101


def test_a_log_that_was_replaced_begins_again(log, tmp_path):
    first = read_piece(log)
    other = tmp_path / "other"
    write(other, [line(step) for step in range(1, 300)])
    other.replace(log)
    again = read_piece(log, first.file, first.after)
    assert again.start == 0
    assert len(again.lines) == 299
    log.write_text("", "utf-8")  # shorter than what was read
    assert read_piece(log, again.file, again.after).start == 0


def test_many_lines_become_few_points_and_spikes_stay():
    lines = [Line("train", step, 4 * step, loss_generator=1.0) for step in range(1, 10_001)]
    lines[5003].loss_generator = 99.0
    lines[7001].loss_generator = -5.0
    columns = curves(lines, points=100)["train"]
    assert len(columns["kimg"]) <= 100
    assert columns["kimg"] == sorted(columns["kimg"])
    assert (min(columns["loss_generator"]), max(columns["loss_generator"])) == (-5.0, 99.0)
    assert set(columns) == {"kimg", "loss_generator"}
    assert curves([])["train"] == {"kimg": []}


def test_after_a_resume_later_lines_count():
    lines = [Line("train", step, step, augment=0.1) for step in (1, 2, 3)]
    lines += [Line("train", step, step, augment=0.2) for step in (2, 3, 4)]
    assert curves(lines)["train"]["augment"] == [0.1, 0.2, 0.2, 0.2]


def collapsing(seed):
    """A log whose images become alike, or not, with scores that may come late."""
    drawn, lines = random.Random(seed), []
    alike = drawn.choice([0.3, 0.6, 0.9])
    for step in range(10, 2001, 10):
        sign = drawn.choice([0.5, 0.99]) if seed % 2 else 0.99
        lines.append(line(step, images_seen=16 * step, sign_real=sign, gradient_generator=drawn.random()))
        late = step - drawn.choice([0, 10, 20])
        if step % 100 == 20:
            done = (late // 100) * 100
            if done > 0:
                scores = {"ms_ssim_real": 0.3, "ms_ssim_generated": 0.3 + 0.7 * alike, "ms_ssim_gap": 0.7 * alike}
                lines.append({"kind": "scores", "step": done, "images_seen": 16 * done, **scores})
    return lines


@pytest.mark.parametrize("seed", range(12))
def test_the_alarm_says_what_the_whole_log_says(tmp_path, seed):
    run = Run(tmp_path)
    lines = collapsing(seed)
    alarm = Alarm(every=100)
    for end in (len(lines) // 3, len(lines) // 2, len(lines)):
        write(tmp_path / "stats.jsonl", lines[:end])
        assert alarm.look(tmp_path / "stats.jsonl") == find_collapse(run.stats())
    assert alarm.read == 1.0
    if seed == 0:
        assert any(find_collapse(collapsing(number)) for number in range(12))


def test_an_alarm_forgets_a_log_that_was_replaced(tmp_path):
    path = tmp_path / "stats.jsonl"
    write(path, next(lines for seed in range(12) if find_collapse(lines := collapsing(seed))))
    alarm = Alarm(every=100)
    assert alarm.look(path)
    path.unlink()
    write(path, [line(1)])
    assert alarm.look(path) is None


def test_a_million_lines_are_read_in_time(tmp_path):
    """100,000 lines here; ten times as many may take ten times as long, in pieces of which each is quick."""
    path = tmp_path / "stats.jsonl"
    text = "".join(json.dumps(line(step)) + "\n" for step in range(1, 1001))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(text for _ in range(100))
    start = time.process_time()
    piece = read_piece(path)
    curves(piece.lines)
    assert time.process_time() - start < 1.0
    assert piece.after < piece.size
