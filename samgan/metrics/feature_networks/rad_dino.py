"""RAD-DINO: a vision transformer of chest radiographs, for those who have its weights and a GPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.metrics.feature_networks.record import FeatureNetwork, Input, StateDict
from samgan.metrics.feature_networks.weights import only_given

WIDTH = 768
HEADS = 12
LAYERS = 12
PATCH = 14
SIZE = 518
"""Side in pixels of the images that the network was trained on; 37 patches."""


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        parts = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in self.attention.values())
        attended = F.scaled_dot_product_attention(*parts)  # query, key, value
        return self.output["dense"](attended.transpose(1, 2).flatten(2))


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class _Layer(nn.Module):
    """Attention, then a perceptron; both are normalised, scaled and added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention, self.layer_scale1 = nn.LayerNorm(WIDTH, 1e-6), _Attention(), _Scale()
        self.norm2, self.layer_scale2 = nn.LayerNorm(WIDTH, 1e-6), _Scale()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class _Embeddings(nn.Module):
    """Patches as tokens after a token of the class, each with its position."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))  # of training only
        self.position_embeddings = nn.Parameter(torch.zeros(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, WIDTH, PATCH, PATCH)})

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.position_embeddings


class DinoV2(nn.Module):
    """ViT-B/14 of DINOv2, with the names that `transformers` gives its weights; images have 518 px.

    Source: Oquab et al. 2023 (arXiv:2304.07193).
    """

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*(_Layer() for _ in range(LAYERS)))})
        self.layernorm = nn.LayerNorm(WIDTH, 1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """The 768 values of the token of the class."""
        return self.layernorm(self.encoder["layer"](self.embeddings(images))[:, 0])


def _build(state: StateDict) -> nn.Module:
    with torch.device("meta"):  # initial weights would only take time
        network = DinoV2()
    network.load_state_dict(state, assign=True)
    return network


RAD_DINO = FeatureNetwork(
    name="rad-dino",
    description="RAD-DINO, a ViT-B/14 (DINOv2) trained on 880,000 chest radiographs; slow without a GPU",
    dim=WIDTH,
    input=Input(channels=3, mean=(255 * 0.5307,), std=(255 * 0.2583,), size=SIZE, mode="bicubic"),
    url="https://huggingface.co/microsoft/rad-dino/resolve/main/model.safetensors",
    megabytes=346,
    licence="MIT; for research, not for clinical use",
    sha256=None,
    build=_build,
    find=only_given,
)
"""Source: Pérez-García et al. 2025 (arXiv:2401.10815)."""
