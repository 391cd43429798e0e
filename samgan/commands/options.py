"""Options that several commands share: each is added here, with one help text."""

import argparse
from pathlib import Path
from typing import Any

from samgan.metrics.constants import FEATURES
from samgan.presets import scale_names

MODEL = (
    "run folder, .safetensors file of samgan export, name of a model that comes with samgan (samgan models), or "
    "hf:OWNER/NAME[@REVISION] of the Hugging Face Hub (needs samgan[hub])"
)
IMAGES = (
    "run folder, .safetensors file of samgan export, name of a model, hf:OWNER/NAME[@REVISION] of the Hugging Face "
    "Hub, folder of images, .npz or .npy"
)


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Options as keyword arguments of a function that calls them the same."""
    return {name: getattr(options, name) for name in names}


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    text = "device that networks run on; auto: CUDA if there is a GPU, else the CPU (default: auto)"
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help=text)


def add_classes(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --classes; the text says what they are for and which are the default."""
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=(), help=text)


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add --features and --features-file."""
    text = f"what turns images into features: {', '.join(FEATURES)}, or a TorchScript or exported module that you "
    text += "trust (.pt, .pt2), from uint8 images to features (default: inception if its weights are here, otherwise "
    text += "radiograph, which comes with samgan)"
    parser.add_argument("--features", metavar="NAME|FILE", help=text)
    text = "weights of the named network, for a machine without network access and for networks that cannot be "
    text += "downloaded: a file of torch.save or safetensors"
    parser.add_argument("--features-file", type=Path, metavar="FILE", help=text)


def add_seed(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --seed; the text says what it is the seed of."""
    parser.add_argument("--seed", type=int, default=0, help=text)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    text = "checkpoint of the run: newest, best (by the quick scores taken during training) or a file"
    parser.add_argument("--checkpoint", default="newest", help=text)


def add_preset(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --preset, --scale and --config, which settings begin with; the text says what the preset is."""
    parser.add_argument("--preset", help=text)
    text = (
        "size of the preset. Rows of Table 2: paper (512 channels; default) or cpu (64); others: cpu (default) or gpu"
    )
    parser.add_argument("--scale", choices=scale_names(), help=text)
    text = "YAML file of settings; settings on the command line have priority"
    parser.add_argument("--config", type=Path, metavar="FILE", help=text)


def add_on_collapse(parser: argparse.ArgumentParser) -> None:
    """Add --on-collapse."""
    text = "what to do if a run collapses, that is, if its images become alike and stay alike"
    parser.add_argument("--on-collapse", default="warn", choices=("warn", "stop", "ignore"), help=text)


def add_classifiers(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --seeds and --steps of the classifiers that test whether images help."""
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help=text)
    parser.add_argument(
        "--steps", type=int, default=500, metavar="N", help="steps of each classifier, of 64 images each"
    )
