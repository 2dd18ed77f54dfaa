"""BERT with its two heads of pre-training, base and large."""

import torch
from torch import Tensor, nn

from .base import Batch, Model, labels
from .transformer import attention

WORDS = 30_522
LENGTH = 128
"""Of most pre-training steps (Devlin et al. 2019, appendix A.2)."""


class _Output(nn.Module):
    """A projection whose result is added to what went past it."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, width)
        self.LayerNorm = nn.LayerNorm(width)

    def forward(self, x: Tensor, carried: Tensor) -> Tensor:
        result: Tensor = self.LayerNorm(nn.functional.dropout(self.dense(x), 0.1) + carried)
        return result


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.attention = nn.Module()
        self.attention.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention.output = _Output(width, width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = _Output(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        own = self.get_submodule("attention.self")
        q, k, v = (own.get_submodule(name)(x) for name in ("query", "key", "value"))
        x = self.get_submodule("attention.output")(attention(q, k, v, self.heads, causal=False), x)
        result: Tensor = self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)
        return result


class BERT(nn.Module):
    """Embeddings, encoder, pooler, and the heads that predict masked words and the next sentence.

    Parameters
    ----------
    layers, width : int
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        sizes = {"word_embeddings": WORDS, "position_embeddings": 512, "token_type_embeddings": 2}
        self.bert = nn.Module()
        self.bert.embeddings = nn.Module()
        for name, size in sizes.items():
            self.bert.embeddings.add_module(name, nn.Embedding(size, width))
        self.bert.embeddings.LayerNorm = nn.LayerNorm(width)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList(_Layer(width) for _ in range(layers))
        self.bert.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.cls = nn.Module()
        self.cls.predictions = nn.Module()
        self.cls.predictions.bias = nn.Parameter(torch.zeros(WORDS))
        self.cls.predictions.transform = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width)}
        )
        self.cls.seq_relationship = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        part = self.get_submodule
        words = part("bert.embeddings.word_embeddings")
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        x = words(tokens) + part("bert.embeddings.position_embeddings")(places)
        x = x + part("bert.embeddings.token_type_embeddings")(torch.zeros_like(tokens))
        x = nn.functional.dropout(part("bert.embeddings.LayerNorm")(x), 0.1)
        for layer in part("bert.encoder.layer").children():
            x = layer(x)
        follows = part("cls.seq_relationship")(torch.tanh(part("bert.pooler.dense")(x[:, 0])))
        hidden = nn.functional.gelu(part("cls.predictions.transform.dense")(x))
        hidden = part("cls.predictions.transform.LayerNorm")(hidden)
        bias = self.get_parameter("cls.predictions.bias")
        return nn.functional.linear(hidden, words.get_parameter("weight"), bias), follows


def _inputs(batch: int, device: torch.device) -> Batch:
    return labels(WORDS, device, batch, LENGTH), labels(2, device, batch)


def _loss(module: nn.Module, batch: Batch) -> Tensor:
    tokens, follows = batch
    words, next_sentence = module(tokens)
    masked: Tensor = nn.functional.cross_entropy(words.flatten(0, 1), tokens.flatten())
    return masked + nn.functional.cross_entropy(next_sentence, follows)


def _model(name: str, layers: int, width: int, batch: int) -> Model:
    return Model(
        name=f"bert-{name}",
        title=f"BERT-{name.title()}, pre-training",
        source="Devlin et al. 2019, arXiv 1810.04805; names as of transformers.BertForPreTraining",
        sample=f"a sequence of {LENGTH} tokens",
        batch=batch,
        build=lambda: BERT(layers, width),
        inputs=_inputs,
        loss=_loss,
    )


BERTS = (_model("base", 12, 768, 32), _model("large", 24, 1024, 16))
