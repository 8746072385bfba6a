"""Runs inside evalscope's own environment, not in ours: `evalscope_driver.py list|run TASK`.

`list` writes `items` of the task as JSON lines: what will be asked, by key, without any text. `run` asks it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from evalscope.api.registry import get_benchmark
from evalscope.benchmarks.cmmmu import utils as cmmmu_utils
from evalscope.config import parse_task_config
from evalscope.run import run_task

CII_BENCH_OPTIONS = 6


class NoLuck:
    """CMMMU's rules guess at random where no answer was found. Such an answer is wrong here, in every stack."""

    @staticmethod
    def choice(_: object) -> str:
        return ""


def main(mode: str, task_file: Path) -> None:
    task = json.loads(task_file.read_text("utf-8"))
    cmmmu_utils.random = NoLuck
    if task["shape"] == "cii_bench":
        reshape_cii_bench(Path(task["data"]))
    if mode == "list":
        with Path(task["items"]).open("w", encoding="utf-8") as file:
            for item in items(task["config"]):
                file.write(json.dumps(item) + "\n")
    else:
        run_task(task["config"])


def items(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every sample of every subset, as evalscope loads it."""
    (name,) = config["datasets"]
    datasets = get_benchmark(name, parse_task_config(config)).load_dataset()
    return [
        {
            "subset": subset,
            "sample_id": sample.id,
            "choices": len(sample.choices or ()),
            **fingerprint(sample.input),
        }
        for subset, samples in datasets.items()
        for sample in samples
    ]


def fingerprint(messages: list[Any]) -> dict[str, str]:
    """Hashes of the prompt with its images, and of the images alone ("" where there are none)."""
    parts: list[list[str]] = []
    images: list[str] = []
    for message in messages:
        content = message.content
        for part in [content] if isinstance(content, str) else content:
            image = getattr(part, "image", None)
            text = part if isinstance(part, str) else getattr(part, "text", "")
            if image is not None:
                images.append(image_hash(image))
            parts.append([message.role, image_hash(image) if image is not None else text])
    return {"prompt_sha256": digest(parts), "images_sha256": digest(images) if images else ""}


def image_hash(image: str) -> str:
    path = Path(image)
    is_file = not image.startswith("data:") and path.is_file()
    return hashlib.sha256(path.read_bytes() if is_file else image.encode()).hexdigest()


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def reshape_cii_bench(folder: Path) -> None:
    """CII-Bench as its authors publish it, into what general_vmcq reads: `default_val.parquet`."""
    import pandas

    parts = [pandas.read_parquet(path) for path in sorted(folder.rglob("test*.parquet"))]
    if not parts:
        raise SystemExit(f"{folder}: expected test*.parquet of CII-Bench, found none")
    table = pandas.concat(parts)
    columns = [f"option{number}" for number in range(1, CII_BENCH_OPTIONS + 1)]
    absent = sorted({"question", "answer", "image", *columns} - set(table.columns))
    if absent:
        raise SystemExit(f"{folder}: CII-Bench without the columns {', '.join(absent)}")
    shaped = pandas.DataFrame(
        {
            "question": "<image 1>\n" + table["question"],
            "options": table[columns].values.tolist(),
            "answer": table["answer"],
            "image_1": table["image"],
        }
    )
    shaped.to_parquet(folder / "default_val.parquet")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
