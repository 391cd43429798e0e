"""The benchmarks run, and judge a measured value by its goal as it is meant."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def test_a_goal_is_met_from_its_own_side():
    from lines import Line

    assert Line("times as fast", 2.3, 2.2, at_least=True).met is True
    assert Line("times as fast", 2.1, 2.2, at_least=True).met is False
    assert Line("seconds", 2.1, 2.2).met is True
    assert Line("seconds", 2.3, 2.2).met is False
    line = Line("no goal", 1.0)
    assert line.document() == {"name": "no goal", "goal": None, "measured": 1.0, "met": None, "unit": ""}
    assert Line("seconds", 2.3, 2.2, " s").row() == "| seconds | ≤ 2.2 s | 2.3 s | **no** |  |"


def test_the_processor_is_named_with_its_instructions(tmp_path):
    from lines import processor

    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: fpu avx2 avx512f amx_tile amx_bf16\n")
    assert processor(file) == "Some Processor (avx2, avx512f, amx_tile, amx_bf16)"
    assert torch.backends.cpu.get_cpu_capability() in processor(tmp_path / "nothing")


TINY = {"preset": "samgan-plus", "resolution": 32, "settings": {"network.max_channels": 8, "network.num_classes": 0}}


@pytest.mark.slow
def test_contenders_take_turns():
    from contenders import Contender, Together, compete, ratio

    core = sorted(os.sched_getaffinity(0))[:1] if hasattr(os, "sched_getaffinity") else None
    one = Contender("training", TINY)
    both = Together(Contender("training", {**TINY, "augmented": 0.3}), Contender("training", TINY, cores=core))
    compete({"one": one, "both": both}, rounds=2, warm=1)
    assert len(one.seconds) == len(both.seconds) == 2
    median, note = ratio(one, both)
    assert median > 0
    assert note.endswith("in 2 rounds")
    assert all(contender.process.returncode == 0 for contender in (one, *both.contenders))


@pytest.mark.slow
def test_a_contender_is_the_version_in_its_checkout(tmp_path):
    import samgan

    (tmp_path / "samgan").symlink_to(Path(samgan.__file__).parent, target_is_directory=True)
    from contenders import Contender

    other = Contender("training", TINY, checkout=tmp_path)
    operators = other.ask("profile")
    other.close()
    assert operators["aten::convolution_backward"][0] > 0
    with pytest.raises(SystemExit, match=r"expected the samgan in .*nothing|ended early"):
        Contender("training", TINY, checkout=tmp_path / "nothing")


def test_convolutions_and_matrix_products_are_told_from_the_rest():
    from bench_plus import IS_PRODUCT

    products = (
        "mkldnn_convolution",
        "convolution_backward",
        "addmm",
        "mm",
        "bmm",
        "baddbmm",
        "linear",
        "mkldnn_linear",
    )
    products += (
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "convolution_overrideable",
        "_addmm_activation",
    )
    others = ("upsample_bilinear2d", "leaky_relu", "mul", "_to_copy", "avg_pool2d", "grid_sampler_2d", "comma")
    assert all(IS_PRODUCT.fullmatch(f"aten::{name}") for name in products)
    assert not any(IS_PRODUCT.fullmatch(f"aten::{name}") for name in others)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_a_point_of_the_scaling_is_measured(capsys):
    from bench_scaling import USUAL, step

    step({**USUAL, "resolution": 32, "batch": 4, "width": 8, "images": 16}, rounds=1)
    told = json.loads(capsys.readouterr().out)
    assert told["seconds_per_image"] > 0
    assert told["peak_gb"] > 0.1
    assert told["gflop_per_image"] > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_the_cost_of_a_preset_is_measured(tiny_config):
    from bench_presets import measure

    told = measure(tiny_config.override({"training": {"penalty": "r1", "penalty_every": 2}}), steps=4)
    assert told["images_per_second"] > 0
    assert told["peak_gb"] > 0.1
    assert told["precision_bits"] == 32


def test_the_demo_is_judged_by_its_slowest_and_its_worst_seed():
    from bench_demo import goals, row

    found = [
        {
            "seed": seed,
            "wall_seconds": 100.0 + 100 * seed,
            "cpu_seconds": 150.0,
            "kimg": 10.0,
            "features": "radiograph",
            "count": 240,
            "frechet_floors": 3.0 + seed,
            "scores": {"frechet": {"value": 6.0, "floor": 2.0}},
            "gap": [0.01, -0.01, 0.03],
            "verdict": "mode collapse" if seed else "no sign of mode collapse",
        }
        for seed in range(2)
    ]
    assert row(found[0])[4] == "6 / 2 = 3.00"
    assert row(found[0])[6] == "+0.010 [-0.010, +0.030]"
    lines = {line.name: line for line in goals(found)}
    assert {name: line.met for name, line in lines.items()} == {
        "minutes, longest": False,
        "verdicts of collapse": False,
        "Frechet distance in floors, largest": True,
    }
    assert all(line.met for line in goals(found[:1]))


FAKE = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
*"samgan train"*)
    out=$(sed 's/.*--out \\([^ ]*\\).*/\\1/' <<<"$*")
    mkdir -p "$out"
    touch "$out/config.json"
    echo '{"images_seen": '$((1000 * (1 + $(cat "$out/stats.jsonl" 2>/dev/null | wc -l))))'}' >>"$out/stats.jsonl"
    [[ $* == *--resume* ]] # a row ends when it is taken up again
    ;;
*"samgan export"*) head -c 20000000 /dev/urandom >"${@: -1}" ;;
*"samgan evaluate"*) echo '{}' ;;
esac
"""


