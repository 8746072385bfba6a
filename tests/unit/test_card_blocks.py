"""Code blocks of a card."""

from __future__ import annotations

from pipeline.cards.blocks import Block, blocks_sha256, code_blocks
from pipeline.stages.card import CARDS, card
from tests.projects import committed
from tests.records import cpu_record

TEMPLATES = committed().templates
CARD = """\
---
license: mit
---

# Title

```bash
echo '```'
```

## Serve

1. First:

   ```python
   print(1)
   ```

~~~
no language
~~~
"""


def test_blocks_come_in_order_with_language_section_and_line() -> None:
    assert code_blocks(CARD) == (
        Block(language="bash", text="echo '```'\n", section="Title", line=7),
        Block(language="python", text="print(1)\n", section="Serve", line=15),
        Block(language="", text="no language\n", section="Serve", line=19),
    )


def test_a_card_without_front_matter_has_its_own_line_numbers() -> None:
    body = CARD.partition("\n---\n")[2]
    assert [block.line for block in code_blocks(body)] == [4, 12, 16]


def test_the_hash_is_of_commands_and_their_order_alone() -> None:
    blocks = code_blocks(CARD)
    reworded = code_blocks("# Other words\n" + CARD.partition("\n---\n")[2])
    assert blocks_sha256(reworded) == blocks_sha256(blocks)
    assert blocks_sha256(blocks[::-1]) != blocks_sha256(blocks)
    assert blocks_sha256(code_blocks(CARD.replace("print(1)", "print(2)"))) != blocks_sha256(blocks)


def test_both_languages_of_a_card_have_the_same_hash() -> None:
    files = card(cpu_record(), TEMPLATES)
    english, chinese = (text.decode() for text in (files[name] for name in CARDS))
    assert len(code_blocks(english)) > 5
    assert blocks_sha256(code_blocks(english)) == blocks_sha256(code_blocks(chinese))
