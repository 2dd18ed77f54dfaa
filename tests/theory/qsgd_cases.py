"""Where the statements of Alistarh et al. 2017 about the quantizer are sharp, and what breaks them."""

import numpy as np

from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import qsgd2017
from gradwire.compressors.quantizers.qsgd import QSGD

from .faultyschemes import LargestNormQSGD, WrongWayQSGD

LONG = {"flat": np.ones(400)}
MIXED = {"flat": np.ones(50), "geometric": 0.9 ** np.arange(50)}
SQUARE = {"flat": np.ones(49)}

ONE, DENSE = {"bits": 2, "norm": "l2"}, {"bits": 4, "norm": "l2", "code": "elias_dense"}

SHARP = {
    "qsgd.variance": lambda: qsgd2017.variance(Probe(QSGD(**ONE), LONG, 200)),
    "qsgd.sparsity": lambda: qsgd2017.sparsity(Probe(QSGD(**ONE), LONG, 200)),
    "qsgd.second_moment": lambda: qsgd2017.second_moment(Probe(QSGD(**ONE), MIXED, 400)),
    "qsgd.elias_length": lambda: qsgd2017.elias_length(Probe(QSGD(**ONE, code="elias"), LONG, 200)),
    "qsgd.dense_elias_length": lambda: qsgd2017.dense_elias_length(Probe(QSGD(**DENSE), SQUARE, 50)),
}
BROKEN = {
    "qsgd.variance": lambda: qsgd2017.variance(Probe(WrongWayQSGD(**ONE), LONG, 200)),
    "qsgd.sparsity": lambda: qsgd2017.sparsity(Probe(WrongWayQSGD(**ONE), LONG, 200)),
    "qsgd.second_moment": lambda: qsgd2017.second_moment(Probe(WrongWayQSGD(**ONE), MIXED, 400)),
    "qsgd.elias_length": lambda: qsgd2017.elias_length(Probe(WrongWayQSGD(**ONE, code="elias"), LONG, 200)),
    "qsgd.dense_elias_length": lambda: qsgd2017.dense_elias_length(Probe(LargestNormQSGD(**DENSE), SQUARE, 50)),
}
