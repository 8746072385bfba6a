"""card: the model card in two languages, from the record alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import to_jsonable_python

from pipeline.canonical import sha256_bytes
from pipeline.cards.blocks import Block, blocks_sha256, code_blocks, with_note
from pipeline.cards.facts import Measured, measured
from pipeline.cards.guide import measured_guide
from pipeline.cards.imported import imported_context
from pipeline.cards.known_numbers import known_numbers
from pipeline.cards.metadata import front_matter, measured_index
from pipeline.cards.numbers import cell_text, gigabytes, listed, points, seconds
from pipeline.cards.operators import operator_summary
from pipeline.cards.plot import differences_plot
from pipeline.cards.scores import (
    SMALL_SET_POINTS,
    data_rows,
    pooled_summary,
    pregate_summary,
    score_rows,
    verdict_summary,
)
from pipeline.cards.tables import (
    Rehearsal,
    differences,
    load_rows,
    nodes,
    other_load_rows,
    rehearsal,
    sights,
    smoke_answer,
    stage_rows,
    start_rows,
    untested_options,
)
from pipeline.cards.validator import Expected, Score, refuse_faulty
from pipeline.errors import StageRefusedError
from pipeline.imported_record import ImportedRecord
from pipeline.record import Record
from pipeline.release_index import Tombstone
from pipeline.results import CardResult, FileHash, Frozen
from pipeline.statements import ATTESTED
from pipeline.templates import Templates

CARDS = ("card.en.md", "card.zh.md")
PLOT = "differences.svg"


def card(
    record: Record,
    templates: Templates,
    withdrawn: Tombstone | None = None,
    *,
    admits_changes: bool = False,
) -> dict[str, bytes]:
    """Both cards and their picture, by file name. `withdrawn`: what was said of the image when it was taken back.

    `admits_changes`: commands that changed since they were rehearsed are printed, and say that they were not
    executed since; without it they are refused.

    Raises StageRefusedError with every fact that the record lacks, with every rule that a card breaks, or when its
    commands are not the rehearsed ones.
    """
    found = measured(record)
    values = context(found, withdrawn)
    files = _texts(values, templates)
    blocks = _blocks(files, record)
    if not _are_rehearsed(record, blocks):
        if not admits_changes:
            _refuse_other_blocks(record, blocks)
        values["rehearsal"] = rehearsal(record, blocks)
        files = _with_notes(_texts(values, templates), values, templates)
    if found.judged:
        files[PLOT] = differences_plot(found, templates)
    scores = tuple(
        Score(
            title=found.about.benchmarks[row.benchmark].title,
            reference=100 * row.reference_score,
            released=100 * row.candidate_score,
        )
        for row in found.judged
    )
    refuse_faulty(files, _expected(record, found.about.repository, scores, values))
    return files


def guide_blocks(record: Record, templates: Templates) -> tuple[Block, ...]:
    """The commands of the card, which are the same in both languages. Raises StageRefusedError as `card` does."""
    return _blocks(_texts(context(measured(record)), templates), record)


def _texts(values: Mapping[str, object], templates: Templates) -> dict[str, bytes]:
    return {name: templates.render(f"{name}.j2", **values) for name in CARDS}


def _blocks(texts: Mapping[str, bytes], record: Record) -> tuple[Block, ...]:
    first, *others = (code_blocks(texts[name].decode()) for name in CARDS)
    if any(blocks_sha256(blocks) != blocks_sha256(first) for blocks in others):
        raise StageRefusedError(
            f"the commands of {' and '.join(CARDS)} differ",
            where=record.cell,
            hint="print every command by a macro of templates/parts/card/commands.j2",
        )
    return first


def _are_rehearsed(record: Record, blocks: tuple[Block, ...]) -> bool:
    """Or nobody rehearsed any."""
    result = record.stages.rehearse.result if record.stages.rehearse else None
    return result is None or result.blocks_sha256 == blocks_sha256(blocks)


def _refuse_other_blocks(record: Record, blocks: tuple[Block, ...]) -> None:
    result = record.stages.rehearse.result if record.stages.rehearse else None
    raise StageRefusedError(
        "the commands of this card are not the rehearsed ones",
        where=record.cell,
        details=f"rehearsed: {result and result.blocks_sha256}\nprinted:   {blocks_sha256(blocks)}",
        hint=f"rehearse these: nox -s rehearse -- {record.chip} {record.model}",
    )


def _with_notes(
    files: Mapping[str, bytes], values: Mapping[str, object], templates: Templates
) -> dict[str, bytes]:
    """Below each block that was not executed as it is printed, the page says so."""
    found, noted = values["rehearsal"], dict[str, bytes]()
    for name, content in files.items():
        page, language = content.decode(), name.split(".")[1]
        blocks = code_blocks(page)
        changed = [blocks[place] for place in found.changed] if isinstance(found, Rehearsal) else []
        note = templates.render(f"parts/card/{language}/changed.j2", **values).decode().strip()
        noted[name] = with_note(page, changed, note).encode()
    return noted


def imported_card(record: ImportedRecord, templates: Templates) -> dict[str, bytes]:
    """Both cards of what somebody else published, by file name. Raises StageRefusedError with every rule they break."""
    values = imported_context(record)
    files = {name: templates.render(f"imported/{name}.j2", **values) for name in CARDS}
    scores = tuple(
        Score(title=score.title, reference=float(score.reference), released=float(score.released))
        for score in record.scores
    )
    refuse_faulty(files, _expected(record, record.repository, scores, values))
    return files


def _expected(
    record: Record | ImportedRecord,
    repository: str,
    scores: tuple[Score, ...],
    values: Mapping[str, object],
) -> Expected:
    return Expected(
        cell=record.cell,
        repository=repository,
        known=known_numbers(to_jsonable_python([record, values.get("withdrawn"), _facts(values)])),
        scores=scores,
    )


def _facts(values: Mapping[str, object]) -> list[object]:
    """What was made of the record for templates to print; not its own parts, functions and finished text."""
    return [
        value
        for value in values.values()
        if not isinstance(value, str | Frozen) and not callable(value)
    ]


def card_result(files: Mapping[str, bytes]) -> CardResult:
    return CardResult(
        files=tuple(
            FileHash(path=name, sha256=sha256_bytes(content), size_bytes=len(content))
            for name, content in sorted(files.items())
        )
    )


def context(found: Measured, withdrawn: Tombstone | None = None) -> dict[str, object]:
    """Everything that the templates may print."""
    about, facts = found.about, found.facts
    scores, loads = score_rows(found), load_rows(found)
    return {
        "record": found.record,
        "about": about,
        "identity": found.identity,
        "build": found.build,
        "image": found.image,
        "weights": found.weights,
        "facts": facts,
        "checks": found.smoke.checks,
        "accuracy": found.accuracy,
        "waiver": found.record.waiver,
        "withdrawn": withdrawn,
        "operators": operator_summary(found),
        "performance": found.performance,
        "versions": found.versions,
        "compiler": found.compiler,
        "reference": about.stacks[about.reference],
        "released": about.stacks[about.released],
        "front_matter": front_matter(measured_index(found)),
        "guide": measured_guide(found),
        "chat": about.chat,
        "scores": scores,
        "small_sets": tuple(row for row in scores if row.is_small),
        "shrunk": tuple(row for row in scores if row.margin != row.fixed_margin),
        "shrunk_below": points(about.gate.relative_below, 1),
        "verdict": verdict_summary(found),
        "pooled": pooled_summary(found),
        "pregate": pregate_summary(found),
        "plot": PLOT,
        "loads": loads,
        "ratios": sorted((row.ratio for row in loads), key=float),
        "other_loads": other_load_rows(found),
        "data": data_rows(found),
        "differences": differences(found),
        "stages": stage_rows(found.record),
        "starts": start_rows(found),
        "nodes": nodes(found.record),
        "attested": ATTESTED,
        "rehearsal": rehearsal(found.record),
        "untested_options": untested_options(found),
        "answer": smoke_answer(found),
        "sights": sights(found),
        "small_set_points": SMALL_SET_POINTS,
        "weights_bytes": sum(file.size_bytes for file in found.weights.files),
        "gigabytes": gigabytes,
        "seconds": seconds,
        "listed": listed,
        "cell_text": cell_text,
    }