@pytest.mark.skipif(shutil.which("timeout") is None or os.name != "posix", reason="needs bash and GNU's tools")
def test_a_session_on_a_gpu_takes_rows_in_turn_and_goes_on_in_the_next_call(tmp_path):
    python, work, calls = tmp_path / "python", tmp_path / "work", tmp_path / "calls"
    python.write_text(FAKE)
    python.chmod(0o755)
    (tmp_path / "data").mkdir()
    environment = {**os.environ, "PYTHON": str(python), "WORK": str(work), "CALLS": str(calls)}

    def session(out, *words):
        command = ["bash", FOLDER / "gpu_session.sh", tmp_path / "data", tmp_path / out, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        told = calls.read_text().splitlines()
        calls.write_text("")
        return done, told

    done, told = session("first")
    assert done.returncode == 0, done.stderr
    assert "pytest" in told[1]
    assert "bench_gpu.py" in told[2]
    trained = [line.split("--out ")[1].split(" --device ") for line in told if "samgan train" in line]
    assert [Path(out).name for out, _ in trained] == ["msg-gan-6", "samgan-8", "msg-gan-6", "samgan-8"]
    assert [words.split(" ", 1)[1] for _, words in trained[1:3]] == [
        "--preset samgan-8 --scale paper --training.precision=auto",
        "--resume",
    ]
    parts = sorted((tmp_path / "first").glob("samgan-8.safetensors.*"))
    assert b"".join(part.read_bytes() for part in parts) == (work / "samgan-8.safetensors").read_bytes()
    assert max(part.stat().st_size for part in parts) == 15 << 20
    assert json.loads((tmp_path / "first" / "msg-gan-6.json").read_text()) == {}

    done, told = session("second")
    assert not [line for line in told if " train " in line or "-m pytest" in line or "bench_gpu" in line]
    assert {path.name for path in (tmp_path / "second").iterdir()} >= {"tests.txt", "steps.md", "samgan-8.json"}
    assert session("third", "1.5")[0].returncode == 2

    environment |= {"WORK": str(tmp_path / "seeds"), "SEEDS": "0 1", "AT_ONCE": "4", "FEATURES": "/features.pt"}
    done, told = session("fourth")
    assert done.returncode == 0, done.stderr
    trained = [line.split("--out ")[1].split(" --device ") for line in told if "samgan train" in line]
    names = ["msg-gan-6", "samgan-8", "msg-gan-6-seed1", "samgan-8-seed1"]
    assert sorted(Path(out).name for out, _ in trained[:4]) == sorted(names)  # each has its turn
    assert sorted(Path(out).name for out, _ in trained[4:]) == sorted(names)
    begun = {Path(out).name: words for out, words in trained[:4]}
    assert begun["samgan-8-seed1"].endswith(
        "--preset samgan-8 --scale paper --training.precision=auto --training.seed=1"
    )
    assert all("--features /features.pt" in line for line in told if "samgan evaluate" in line)
    assert {f"{name}.json" for name in names} <= {path.name for path in (tmp_path / "fourth").iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(
    torch.version.cuda is None, reason="the size of a process without tensors was measured with a CUDA build of torch"
)
def test_a_plan_tells_the_memory_and_the_operations_of_a_real_training(tmp_path):
    """The largest resident size of `samgan train` in a process of its own, and the operations of a real step."""
    from bench_cost import configuration, counted_operations, measured_memory

    from samgan.training import plan

    config = configuration("samgan-plus:cpu:64", 4)
    cost = plan(config)
    assert cost.memory_bytes / 1e9 == pytest.approx(measured_memory(config, tmp_path), rel=0.1)
    assert cost.flops_per_step == pytest.approx(counted_operations(config), rel=0.1)
