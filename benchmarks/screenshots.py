"""`python -m benchmarks.screenshots`: docs/matrix.png and docs/card.png, as a browser shows the matrix page and a card.

Needs Debian's chromium and fonts-noto-cjk. A card is Markdown: hubs make HTML of it, and so does this, plainly.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

from pipeline.cards.blocks import without_front_matter

ROOT = Path(__file__).parents[1]
CARD = ROOT / "records/2026.11.24.101/cpu/smollm2/card.en.md"
STYLE = """
body { max-width: 980px; margin: 24px auto; padding: 0 24px; font: 15px/1.5 system-ui, sans-serif; color: #1f2328; }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: 6px; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 12px 0; }
th, td { border: 1px solid #d1d9e0; padding: 5px 12px; text-align: left; }
tr:nth-child(2n) { background: #f6f8fa; }
code { background: #eff1f3; padding: 1px 5px; border-radius: 5px; font-size: 85%; }
pre { background: #f6f8fa; padding: 14px; border-radius: 6px; overflow-x: auto; }
pre code { background: none; padding: 0; }
blockquote { margin: 0; padding: 0 14px; border-left: 4px solid #d1d9e0; color: #59636e; }
a { color: #0969da; text-decoration: none; }
"""


def shoot(page: Path, image: Path, width: int, height: int) -> None:
    chromium = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars"]
    size, to = f"--window-size={width},{height}", f"--screenshot={image}"
    with tempfile.TemporaryDirectory() as profile:
        words = [*chromium, f"--user-data-dir={profile}", size, to, page.as_uri()]
        subprocess.run(words, check=True, timeout=120, stderr=subprocess.DEVNULL)


def card_html(card: Path) -> str:
    body = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(without_front_matter(card.read_text("utf-8")))
    )
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}"


if __name__ == "__main__":
    shoot(ROOT / "docs/matrix.html", ROOT / "docs/matrix.png", 1500, 1000)
    page = CARD.with_name("card.html")  # beside the card, for its plot
    page.write_text(card_html(CARD), "utf-8")
    shoot(page, ROOT / "docs/card.png", 1030, 1180)
    page.unlink()
