"""Residual networks for images: ResNet-18, 50 and 101."""

from torch import Tensor, nn

from .base import Model, classified, images

_SOURCE = "He et al. 2016, arXiv 1512.03385 (strides as in torchvision, 3 x 3 in the bottleneck)"


class _Block(nn.Module):
    """Convolutions around which the input is carried; ``kernels`` are their sizes, 3 x 3 ones stride."""

    def __init__(self, inside: int, widths: tuple[int, ...], kernels: tuple[int, ...], stride: int) -> None:
        super().__init__()
        strided = kernels.index(3)
        channels = (inside, *widths)
        for i, kernel in enumerate(kernels):
            step = stride if i == strided else 1
            convolution = nn.Conv2d(channels[i], channels[i + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", convolution)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
        self.depth = len(kernels)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != widths[-1]:
            shortcut = nn.Conv2d(inside, widths[-1], 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(out))
            if i < self.depth:
                out = nn.functional.relu(out, inplace=True)
        carried = x if self.downsample is None else self.downsample(x)
        return nn.functional.relu(out + carried, inplace=True)


class ResNet(nn.Module):
    """A stem, four stages of blocks, and a classifier.

    Parameters
    ----------
    blocks : tuple of int
        Blocks in each stage.
    bottleneck : bool
        Blocks of 1 x 1, 3 x 3, 1 x 1 convolutions, the last four times as wide, instead of two 3 x 3 ones.
    """

    def __init__(self, blocks: tuple[int, int, int, int], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate(blocks):
            width = 64 * 2**stage
            widths, kernels = ((width, width, 4 * width), (1, 3, 1)) if bottleneck else ((width, width), (3, 3))
            layer = nn.Sequential()
            for block in range(count):
                layer.append(_Block(channels, widths, kernels, 2 if stage and not block else 1))
                channels = widths[-1]
            self.add_module(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        out = nn.functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = nn.functional.max_pool2d(out, 3, 2, 1)
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        scores: Tensor = self.fc(out.mean((2, 3)))
        return scores


def _model(depth: int, blocks: tuple[int, int, int, int], bottleneck: bool) -> Model:
    return Model(
        name=f"resnet{depth}",
        title=f"ResNet-{depth}",
        source=_SOURCE,
        sample="an image of 224 x 224",
        batch=32,
        build=lambda: ResNet(blocks, bottleneck),
        inputs=images,
        loss=classified,
    )


RESNETS = (
    _model(18, (2, 2, 2, 2), bottleneck=False),
    _model(50, (3, 4, 6, 3), bottleneck=True),
    _model(101, (3, 4, 23, 3), bottleneck=True),
)
