"""A chip and a model are added by data alone: two blocks in matrix.yaml, and all is rendered, named and planned."""

from __future__ import annotations

import re

import pytest
import yaml

from pipeline.cells import exclusions
from pipeline.doubts import doubts
from pipeline.names import names
from pipeline.plan import plan
from pipeline.project import Project
from pipeline.run_arguments import command_line
from pipeline.stages.render import render_all
from tests.new_chip import grown
from tests.projects import ROOT, one_cell


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return grown(tmp_path_factory.mktemp("grown"))


def test_the_new_chip_has_every_model_and_the_new_model_every_chip(project: Project) -> None:
    cells = {cell.id for cell in project.cells}
    models, chips = project.matrix.models, project.matrix.chips
    excluded = exclusions(project.matrix)
    assert {f"acme/{model}" for model in models} <= cells | excluded.keys()
    assert {f"{chip}/atlas-70b" for chip in chips} <= cells | excluded.keys()
    assert excluded["acme/step3"] == (
        "642 GB of bfloat16 weights take 32 cards, 4 nodes: serving over several nodes is not built"
    )


def test_its_image_is_rendered_from_its_block(project: Project) -> None:
    files = render_all([one_cell(project, "acme", "atlas-70b")], project.templates)
    dockerfile = files["images/acme/Dockerfile"].decode()
    for part in (
        "# The runtime of every model on Acme: AcmeKit 3.1 of the base image",
        "/host/uv venv --quiet --python 3.12 /opt/venv",
        "--requirement /build/compilers/flagtree.lock \\\n      --target /opt/compilers/flagtree",
        "--requirement /build/compilers/triton.lock \\\n      --target /opt/compilers/triton",
        "ENV PATH=/opt/venv/bin:/opt/acme/bin:$PATH",
        "PYTHONPATH=/opt/flagrelease:/opt/compilers/flagtree",
        "ACME_HOME=/opt/acme",
    ):
        assert part in dockerfile


def test_it_is_served_over_the_cards_that_hold_the_model(project: Project) -> None:
    cell = one_cell(project, "acme", "atlas-70b")
    files = render_all([cell], project.templates)
    (task,) = yaml.safe_load(files["images/acme/atlas-70b/conf/serve/flagos.yaml"])
    assert task["engine_args"] == {
        "model": "/share/atlas-70b",
        "served_model_name": "atlas-70b-acme-flagos",
        "host": "0.0.0.0",
        "port": 9010,
        "enforce_eager": True,
        "reasoning_parser": "atlas",
        "tensor_parallel_size": 8,
    }
    line = command_line(cell.run, image="image", name="flagos", command=["sleep"], volumes={})
    assert re.findall(r"--(?:device|env|runtime|group-add) \S+", line) == [
        "--runtime acme",
        "--group-add acme",
        *(f"--device /dev/acme{i}" for i in range(8)),
        "--device /dev/acme_ctl",
        "--env ACME_CARDS=0,1,2,3,4,5,6,7",
    ]


def test_its_stacks_differ_in_the_compiler(project: Project) -> None:
    cell = one_cell(project, "acme", "atlas-70b")
    assert cell.environment("native")["PYTHONPATH"].split(":")[1] == "/opt/compilers/triton"
    assert "PYTHONPATH" not in cell.environment("flagos")


def test_it_is_named_and_its_problems_are_told(project: Project) -> None:
    cell = one_cell(project, "acme", "atlas-70b")
    found = names(cell, project.matrix.targets["flagos"])
    assert (found.public, found.hub) == (
        "flagrelease-public/flagrelease_acme_atlas-70b",
        "Atlas-70B-acme-FlagOS",
    )
    assert "-tree_0.7.0.acme3.2-gems_5.3.3-" in str(found.alias)
    assert [problem.en for problem in cell.known_problems] == [
        "Fans are loud.",
        "Maps are upside down.",
    ]
    other = one_cell(project, "acme", "qwen3-4b")
    assert [problem.en for problem in other.known_problems] == ["Fans are loud."]
    assert doubts(cell) == ("FlagTree 0.7, which compiles flagos, is reported as untested",)


def test_it_is_planned_like_any_other(project: Project) -> None:
    cell = one_cell(project, "acme", "qwen3-4b")
    inputs = project.inputs(cell, project.target("local"), builder=None, node="here")
    actions = plan([cell], {cell.id: inputs}, {}, release="2026.11.24.1", until="card")
    assert {action.kind for action in actions} == {"run"}


def test_no_module_and_no_template_knows_a_vendor(project: Project) -> None:
    """NVIDIA and the CPU stand in examples of command lines, and thead is a tag of HTML; the rest is data."""
    ours = {"cpu", "nvidia", "thead"}
    vendors = "|".join(chip for chip in project.matrix.chips if chip not in ours)
    tools = "npu|mlu|gcu|musa|xpu|ptpu|txda"
    sources = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("templates/**/*.j2")]
    known = re.compile(rf"\b({vendors}|{tools})\b", re.IGNORECASE)
    assert {
        str(path.relative_to(ROOT)) for path in sources if known.search(path.read_text("utf-8"))
    } == set()
