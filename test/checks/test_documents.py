"""Documents stay true where a machine can tell: links lead somewhere, quoted code is the code, and every command of the
README exists. A quote is a fenced block behind the line `<!-- quote PATH -->`."""

import re

import pytest

from repository import ROOT, files, text

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
QUOTE = re.compile(r"<!-- quote (\S+) -->\n+```\w*\n(.*?)```", re.DOTALL)
DOCUMENTS = [path for path in files() if path.suffix == ".md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    targets = [target for target in LINK.findall(text(document)) if "://" not in target]
    absent = [target for target in targets if not (ROOT / document.parent / target).exists()]
    assert not absent


def test_quoted_code_is_the_code():
    quotes = [(document, path, block) for document in DOCUMENTS for path, block in QUOTE.findall(text(document))]
    assert quotes, "expects at least docs/adding-an-op.md to quote code"
    for document, path, block in quotes:
        assert block in text(path), f"{document} quotes text that {path} does not contain:\n{block}"


def test_the_readme_shows_verbs_that_exist():
    verbs = set(re.findall(r"`\./dev (\w+)", text("README.md"))) - {"help"}
    assert verbs and all(re.search(rf"^  {verb}\b.*\)", text("dev"), re.MULTILINE) for verb in verbs)
