"""Runs in evalscope's environment: writes a small data folder for every task, in the form of the real one.

`python evalscope_data.py FOLDER`. Texts and images are ours; every second question of a choice is answered by A.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas
from datasets import Dataset, Image
from PIL import Image as Pillow
from PIL import ImageDraw

TOO_LONG = "This one is too long for the context."
NONE = (None,) * 7


def picture(text: str) -> dict[str, Any]:
    image = Pillow.new("RGB", (96, 24), "white")
    ImageDraw.Draw(image).text((4, 6), text, fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def folder_of(
    folder: Path, parts: dict[tuple[str, str], list[dict[str, Any]]], images: tuple[str, ...] = ()
) -> None:
    """A data set as hubs hold it: parquet files and a README that names configurations and splits."""
    configs: dict[str, list[dict[str, str]]] = {}
    for number, ((config, split), rows) in enumerate(parts.items()):
        table = Dataset.from_list(rows)
        for column in images:
            if column in table.column_names:
                table = table.cast_column(column, Image())
        path = f"data/part{number}.parquet"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / path)
        configs.setdefault(config, []).append({"split": split, "path": path})
    listed = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")
    # Some mirrors have this file; evalscope deletes it from the folder it reads.
    (folder / "dataset_infos.json").write_text("{}")


def right(number: int) -> str:
    return "A" if number % 2 == 0 else "B"


def numbered(prefix: str) -> dict[str, Any]:
    """image_1 … image_7 of one picture."""
    return {f"image_{n}": picture(prefix) if n == 1 else None for n in range(1, 8)}


def mmmu(folder: Path) -> None:
    def row(subject: str, number: int, kind: str, tail: str = "") -> dict[str, Any]:
        return {
            "id": f"validation_{subject}_{number}",
            "question": f"<image 1> Which sign is it, number {number}?{tail}",
            "options": "['left', 'right', 'up', 'down']" if kind == "multiple-choice" else "[]",
            "explanation": "",
            "img_type": "['Signs']",
            "answer": right(number) if kind == "multiple-choice" else "7",
            "topic_difficulty": "Easy",
            "question_type": kind,
            "subfield": subject,
            **numbered(f"{subject[:3]} {number}"),
        }

    art = [row("Art", n, "multiple-choice") for n in range(4)]
    art.append(row("Art", 4, "multiple-choice", f" {TOO_LONG}"))
    folder_of(
        folder,
        {
            ("Art", "validation"): art,
            ("Math", "validation"): [row("Math", n, "open") for n in range(2)],
        },
        tuple(f"image_{n}" for n in range(1, 8)),
    )


def cmmmu(folder: Path) -> None:
    def row(number: int, kind: str, answer: str) -> dict[str, Any]:
        return {
            "id": number,
            "type": kind,
            **dict.fromkeys(("source_type", "analysis", "distribution", "difficulty_level"), ""),
            "subcategory": "会计",
            "category": "商业",
            "subfield": "['']",
            "img_type": "['图']",
            "question": f'<img="{number}.png">图中是第{number}个什么？',
            **{f"option{n}": word for n, word in enumerate("左右上下", start=1)},
            "answer": answer,
            **{f"image_{n}": picture(f"C {number}") if n == 1 else None for n in range(1, 6)},
            **{f"image_{n}_filename": f"{number}.png" if n == 1 else "" for n in range(1, 6)},
        }

    rows = [row(n, "选择", right(n)) for n in range(4)]
    rows += [row(4, "判断", "对"), row(5, "填空", "7")]
    folder_of(folder, {("default", "val"): rows}, tuple(f"image_{n}" for n in range(1, 6)))


def mmmu_pro(folder: Path) -> None:
    def row(number: int) -> dict[str, Any]:
        return {
            "id": f"test_Art_{number}",
            "question": f"<image 1> Which sign is it, number {number}?",
            "options": str([f"word {n}" for n in range(10)]),
            "explanation": "",
            "img_type": "['Signs']",
            "answer": right(number),
            "topic_difficulty": "Easy",
            "subject": "Art",
        }

    standard = [{**row(n), **numbered(f"P {n}")} for n in range(3)]
    vision = [
        {
            "id": f"test_Art_{n}",
            "options": str([f"word {o}" for o in range(10)]),
            "image": picture(f"V {n}"),
            "answer": right(n),
            "subject": "Art",
        }
        for n in range(3)
    ]
    images = ("image", *(f"image_{n}" for n in range(1, 8)))
    parts = {("standard (10 options)", "test"): standard, ("vision", "test"): vision}
    folder_of(folder, parts, images)


def ocr_bench(folder: Path) -> None:
    rows = [
        {
            "dataset": "HME100k" if n == 2 else "signs",
            "question": f"what is written in the image, number {n}?",
            "question_type": "Regular Text Recognition",
            "answer": ["FLAGOS" if n % 2 == 0 else "FLAGSHIP"],
            "image": picture("FLAGOS"),
        }
        for n in range(4)
    ]
    folder_of(folder, {("default", "test"): rows}, ("image",))


def math_vision(folder: Path) -> None:
    rows = [
        {
            "id": str(n),
            "question": f"<image1> How many, number {n}?",
            "options": ["left", "right"] if n < 3 else [],
            "image": f"images/{n}.jpg",
            "decoded_image": picture(f"M {n}"),
            "answer": right(n) if n < 3 else "7" if n == 3 else "8",
            "solution": None,
            "level": 1 + n % 2,
            "subject": "counting",
        }
        for n in range(5)
    ]
    folder_of(folder, {("default", "test"): rows}, ("decoded_image",))


def blink(folder: Path) -> None:
    def row(number: int) -> dict[str, Any]:
        return {
            "idx": f"val_Counting_{number}",
            "question": "How many?",
            "prompt": f"How many, number {number}?\nSelect from: (A) 1 (B) 2",
            "choices": ["1", "2"],
            "answer": f"({right(number)})",
            **{f"image_{n}": picture(f"K {number // 2}") if n == 1 else None for n in range(1, 5)},
        }

    rows = [row(n) for n in range(4)]
    folder_of(folder, {("Counting", "val"): rows}, tuple(f"image_{n}" for n in range(1, 5)))


def mmlu_pro(folder: Path) -> None:
    def row(number: int) -> dict[str, Any]:
        return {
            "question_id": number,
            "question": f"Which word, number {number}?",
            "options": [f"word {n}" for n in range(10)],
            "answer": right(number),
            "answer_index": 0,
            "cot_content": "A: Let's think. The answer is (A).",
            "category": "math",
            "src": "ours",
        }

    parts = {
        ("default", "test"): [row(n) for n in range(3)],
        ("default", "validation"): [row(n) for n in range(100, 105)],
    }
    folder_of(folder, parts)


def gpqa_diamond(folder: Path) -> None:
    rows = [
        {
            "Question": f"Which word, number {n}?",
            "Correct Answer": "right",
            **{f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)},
        }
        for n in range(4)
    ]
    folder_of(folder, {("default", "train"): rows})


def cii_bench(folder: Path) -> None:
    rows = [
        {
            "id": n,
            "question": f"图中第{n}个是什么？",
            **{f"option{o}": f"选{o}" for o in range(1, 7)},
            "answer": right(n),
            "image": picture(f"I {n}"),
        }
        for n in range(3)
    ]
    (folder / "data").mkdir(parents=True)
    pandas.DataFrame(rows).to_parquet(folder / "data" / "test-00000-of-00001.parquet")


def general_mcq(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [
        {"question": f"Which word, number {n}?", "A": "left", "B": "right", "answer": right(n)}
        for n in range(3)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "default_val.jsonl").write_text(text)


TASKS = (
    blink,
    cii_bench,
    cmmmu,
    general_mcq,
    gpqa_diamond,
    math_vision,
    mmlu_pro,
    mmmu,
    mmmu_pro,
    ocr_bench,
)

if __name__ == "__main__":
    for make in TASKS:
        make(Path(sys.argv[1]) / make.__name__)
