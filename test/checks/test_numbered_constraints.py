"""Every constraint `(Cn)` in the description of an op is enforced and seen to be enforced: the verifier names it
`<op>_cN`, and a test function `@<op>_cN` breaks it. Nothing else may carry such a name."""

import re
from pathlib import Path

import pytest

from repository import files, text

OP = re.compile(r'^def\s+\w+\s*:\s*\w*Op\w*<"([\w.]+)"', re.MULTILINE)
DEFINITION = re.compile(r"^(?:def|class|multiclass|defm)\b", re.MULTILINE)
CONSTRAINT = re.compile(r"\(C(\d+)\)")


def constraints(source):
    """The names `<op>_cN` that a TableGen source promises."""
    names = set()
    starts = [match.start() for match in DEFINITION.finditer(source)] + [len(source)]
    for begin, end in zip(starts, starts[1:]):
        if op := OP.match(source[begin:end]):
            names |= {f"{op[1].replace('.', '_')}_c{number}" for number in CONSTRAINT.findall(source[begin:end])}
    return names


def test_the_parser_itself():
    source = 'def Graph_AOp : Graph_Op<"a"> {\n  * (C1) x.\n  * (C12) y.\n}\ndef T : Type;\n// (C9)\n'
    assert constraints(source) == {"a_c1", "a_c12"}


@pytest.mark.parametrize("dialect", sorted({path.parts[1] for path in files() if path.suffix == ".td"
                                            and path.parts[0] == "dialects" and len(path.parts) > 2}))
def test_constraints_are_enforced_and_tested(dialect):
    folder = Path("dialects") / dialect
    promised = set().union(*(constraints(text(path)) for path in files()
                             if path.suffix == ".td" and folder in path.parents))
    assert promised, f"expects numbered constraints in {folder}"
    enforced = set().union(*(re.findall(r"\b(\w+_c\d+)\b", text(path)) for path in files()
                             if path.suffix in (".cpp", ".h") and folder in path.parents))
    tested = set().union(*(re.findall(r"@(\w+_c\d+)\b", text(path)) for path in files() if path.suffix == ".mlir"
                           and Path("test/dialects") / dialect in path.parents))
    assert promised - enforced == set(), f"no verifier names them `// <op>_cN` in {folder}"
    assert promised - tested == set(), f"no test function breaks them in test/{folder}"
    assert enforced - promised == set(), "named in C++, but not a constraint of any op description"
    assert tested - promised == set(), "named in tests, but not a constraint of any op description"
