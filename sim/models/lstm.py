"""LSTM: a word language model of two recurrent layers."""

from torch import Tensor, nn

from .base import Model, next_words, sequences

WORDS = 33_278
"""The vocabulary of WikiText-2."""
WIDTH = 1500
LENGTH = 35


class WordLSTM(nn.Module):
    """Embedding, two LSTM layers, and a decoder that has the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(WORDS, WIDTH)
        self.rnns = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(2))
        self.decoder = nn.Linear(WIDTH, WORDS)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out = self.encoder(tokens)
        for rnn in self.rnns:
            out, _ = rnn(out)
        scores: Tensor = self.decoder(out)
        return scores


LSTM = Model(
    name="lstm",
    title="LSTM, 2 x 1500, tied",
    source="Zaremba et al. 2014, arXiv 1409.2329 (large); Press & Wolf 2017, arXiv 1608.05859 (tying); WikiText-2",
    sample=f"a sequence of {LENGTH} words",
    batch=20,
    build=WordLSTM,
    inputs=sequences(WORDS, LENGTH),
    loss=next_words,
)
