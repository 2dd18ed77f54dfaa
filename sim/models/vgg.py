"""VGG: plain convolutional networks with large classifiers, VGG-11 and 16."""

from torch import Tensor, nn

from .base import Model, classified, images

_POOL = 0
_STAGES = {
    11: (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL, 512, 512, _POOL),
    16: (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512, _POOL, 512, 512, 512, _POOL),
}


class VGG(nn.Module):
    """3 x 3 convolutions, pooling between stages, and three dense layers.

    Parameters
    ----------
    depth : {11, 16}
        Layers with weights.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for width in _STAGES[depth]:
            if width == _POOL:
                self.features.append(nn.MaxPool2d(2, 2))
            else:
                self.features.append(nn.Conv2d(channels, width, 3, padding=1)).append(nn.ReLU(inplace=True))
                channels = width
        hidden = (nn.ReLU(inplace=True), nn.Dropout())
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), *hidden, nn.Linear(4096, 4096), *hidden, nn.Linear(4096, 1000)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(x).flatten(1))
        return scores


def _model(depth: int) -> Model:
    return Model(
        name=f"vgg{depth}",
        title=f"VGG-{depth}",
        source="Simonyan & Zisserman 2015, arXiv 1409.1556; torchvision's names",
        sample="an image of 224 x 224",
        batch=32,
        build=lambda: VGG(depth),
        inputs=images,
        loss=classified,
    )


VGGS = (_model(11), _model(16))
