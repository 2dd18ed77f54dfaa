"""GPT-2, the smallest of its sizes."""

import torch
from torch import Tensor, nn

from .base import Model, next_words, sequences
from .transformer import attention

WORDS, LENGTH, WIDTH, LAYERS = 50_257, 1024, 768, 12


class _Projection(nn.Module):
    """A dense layer whose weight is stored input by output, as in the original code."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inside, outside).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, 1), self.weight).view(*x.shape[:2], -1)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({"c_attn": _Projection(WIDTH, 3 * WIDTH), "c_proj": _Projection(WIDTH, WIDTH)})
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": _Projection(WIDTH, 4 * WIDTH), "c_proj": _Projection(4 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["c_attn"](self.ln_1(x)).split(WIDTH, 2)
        x = x + nn.functional.dropout(self.attn["c_proj"](attention(q, k, v, WIDTH // 64, causal=True)), 0.1)
        hidden = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        result: Tensor = x + nn.functional.dropout(self.mlp["c_proj"](hidden), 0.1)
        return result


class GPT2Model(nn.Module):
    """Embeddings, blocks, and a head that has the word embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(WORDS, WIDTH), "wpe": nn.Embedding(LENGTH, WIDTH)})
        self.transformer["h"] = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.transformer["ln_f"] = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.transformer["wte"]
        x = words(tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1], device=tokens.device))
        x = nn.functional.dropout(x, 0.1)
        for block in self.transformer["h"].children():
            x = block(x)
        return nn.functional.linear(self.transformer["ln_f"](x), words.get_parameter("weight"))


GPT2 = Model(
    name="gpt2",
    title="GPT-2, 124 M",
    source="Radford et al. 2019, Language Models are Unsupervised Multitask Learners; transformers.GPT2LMHeadModel",
    sample=f"a sequence of {LENGTH} tokens",
    batch=8,
    build=GPT2Model,
    inputs=sequences(WORDS, LENGTH),
    loss=next_words,
)
