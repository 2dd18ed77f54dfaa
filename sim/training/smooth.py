"""Smoothness: whether a task's loss has operations whose derivative jumps, seen in the graph of one batch's loss."""

from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from ..tasks.base import Task

_KINKS = frozenset([
    "abs", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "amin", "aminmax", "clamp",
    "clamp_max", "clamp_min", "cummax", "cummin", "fmax", "fmin", "fractional_max_pool2d", "fractional_max_pool3d",
    "hardsigmoid", "hardswish", "hardtanh", "kthvalue", "leaky_relu", "linalg_vector_norm", "max", "max_pool1d",
    "max_pool2d", "max_pool3d", "maximum", "median", "min", "minimum", "multi_margin_loss",
    "multilabel_margin_loss", "nanmedian", "norm", "_prelu_kernel", "relu", "relu6", "rrelu", "softshrink", "sort",
    "threshold", "topk",
])  # fmt: skip
"""Operations of torch that are continuous, and have a derivative that is not."""
_JUMPS = frozenset([
    "argmax", "argmin", "bucketize", "ceil", "eq", "floor", "fmod", "frac", "ge", "gt", "hardshrink", "heaviside",
    "le", "lt", "ne", "remainder", "round", "searchsorted", "sgn", "sign", "trunc",
])  # fmt: skip
"""Those that jump themselves; a comparison makes two pieces of what it chooses between."""


def rough_operations(task: Task, model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[str, ...] | None:
    """Return the operations on trained values that are not smooth, in order of their first use, by torch's names.

    What is found makes the loss non-smooth, as a rule: that two kinks cancel is not seen. What is smooth only away from
    some points, such as a root at 0, counts as smooth.

    Parameters
    ----------
    task : Task
    model : nn.Module
    batch : tuple of Tensor, each [B, ...]

    Returns
    -------
    tuple of str, or None
        None if the loss cannot be traced.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        def stand_in(*inputs: Tensor) -> Tensor:
            result: Tensor = functional_call(model, parameters, inputs)
            return result

        return task.loss(stand_in, batch)

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        graph = make_fx(loss)(parameters).graph
    except Exception:  # noqa: BLE001  what a task's own code does under tracing is anyone's guess
        return None
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    graph.eliminate_dead_code()  # a metric that is computed along with the loss does not count
    trained: set[Node] = set()
    found = []
    for node in graph.nodes:
        if node.op == "placeholder" or trained & set(node.all_input_nodes):
            trained.add(node)
            if node.op == "call_function" and (name := _rough(node)):
                found.append(name)
    return tuple(dict.fromkeys(found))


def _rough(node: Node) -> str:
    """Return an operation's name if it is not smooth, else nothing."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return ""  # takes one of several results
    name: str = schema.name.removeprefix("aten::").removesuffix("_")
    name = name.removesuffix("_with_indices").removesuffix("_with_noise")
    if name == "elu":
        given = [float(value) for value in node.args[1:] if isinstance(value, int | float)]
        alpha, _, input_scale = (given + [1.0] * 3)[:3]  # what is left out is 1
        return "" if alpha * input_scale == 1 else name
    return name.strip("_").removesuffix("_kernel") if name in _KINKS | _JUMPS else ""
