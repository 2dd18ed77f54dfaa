"""The contract of tasks, their digest, and how they are made from a name and options."""

import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from gradwire.sim.tasks import TASKS, Classification, Evaluation, IdxError, Split, TaskError, make_task

USER_TASK = """
    from dataclasses import dataclass
    from pathlib import Path

    import torch
    from torch import nn

    from gradwire.sim.tasks import Classification, Split, Splits


    @dataclass(frozen=True)
    class Sides(Classification):
        width: int
        cuts: tuple[float, ...] = (0.0,)
        place: Path = Path("here")

        def splits(self):
            inputs = torch.linspace(-1, 1, 6 * self.width).reshape(-1, self.width)
            part = Split((inputs, (inputs.sum(1) > self.cuts[0]).long()))
            return Splits(part, part, part)

        def model(self):
            return nn.Linear(self.width, 2)


    class Bare(Classification):
        def splits(self): ...
        def model(self): ...


    class Half(Classification):
        def splits(self): ...


    @dataclass(frozen=True)
    class Picky(Sides):
        def __post_init__(self):
            raise RuntimeError("not on a\\n Monday")


    def function(): ...
"""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module into a folder of the test; gives its path. What it does to the import system is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text, name="own_tasks"):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("own_", "broken_")):
            del sys.modules[name]


