"""Policies by layer: which scheme a unit gets, and that a training runs with each unit's own."""

import pytest
import torch

from gradwire.compressors.base import SchemeError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks import make_task
from gradwire.sim.training.plan import Training
from gradwire.sim.training.train import check, train


def chosen(text: str, name: str, shape: tuple[int, ...]) -> str:
    return str(parse_scheme(text).for_unit(name, shape))


@pytest.mark.parametrize(
    ("rules", "exceptions"),
    [
        ("below=1000", {"conv1.bias", "norm.weight", "conv1.weight"}),
        ("below=863", {"conv1.bias", "norm.weight"}),
        ("vectors=True", {"conv1.bias", "norm.weight"}),
        ("names='*.bias'", {"conv1.bias"}),
        ("names='norm.*, head.?eight'", {"norm.weight", "head.weight"}),
        ("names='conv[12].*'", {"conv1.bias", "conv1.weight"}),
        ("below=10, names='head.*'", {"head.weight"}),
        ("names='*.BIAS', below=1", set()),
    ],
)
def test_any_rule_that_holds_makes_an_exception(rules, exceptions):
    units = {"conv1.bias": (32,), "conv1.weight": (32, 3, 3, 3), "norm.weight": (64,), "head.weight": (10, 256)}
    text = f"layers(ef(topk), qsgd(bits=8), {rules})"
    found = {name for name, shape in units.items() if chosen(text, name, shape) == "qsgd(bits=8)"}
    assert found == exceptions
    assert {chosen(text, name, units[name]) for name in set(units) - found} <= {"ef(topk(density=0.01))"}


def test_exceptions_are_dense_unless_said_otherwise():
    assert chosen("layers(topk, below=10)", "a", (9,)) == "dense(dtype=native)"
    assert chosen("layers(topk, below=10)", "a", (10,)) == "topk(density=0.01)"
    assert parse_scheme("layers(topk, dense, below=10)") == parse_scheme("layers(topk, below=10)")


def test_policies_nest_and_the_outermost_rule_decides():
    text = "layers(layers(topk, qsgd, names='head.*'), vectors=True)"
    assert chosen(text, "head.weight", (5, 5)) == "qsgd(bits=4)"
    assert chosen(text, "head.bias", (5,)) == "dense(dtype=native)"
    assert chosen(text, "body.weight", (5, 5)) == "topk(density=0.01)"


def test_schemes_that_do_not_decide_are_for_every_unit():
    for text in ("topk(density=0.1)", "ef(topk(density=0.1) | dense(dtype=bf16))", "ef(warmup(topk))"):
        scheme = parse_scheme(text)
        assert scheme.for_unit("a", (3,)) == scheme


def test_formulas_go_by_the_shape():
    scheme = parse_scheme("layers(topk, below=100)")
    assert scheme.wire_bytes((50,)) == 200
    assert scheme.wire_bytes((1000,)) == parse_scheme("topk").wire_bytes((1000,))
    assert scheme.error_bound((50,)) == 0
    assert scheme.error_bound((1000,)) == 0.99
    assert [str(part) for part, _ in scheme.shaped_parts((50,))] == ["dense(dtype=native)"]


def test_training_gives_each_unit_its_own():
    task = make_task("mnist", {})
    plan = Training(workers=2, batch_size=8, steps=2, learning_rate=0.1, evaluate_every=2)
    trajectory = train(task, parse_scheme("layers(ef(topk(density=0.01)), vectors=True)"), plan)
    work = {piece.scheme: [] for log in trajectory.logs[0] for piece in log.work}
    for log in trajectory.logs[0]:
        for piece in log.work:
            work[piece.scheme].append(piece.shape)
    assert set(work) == {"dense(dtype=native)", "ef(topk(density=0.01))"}
    assert all(len(shape) == 1 for shape in work["dense(dtype=native)"])
    assert all(len(shape) > 1 for shape in work["ef(topk(density=0.01))"])


def test_rules_by_kind_and_name_refuse_units_of_several_parameters():
    task = make_task("mnist", {})
    plan = Training(workers=2, batch_size=8, steps=1, learning_rate=0.1, evaluate_every=1, unit="bucket")
    for rules in ("vectors=True", "names='*.bias'"):
        with pytest.raises(SchemeError, match=r"training.unit = 'bucket': layers\(.*\) works on layer only"):
            check(task, parse_scheme(f"layers(topk, {rules})"), plan)
    check(task, parse_scheme("layers(topk, below=100)"), plan)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("layers(topk)", r"layers needs a rule: below=1024, vectors=True or names='\*.bias'"),
        ("layers(below=3)", r"layers takes a scheme and one for the exceptions"),
        ("layers(topk, dense, dense, below=3)", r"layers takes a scheme and one for the exceptions"),
        ("layers(topk, below=-1)", r"layers: below = -1 is out of range: below must be at least 0"),
        ("layers(topk, names=3)", r"layers: names = 3 is not allowed: names must be a word, or a text in quotes"),
        ("layers(topk, below=5, other=dense)", r"layers has no parameter 'other'"),
        ("ef(layers(topk, below=5))", r"ef goes around schemes of one kind each: write it inside layers"),
        ("layers(topk, below=5) | qsgd", r"the first must select entries"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(SchemeError, match=reason):
        parse_scheme(text)


def test_a_policy_is_not_run_itself(exchange, values):
    with pytest.raises(SchemeError, match="decides by unit: run the scheme that for_unit gives"):
        exchange("layers(topk, below=5)", values(2, 10))


def test_the_optimizer_must_suit_both():
    class Picky(type(parse_scheme("dense"))):
        def check_optimizer(self, optimizer):
            raise SchemeError("no")

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    rules = parse_scheme("layers(topk, below=5)").rules
    parse_scheme("layers(topk, below=5)").check_optimizer(optimizer)
    for schemes in ((Picky(), parse_scheme("topk")), (parse_scheme("topk"), Picky())):
        with pytest.raises(SchemeError, match="^no$"):
            rules.wrap(schemes).check_optimizer(optimizer)
