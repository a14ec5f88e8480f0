"""Read the documentation as the tests of it do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PAGES += sorted((ROOT / "examples").glob("*/README.md"))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table that has this head."""
    _, _, below = page.partition(f"\n{head}\n")
    rows = below.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@dataclass(frozen=True)
class Command:
    """A line of a console block, and what it prints; `…` matches anything."""

    line: str
    output: str

    def prints(self, text: str) -> bool:
        """Return whether the text is what the block shows."""
        shown = ".*".join(re.escape(part) for part in self.output.split("…"))
        return re.fullmatch(shown, text, re.DOTALL) is not None


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's console blocks in their order."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield Command(line, output)
