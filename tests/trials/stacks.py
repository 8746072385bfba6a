"""What the planted-fault trial puts before the gate: wrong operators, and variants in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.project import Project
from tests.projects import ROOT, Changes, one_cell

Kind = Literal["gross", "subtle", "legitimate"]
REFERENCE = "float32"
PLANTED = "planted"
LIBRARY = ROOT / "tests/planted/library.py"
LIMITS = one_cell(Project(ROOT, ROOT / "matrix.yaml"), "cpu", "smollm2").gate.logits
MOUNTED = "/opt/flagrelease/planted"  # on the image's Python path


@dataclass(frozen=True, kw_only=True)
class Case:
    """One candidate. Unless it has a stack of its own it is the planted one, with this fault."""

    name: str
    kind: Kind
    says: str
    fault: str = ""  # of tests/planted/library.py
    stack: str = PLANTED


def _fault(kind: Kind, name: str, says: str) -> Case:
    return Case(name=name, kind=kind, says=says, fault=name)


def _variant(name: str, says: str) -> Case:
    return Case(name=name, kind="legitimate", says=says, stack=name)


# All on one server, whose operators are switched in between; NaN last, for it stays in the caches.
ON_THE_PLANTED_STACK = (
    Case(name="correct_operators", kind="legitimate", says="every operator replaced, rightly"),
    _fault("gross", "gelu_for_silu", "GELU where the model has SiLU"),
    _fault("gross", "rope_base_off", "rotary angles of base 10,000 for 100,000"),
    _fault(
        "gross",
        "garbage_above_batch_4",
        "the attention of other tokens when more than 4 requests run together",
    ),
    _fault("subtle", "attention_scale_off", "attention scaled by 0.95"),
    _fault("subtle", "rms_norm_eps_off", "eps 1e-3 for 1e-5 in every RMSNorm"),
    _fault("subtle", "last_of_k_dropped", "the last 32 of K dropped in one down projection"),
    _fault("gross", "nan_now_and_then", "a NaN in every 500th result of SiLU"),
)
VARIANTS = (
    _variant("bfloat16", "bfloat16 for float32"),
    _variant("small_batches", "at most 8 requests and 512 tokens in a batch"),
    _variant("one_thread", "one core fewer"),
)
CASES = (*ON_THE_PLANTED_STACK, *VARIANTS)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stack as matrix.yaml would hold it."""

    dtype: str = "float32"
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, Any] | None = None

    def value(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "title": {"en": name, "zh": name},
            "serve": {"dtype": self.dtype, **self.serve},
            "env": dict(self.env),
        }
        return found | ({"operators": dict(self.operators)} if self.operators else {})


BLOCKS = {
    PLANTED: Block(
        env={"VLLM_SERVER_DEV_MODE": "1"},  # only then vLLM offers /collective_rpc
        operators={"library": "planted.library"},
    ),
    "small_batches": Block(serve={"max_num_seqs": 8, "max_num_batched_tokens": 512}),
    "one_thread": Block(env={"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}),
}


def changes(blocks: Mapping[str, Block] = BLOCKS) -> Changes:
    """The committed matrix with the stacks added and the library's folder mounted."""
    mounted: dict[tuple[str, ...], Any] = {
        ("chips", "cpu", "run", "volumes"): [f"{LIBRARY.parent}:{MOUNTED}:ro"]
    }
    return mounted | {
        ("chips", "cpu", "stacks", name): block.value(name) for name, block in blocks.items()
    }
