"""Models of the literature, without training: parameter shapes, and compute times from published figures."""

from .registry import MODELS, load_model
from .times import model_workload

__all__ = ["MODELS", "load_model", "model_workload"]
