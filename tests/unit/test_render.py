"""Rendered files: what is committed, what a cell renders to, and what drift looks like."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cells import cells
from pipeline.errors import UsageError
from pipeline.matrix_values import ServeValue
from pipeline.stages.render import (
    SCHEMA_FILE,
    drift,
    flagscale_arguments,
    render_all,
    render_chip,
    render_model,
    render_result,
    stale,
    write,
)
from pipeline.templates import Templates
from tests.projects import ROOT, committed, one_cell, toy_project

PROJECT = committed()


def rendered(chip: str, model: str) -> dict[str, bytes]:
    cell = one_cell(PROJECT, chip, model)
    return {**render_chip(cell, PROJECT.templates), **render_model(cell, PROJECT.templates)}


def parsed(files: dict[str, bytes], path: str) -> Any:
    return yaml.safe_load(files[path])


def toy_files(folder: Path, *edits: tuple[str, str]) -> dict[str, bytes]:
    project = toy_project(folder, *edits)
    return render_all(project.cells, project.templates)


def test_committed_files_equal_a_fresh_render() -> None:
    files = render_all(cells(PROJECT.matrix), PROJECT.templates)
    assert drift(ROOT, files, whole_matrix=True) == "", "run nox -s render"


def test_a_toy_model_layer_renders_to_this(tmp_path: Path) -> None:
    files = toy_files(tmp_path)
    folder = "images/abacus/poet"
    assert [path for path in sorted(files) if path.startswith(folder)] == [
        f"{folder}/Dockerfile",
        f"{folder}/conf/serve.slow.yaml",
        f"{folder}/conf/serve.yaml",
        f"{folder}/conf/serve/fast.yaml",
        f"{folder}/conf/serve/slow.yaml",
    ]
    assert files[f"{folder}/Dockerfile"].decode().splitlines()[-5:] == [
        "ARG RUNTIME",
        "",
        "FROM ${RUNTIME}",
        "COPY conf/ /opt/venv/lib/python3.11/site-packages/flag_scale/examples/poet/conf/",
        "EXPOSE 9010",
    ]
    assert parsed(files, f"{folder}/conf/serve.yaml") == {
        "defaults": ["_self_", {"serve": "fast"}],
        "experiment": {
            "exp_name": "poet_fast",
            "exp_dir": "/var/lib/flagscale/${experiment.exp_name}",
            "task": {"type": "serve"},
            "runner": {"hostfile": None, "deploy": {"use_fs_serve": False}},
            "envs": {
                "BEADS": "12",
                "FAST": "1",
                "FLAGRELEASE_OPERATORS": "bead_operators",
                "FLAGRELEASE_OPERATORS_EVIDENCE": "/var/lib/flagscale/poet_fast/operators",
                "VLLM_FL_FLAGOS_BLACKLIST": "gelu,softmax",
            },
        },
        "action": "run",
        "hydra": {"run": {"dir": "${experiment.exp_dir}/hydra"}},
    }
    assert parsed(files, f"{folder}/conf/serve/fast.yaml") == [
        {
            "serve_id": "vllm_model",
            "engine": "vllm",
            "engine_args": {
                "model": "/share/poet",
                "served_model_name": "poet-abacus-flagos",
                "host": "0.0.0.0",
                "port": 9010,
                "dtype": "bfloat16",
                "enforce_eager": True,
                "max_model_len": 2048,
                "max_num_seqs": 4,
            },
        }
    ]


def test_a_stack_without_variables_renders_an_empty_mapping(tmp_path: Path) -> None:
    experiment = parsed(toy_files(tmp_path), "images/loom/poet/conf/serve.yaml")["experiment"]
    assert experiment["envs"] == {}


def test_words_that_yaml_would_read_as_something_else_stay_words(tmp_path: Path) -> None:
    tricky = '{FAST: "yes", A: "1e3", B: "null", C: "a: b # c", D: "${x}"}'
    files = toy_files(tmp_path, ('env: {FAST: "1"}', f"env: {tricky}"))
    envs = parsed(files, "images/abacus/poet/conf/serve.yaml")["experiment"]["envs"]
    assert {key: envs[key] for key in "ABCD"} == {
        "A": "1e3",
        "B": "null",
        "C": "a: b # c",
        "D": "${x}",
    }
    assert envs["FAST"] == "yes"


def test_step3_on_nvidia_is_served_as_upstream_serves_it() -> None:
    """FlagScale PR 734, by facts/flagos-stack.md, section 2.8."""
    files = rendered("nvidia", "step3")
    (task,) = parsed(files, "images/nvidia/step3/conf/serve/flagos.yaml")
    arguments = task["engine_args"]
    assert (task["serve_id"], task["engine"]) == ("vllm_model", "vllm")
    assert json.loads(arguments.pop("limit_mm_per_prompt")) == {"image": 8}
    assert arguments.pop("worker_cls").startswith("flagrelease_serving.")
    assert arguments == {
        "model": "/share/step3",
        "served_model_name": "step3-nvidia-flagos",
        "host": "0.0.0.0",
        "port": 9010,
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 1,
        "gpu_memory_utilization": 0.95,
        "tool_call_parser": "step3",
        "reasoning_parser": "step3",
        "trust_remote_code": True,
        "enable_chunked_prefill": True,
        "enable_auto_tool_choice": True,
        # ours beyond upstream's file
        "enforce_eager": True,
    }
    experiment = parsed(files, "images/nvidia/step3/conf/serve.yaml")["experiment"]
    assert experiment["envs"] == {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "FLAGGEMS_CACHE_DIR": "/var/cache/flagos/flaggems_cache_dir",
        "FLAGRELEASE_OPERATORS": "flagrelease_serving.flaggems",
        "FLAGRELEASE_OPERATORS_EVIDENCE": "/var/lib/flagscale/step3_flagos/operators",
        "TRITON_CACHE_DIR": "/var/cache/flagos/triton_cache_dir",
        "USE_FLAGGEMS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    assert experiment["runner"] == {"hostfile": None, "deploy": {"use_fs_serve": False}}


@pytest.mark.parametrize("model", ["step3", "smollm2"])
def test_the_reference_on_nvidia_has_no_worker_class_and_no_flaggems_variable(model: str) -> None:
    files = rendered("nvidia", model)
    reference = PROJECT.matrix.chips["nvidia"].reference
    (task,) = parsed(files, f"images/nvidia/{model}/conf/serve/{reference}.yaml")
    experiment = parsed(files, f"images/nvidia/{model}/conf/serve.{reference}.yaml")["experiment"]
    assert "worker_cls" not in task["engine_args"]
    assert experiment["envs"] == {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({"enable_prefix_caching": False}, {"no_enable_prefix_caching": True}),
        ({"limit_mm_per_prompt": {"image": 8}}, {"limit_mm_per_prompt": '{"image": 8}'}),
        ({"cudagraph_sizes": [1, 2]}, {"cudagraph_sizes": "[1, 2]"}),
        ({"a": True, "b": 0, "c": 0.95, "d": "x"}, {"a": True, "b": 0, "c": 0.95, "d": "x"}),
    ],
)
def test_arguments_are_passed_in_the_forms_that_flagscale_leaves_unharmed(
    given: dict[str, ServeValue], passed: dict[str, ServeValue]
) -> None:
    assert flagscale_arguments(given) == passed


def test_zero_is_not_taken_for_false() -> None:
    assert flagscale_arguments({"seed": 0}) == {"seed": 0}


def test_an_undefined_variable_names_its_template(tmp_path: Path) -> None:
    (tmp_path / "model.Dockerfile.j2").write_text("# {{ banner }}\nFROM {{ model.colour }}\n")
    with pytest.raises(UsageError) as caught:
        Templates(tmp_path).render("model.Dockerfile.j2", model=PROJECT.matrix.models["step3"])
    assert str(caught.value) == (
        f"{tmp_path.name}/model.Dockerfile.j2: template variable:"
        " 'pipeline.model.Model object' has no attribute 'colour'\n"
        "hint: give it in matrix.yaml or take it out of the template"
    )


def test_a_broken_template_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("one\n{% if %}\n")
    with pytest.raises(UsageError) as caught:
        Templates(tmp_path).render("a.j2")
    assert str(caught.value).startswith(
        f"{tmp_path}/a.j2:2: template error: Expected an expression"
    )


def test_a_family_without_a_template_is_told(tmp_path: Path) -> None:
    project = toy_project(tmp_path, ("family: venv\n    base: {", "family: conda\n    base: {"))
    with pytest.raises(UsageError) as caught:
        render_chip(one_cell(project, "abacus", "poet"), project.templates)
    assert str(caught.value) == (
        f"{tmp_path}/templates: there is no template runtime.conda.Dockerfile.j2\n"
        "hint: a chip's `family` names its runtime template"
    )


def test_rendering_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    swapped = ("{enforce_eager: true, dtype: float16}", "{dtype: float16, enforce_eager: true}")
    assert toy_files(tmp_path, swapped) == toy_files(tmp_path)


def test_every_rendered_file_says_what_it_is_rendered_from(tmp_path: Path) -> None:
    silent = {
        path
        for path, content in toy_files(tmp_path).items()
        if not content.startswith(b"# Rendered by `nox -s render` from matrix.yaml and templates/")
    }
    assert silent == {SCHEMA_FILE}


def test_a_hand_edit_shows_as_a_diff_and_the_next_write_takes_it_back(tmp_path: Path) -> None:
    files = toy_files(tmp_path)
    write(tmp_path, files, whole_matrix=True)
    assert drift(tmp_path, files, whole_matrix=True) == ""
    path = "images/loom/poet/Dockerfile"
    edited = files[path].replace(b"EXPOSE 9010", b"EXPOSE 80")
    (tmp_path / path).write_bytes(edited)
    difference = drift(tmp_path, files, whole_matrix=True)
    assert difference.startswith(f"--- committed/{path}\n+++ rendered/{path}\n@@ ")
    assert difference.endswith("\n-EXPOSE 80\n+EXPOSE 9010\n")
    assert write(tmp_path, files, whole_matrix=True) == (path,)
    assert (tmp_path / path).read_bytes() == files[path]


def test_a_line_without_an_end_does_not_run_into_the_next_one(tmp_path: Path) -> None:
    files = {"images/a/Dockerfile": b"FROM a\n", "images/b/Dockerfile": b"FROM b\n"}
    write(tmp_path, files, whole_matrix=True)
    (tmp_path / "images/a/Dockerfile").write_bytes(b"FROM x")
    (tmp_path / "images/b/Dockerfile").write_bytes(b"FROM y")
    assert "\n-FROM x\n\\ No newline at end of file\n+FROM a\n" in drift(
        tmp_path, files, whole_matrix=True
    )


def test_files_that_nothing_renders_any_more_go_when_the_whole_matrix_is_rendered(
    tmp_path: Path,
) -> None:
    write(tmp_path, toy_files(tmp_path), whole_matrix=True)
    for kept in ("images/serving/hook.py", "images/loom/requirements.lock"):
        (tmp_path / kept).write_text("ours")
    smaller = toy_files(
        tmp_path, ("why: no loom is that large}", "why: x}\n    - {cell: loom/poet, why: x}")
    )
    gone = [path for path in toy_files(tmp_path) if path.startswith("images/loom/")]
    assert stale(tmp_path, smaller) == tuple(sorted(gone))
    assert f"+++ rendered/{gone[0]}" in drift(tmp_path, smaller, whole_matrix=True)
    assert write(tmp_path, smaller, whole_matrix=True) == tuple(sorted(gone))
    left = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "images").rglob("*.*")}
    assert {"images/serving/hook.py", "images/loom/requirements.lock"} <= left
    assert not any(path in left for path in gone)


def test_rendering_some_cells_leaves_the_files_of_others_alone(tmp_path: Path) -> None:
    files = toy_files(tmp_path)
    write(tmp_path, files, whole_matrix=True)
    cell = one_cell(toy_project(tmp_path), "loom", "poet")
    some = render_all([cell], toy_project(tmp_path).templates)
    assert drift(tmp_path, some, whole_matrix=False) == ""
    assert write(tmp_path, some, whole_matrix=False) == ()
    assert drift(tmp_path, files, whole_matrix=True) == ""


def test_writing_leaves_files_that_did_not_change_untouched(tmp_path: Path) -> None:
    files = toy_files(tmp_path)
    write(tmp_path, files, whole_matrix=True)
    path = tmp_path / "images/loom/poet/Dockerfile"
    os.utime(path, (1, 1))
    write(tmp_path, files, whole_matrix=True)
    assert path.stat().st_mtime == 1


def test_the_result_lists_every_file_with_its_hash() -> None:
    (file,) = render_result({"images/a/Dockerfile": b"FROM scratch\n"}).files
    assert (file.path, file.size_bytes) == ("images/a/Dockerfile", 13)
    assert file.sha256 == "bb57c7da220a8753d7bdabac0d3afdb6efa742e4c736c5bc93ab40dfd5e23b9b"
