"""What the planted-fault trial puts before the gate: wrong operators, and variants in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.projects import ROOT, Changes, committed, one_cell

Kind = Literal["gross", "subtle", "legitimate"]
REFERENCE = "float32"
PLANTED = "planted"
ROUNDED = "bfloat16"
LIBRARY = ROOT / "tests/planted/library.py"
LIMITS = one_cell(committed(), "cpu", "smollm2").gate.logits
# What decides the numbers of a trial, beside the image: who asks, and how answers are compared and judged.
MEASURING = tuple(
    ROOT / "pipeline" / name
    for name in (
        "world/teacher.py",
        "world/token_lists.py",
        "world/openai_reply.py",
        "traces.py",
        "gate/divergence.py",
        "gate/logits.py",
    )
)
SERVING = tuple(sorted((ROOT / "images/serving").rglob("*.py")))
MOUNTED = "/opt/flagrelease/planted"  # on the image's Python path


@dataclass(frozen=True, kw_only=True)
class Case:
    """One candidate, asked once, and whom it is compared with."""

    name: str
    kind: Kind
    says: str
    fault: str = ""  # of tests/planted/library.py
    against: str = REFERENCE
    is_quick: bool = False  # the profile of probes
    batch: int | None = None  # another one than the profile's


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One start of an engine, and what it is asked one after the other."""

    stack: str
    name: str
    cases: tuple[Case, ...]


def _fault(kind: Kind, name: str, says: str) -> Case:
    return Case(name=name, kind=kind, says=says, fault=name)


def _variant(name: str, says: str, *, batch: int | None = None) -> Case:
    return Case(name=name, kind="legitimate", says=says, batch=batch)


def _quickly(stack: str, says: str, against: str) -> tuple[Case, ...]:
    """Nothing differs but the batches, or what the stack says: A/A."""
    return tuple(
        Case(
            name=stack,
            kind="legitimate",
            says=f"{says}, in batches of {batch}",
            against=against,
            is_quick=True,
            batch=batch,
        )
        for batch in (2, 3, 5, 7, 11)
    )


# All on one server, whose operators are switched in between; NaN last, for it stays in the caches.
FAULTS = (
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
# The first start of a stack that others are compared with answers as the reference, too.
SERVINGS = (
    Serving(
        stack=REFERENCE,
        name=REFERENCE,
        cases=(
            _variant(REFERENCE, "float32 in batches of 4", batch=4),
            _variant(REFERENCE, "float32 in batches of 8", batch=8),
            *_quickly(REFERENCE, "float32 again", REFERENCE),
        ),
    ),
    Serving(
        stack=REFERENCE,
        name="float32, started again",
        cases=_quickly(REFERENCE, "float32 of another start", REFERENCE),
    ),
    Serving(
        stack="one_thread",
        name="one_thread",
        cases=(
            _variant("one_thread", "one core fewer"),
            *_quickly("one_thread", "float32 on one core", REFERENCE),
        ),
    ),
    Serving(
        stack="small_batches",
        name="small_batches",
        cases=(_variant("small_batches", "at most 8 requests and 512 tokens in a batch"),),
    ),
    Serving(stack=PLANTED, name=PLANTED, cases=FAULTS),
    Serving(
        stack=ROUNDED,
        name=ROUNDED,
        cases=(
            _variant(ROUNDED, "bfloat16 for float32"),
            *_quickly(ROUNDED, "bfloat16 again", ROUNDED),
        ),
    ),
    Serving(
        stack="bfloat16_on_one_core",
        name="bfloat16_on_one_core",
        cases=_quickly("bfloat16_on_one_core", "bfloat16 of another start, on one core", ROUNDED),
    ),
)
CASES = tuple(case for serving in SERVINGS for case in serving.cases)


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
    "bfloat16_on_one_core": Block(dtype="bfloat16", env={"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}),
}


def changes(blocks: Mapping[str, Block] = BLOCKS) -> Changes:
    """The committed matrix with the stacks added and the library's folder mounted."""
    mounted: dict[tuple[str, ...], Any] = {
        ("chips", "cpu", "run", "volumes"): [f"{LIBRARY.parent}:{MOUNTED}:ro"]
    }
    return mounted | {
        ("chips", "cpu", "stacks", name): block.value(name) for name, block in blocks.items()
    }