def stacked_gradients(task, model, batches):
    """Return each worker's gradient, all computed at once."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values, *batch):
        return task.loss(lambda *inputs: functional_call(model, values, inputs), batch)

    return vmap(grad(loss), in_dims=(None, *(0 for _ in batches)))(parameters, *batches)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", {}),
        ("mnist", {"network": "cnn"}),
        ("logistic", {}),
        ("quadratic", {"dimension": 7}),
        ("quadratic", {"dimension": 7, "rotated": False}),
    ],
)
def test_stacked_gradients_equal_one_autograd_pass_per_worker(name, options):
    task = make_task(name, options)
    train = task.splits().train.to(dtype=torch.float64)
    torch.manual_seed(0)
    model = task.model().double()
    for value in model.parameters():
        nn.init.normal_(value, std=0.1)
    positions = torch.randint(len(train), (3, 4))
    stacked = stacked_gradients(task, model, train.take(positions))
    for worker in range(3):
        model.zero_grad()
        task.loss(model, train.take(positions[worker])).backward()
        for key, value in model.named_parameters():
            assert value.grad.abs().max() > 0
            torch.testing.assert_close(stacked[key][worker], value.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_listed_tasks_keep_the_contract(name):
    task = make_task(name, {})
    first, second = task.splits(), task.splits()
    for split, again in zip(first, second, strict=True):
        assert all(t.device.type == "cpu" and t.shape[0] == len(split) for t in split.tensors)
        assert all(torch.equal(a, b) for a, b in zip(split.tensors, again.tensors, strict=True))
    model = task.model().train()
    whole, pieces = (task.evaluate(model, first.train, batch_size=size) for size in (10_000, 97))
    assert pieces == pytest.approx(whole, rel=1e-5)
    assert whole.loss == pytest.approx(task.loss(model, first.train.tensors).item(), rel=1e-5)
    assert model.training
    assert task.metric in {"accuracy", "suboptimality"}
    assert task.higher_is_better == (task.metric == "accuracy")
    assert pickle.loads(pickle.dumps(task)) == task


def test_classification_counts_right_answers():
    class Echo(Classification):
        def splits(self):
            raise NotImplementedError

        def model(self):
            return nn.Identity()

    scores = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [4.0, 0.0]])
    split = Split((scores, torch.tensor([0, 1, 1, 0])))
    right, wrong = 0.01814992791780978, 4.01814992791780978  # ln(1 + e^-4), and 4 more
    expected = Evaluation(loss=(3 * right + wrong) / 4, metric=0.75)
    assert Echo().evaluate(Echo().model(), split, batch_size=3) == pytest.approx(expected)


def test_split_takes_batches_and_moves():
    split = Split((torch.arange(6.0).reshape(3, 2), torch.tensor([5, 6, 7])))
    inputs, labels = split.take(torch.tensor([[2, 0], [1, 1]]))
    assert inputs.tolist() == [[[4, 5], [0, 1]], [[2, 3], [2, 3]]]
    assert labels.tolist() == [[7, 5], [6, 6]]
    moved = split.to(dtype=torch.float64)
    assert [t.dtype for t in moved.tensors] == [torch.float64, torch.int64]
    assert len(moved) == len(split) == 3


@pytest.mark.parametrize("tensors", [(), (torch.zeros(2), torch.zeros(3)), (torch.zeros(0),), (torch.tensor(1.0),)])
def test_split_refuses_what_is_no_set_of_examples(tensors):
    with pytest.raises(ValueError, match="same number of examples"):
        Split(tensors)


def test_digest_is_the_same_in_another_process():
    code = "from gradwire.sim.tasks import TASKS, make_task\nfor name in TASKS: print(make_task(name, {}).digest())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [make_task(name, {}).digest() for name in TASKS]
    assert output.split() == here
    assert len(set(here)) == len(TASKS)
    assert all(len(digest) == 64 for digest in here)


def test_digest_changes_with_a_field_and_with_the_source(write_module, tmp_path):
    path = write_module(USER_TASK)
    digests = {make_task("own_tasks:Sides", {"width": width}, tmp_path).digest() for width in (2, 2, 3)}
    assert len(digests) == 2
    path.write_text(path.read_text() + "# another thought\n")
    del sys.modules["own_tasks"]
    assert make_task("own_tasks:Sides", {"width": 2}, tmp_path).digest() not in digests
    assert make_task("mnist", {}).digest() != make_task("mnist", {"network": "cnn"}).digest()


def test_digest_needs_the_source(write_module, tmp_path):
    path = write_module(USER_TASK)
    task = make_task("own_tasks:Sides", {"width": 2}, tmp_path)
    path.unlink()
    with pytest.raises(TaskError, match=r"^task\.name = 'own_tasks': the source text .* cannot be read"):
        task.digest()


def test_users_task_by_import_path(write_module, tmp_path):
    write_module(USER_TASK)
    task = make_task("own_tasks:Sides", {"width": 3, "cuts": [0.5, 1], "place": "there"}, search=tmp_path)
    assert (task.width, task.cuts, str(task.place)) == (3, (0.5, 1.0), "there")
    assert len(task.splits().train) == 6
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(model, task.splits().train.tensors).backward()
        optimizer.step()
    assert task.evaluate(model, task.splits().test).metric == 1.0
    assert pickle.loads(pickle.dumps(task)) == task


def test_options_are_taken_exactly():
    task = make_task("quadratic", {"noise": 0.1 + 0.2, "smoothness": 3, "rotated": False})
    assert (task.noise, task.smoothness, task.rotated) == (0.1 + 0.2, 3.0, False)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mnits",
            {},
            "task.name = 'mnits': no such task; did you mean 'mnist'? expected logistic, mnist, quadratic or ",
        ),
        (
            "mnist",
            {"netwrok": "cnn"},
            "task.netwrok = 'cnn': no such option; did you mean 'network'? expected network,",
        ),
        ("mnist", {"network": "rnn"}, "task.network = 'rnn': should be 'mlp' or 'cnn'"),
        ("mnist", {"folder": 3}, "task.folder = 3: should be a valid string"),
        ("mnist", {"folder": "x"}, "task.folder = 'x': source 'packaged' takes no folder"),
        ("mnist", {"source": "mnist"}, "task.folder: source 'mnist' needs the folder of its IDX files"),
        ("quadratic", {"dimension": True}, "task.dimension = True: should be a valid integer"),
        ("quadratic", {"dimension": 2.5}, "task.dimension = 2.5: should be a valid integer"),
        ("quadratic", {"dimension": 1}, "task.dimension = 1: should be a whole number of at least 2"),
        ("quadratic", {"noise": "1"}, "task.noise = '1': should be a valid number"),
        ("quadratic", {"noise": float("nan")}, "task.noise = nan: should be a finite number of at least 0"),
        ("quadratic", {"rotated": 1}, "task.rotated = 1: should be a valid boolean"),
        ("quadratic", {"smoothness": -1}, "task.smoothness = -1.0: should be a finite number above 0"),
        (
            "quadratic",
            {"strong_convexity": 2.0},
            "task.strong_convexity = 2.0: should be above 0 and at most the smooth",
        ),
        ("quadratic", {"examples": 3}, "task.examples = 3: should be an even number"),
        ("quadratic", {"data_seed": -1}, "task.data_seed = -1: should be a whole number"),
        (
            "quadratic",
            {"noise": object},
            "task.noise = <class 'object'>: cannot be given as an option: its type is float",
        ),
        ("logistic", {"regularisation": 0}, "task.regularisation = 0.0: should be a finite number above 0"),
        ("nowhere.tasks:Mine", {}, "task.name = 'nowhere.tasks:Mine': there is no module 'nowhere' in "),
        ("own tasks:Mine", {}, "task.name = 'own tasks:Mine': is not an import path of the form"),
        ("own_tasks:Side", {"width": 2}, "task.name = 'own_tasks:Side': there is no 'Side' in "),
        ("own_tasks:function", {}, "task.name = 'own_tasks:function': is not a Task; expected a class derived from"),
        ("own_tasks:Half", {}, "task.name = 'own_tasks:Half': is an incomplete Task; it lacks model"),
        (
            "own_tasks:Bare",
            {},
            "task.name = 'own_tasks:Bare': is a Task but not a dataclass; put @dataclass(frozen=True)",
        ),
        ("own_tasks:Sides", {}, "task.width: is missing, and has no default"),
        ("own_tasks:Sides", {"width": 2, "cuts": 0.5}, "task.cuts = 0.5: should be a valid array"),
        (
            "own_tasks:Picky",
            {"width": 2},
            "task.name = 'own_tasks:Picky': refused its options: RuntimeError: not on a Mon",
        ),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(name, options, message, write_module, tmp_path):
    write_module(USER_TASK)
    with pytest.raises(TaskError) as caught:
        make_task(name, options, search=tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "importing 'broken_tasks' raised ZeroDivisionError: division by zero"),
        (
            "import no_such_thing",
            "importing 'broken_tasks' raised ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("raise SystemExit('bye')", "importing 'broken_tasks' raised SystemExit: bye"),
        ("def f(:", "importing 'broken_tasks' raised SyntaxError: "),
    ],
)
def test_a_users_module_that_fails_to_import(text, message, write_module, tmp_path):
    write_module(text, "broken_tasks")
    with pytest.raises(TaskError) as caught:
        make_task("broken_tasks:Mine", {}, search=tmp_path)
    assert str(caught.value).startswith(f"task.name = 'broken_tasks:Mine': {message}")
    assert caught.value.__cause__ is not None


def test_errors_are_value_errors():
    assert issubclass(TaskError, ValueError)
    assert issubclass(IdxError, ValueError)
