"""Every page of the documentation that is made and not written: `python -m tests.docs_pages` names those that are out
of date, with `--write` they are written, and those that nothing makes any more are removed."""

import argparse
import re
import sys
from pathlib import Path

import yaml

from tests import providers_page, reference_pages

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FOLDERS = ("providers", "reference")
"""What is in these is made, all of it."""


def pages():
    """The text of each made page by its path under docs/."""
    made = {"providers.md": providers_page.page(), **providers_page.pages(), **reference_pages.pages()}
    return {**made, "llms.txt": llms(made)}


def nav(entries=None, above=()):
    """The pages of the site in their order: the titles above each, its own, and its path under docs/."""
    if entries is None:
        entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    for entry in entries:
        ((title, what),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
        if isinstance(what, list):
            yield from nav(what, (*above, title))
        else:
            yield above, title, what


def llms(made):
    """The list of all pages for programs that read (llmstxt.org): a line a page, with its first sentence."""
    lines = ["# polyvox", "", f"> {first_sentence((ROOT / 'README.md').read_text(encoding='utf-8'))}"]
    last = None
    for above, title, path in nav():
        if above != last:
            lines += ["", f"## {' / '.join(above) or 'Pages'}", ""]
            last = above
        text = made.get(path) or (DOCS / path).read_text(encoding="utf-8")
        lines.append(f"- [{title or heading(text)}]({path}): {first_sentence(text)}")
    return "\n".join(lines) + "\n"


def heading(text):
    return re.search(r"^# (.*)$", text, re.MULTILINE)[1]


def first_sentence(text):
    """The first sentence of the first paragraph of words, without links."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if paragraph.strip() and paragraph.strip()[0] not in "#|*<$-":
            words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=[.?!]) ", words)[0].rstrip(":")
    return heading(text)


def stale(made):
    """Paths under docs/ that are not as they were made."""
    there = {path.relative_to(DOCS).as_posix() for folder in FOLDERS for path in (DOCS / folder).glob("*.md")}
    wrong = [path for path, text in made.items() if not (DOCS / path).is_file() or read(path) != text]
    return sorted({*wrong, *(there - set(made))})


def read(path):
    return (DOCS / path).read_text(encoding="utf-8")


def main():
    """Name what is out of date, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    wanted, made = parser.parse_args(), pages()
    wrong = stale(made)
    for path in wrong:
        sys.stdout.write(f"{path}\n")
        if wanted.write and path in made:
            (DOCS / path).parent.mkdir(exist_ok=True)
            (DOCS / path).write_text(made[path], encoding="utf-8")
        elif wanted.write:
            (DOCS / path).unlink()
    return 1 if wrong and not wanted.write else 0


if __name__ == "__main__":
    sys.exit(main())
