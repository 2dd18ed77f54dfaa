"""The one list of models. To add one, write its file and its line here."""

from ..cluster.cluster import unknown_name
from .base import Model
from .bert import BERTS
from .gpt2 import GPT2
from .lstm import LSTM
from .resnet import RESNETS
from .vgg import VGGS

MODELS: dict[str, Model] = {model.name: model for model in (*RESNETS, *VGGS, LSTM, *BERTS, GPT2)}


def load_model(name: str) -> Model:
    """Return a listed model; raises ``InputError`` with the nearest names if there is none of this name."""
    if name not in MODELS:
        raise unknown_name("model", name, tuple(MODELS))
    return MODELS[name]
