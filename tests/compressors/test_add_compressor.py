"""A compressor is one file and one line: the guide's examples are put into a copy of the package and run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "add-compressor.md").read_text(encoding="utf-8")

PROBE = """
import torch
from gradwire.compressors.base import Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme

torch.set_num_threads(1)
for name, module in {modules}:
    assert type(parse_scheme(name)).__module__ == "gradwire.compressors." + module
x = torch.randn(4, 10, 10, generator=torch.Generator().manual_seed(0))
for text in {texts}:
    scheme = parse_scheme(text)
    state, total, means = scheme.init((10, 10), 4, x), 0, 0
    for step in range(20):
        turn = Turn(0, step, "u", (0, 1, 2, 3), 4)
        ((mean, sent, state),), log = StackedDriver(4).exchange([Item(x, scheme, state, turn)])
        total, means = total + x.mean(0), means + mean
    if scheme.parts()[0].name == "ef":
        torch.testing.assert_close(means + state.elements["residual"].mean(0).view(10, 10), total)
    print(scheme)
"""


def example(title: str) -> str:
    """Return a file of the guide, with the imports that it has inside the package."""
    code = re.search(rf'^```python title="{title}"\n(.*?)^```$', GUIDE, re.MULTILINE | re.DOTALL)
    assert code is not None
    return re.sub(r"^from gradwire\.compressors\.", "from ..", code[1], flags=re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the compressors, and add the guide's files, and to the registry an import and a name for each."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "compressors", folder / "gradwire" / "compressors")
    shutil.copy(ROOT / "__init__.py", folder / "gradwire")
    package = folder / "gradwire" / "compressors"
    registry = (package / "registry.py").read_text(encoding="utf-8")
    for family, module, name in (("quantizers", "sign", "Sign"), ("sparsifiers", "largest", "Largest")):
        (package / family / f"{module}.py").write_text(example(f"{module}.py"), encoding="utf-8")
        registry = registry.replace("    for scheme in (\n", f"    for scheme in (\n        {name},\n")
        registry = registry.replace("\nfrom .base", f"\nfrom .{family}.{module} import {name}\nfrom .base", 1)
    (package / "registry.py").write_text(registry, encoding="utf-8")
    return folder


def test_a_file_and_a_line_make_a_scheme(copy):
    texts = ["sign", "ef(sign(bucket=7))", "ef(topk(density=0.2) | sign)", "largest", "ef(largest | sign)"]
    code = PROBE.format(modules=[("sign", "quantizers.sign"), ("largest", "sparsifiers.largest")], texts=texts)
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=copy, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(texts)
