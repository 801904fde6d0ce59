"""Reads every #include: code may depend only on folders further along the flow, so that each part can be understood,
replaced and deleted without the ones before it. Design rule: nobody includes a backend, the runtime includes no LLVM."""

import re

import pytest

from repository import code, text

INCLUDE = re.compile(r'^\s*#?\s*include\s+([<"])([^">]+)[">]', re.MULTILINE)
DIALECTS = ["graph", "kernel", "launch"]  # lowering order
OURS = ("runtime/", "dialects/", "compiler/", "backends/", "python/", "test/", "examples/")
COMPILER_LIBRARIES = ("llvm/", "llvm-c/", "mlir/", "mlir-c/", "lld/", "clang/")
REGISTRY = "backends/Backends.inc"  # the generated list of backends, which both registries expand
PACKAGE_FORMAT = re.compile(r"runtime/(package[._]|compiler_api\.h|status\.h)")  # what both libraries share


def allowed(path, include):
    """Whether the file at `path` may include `include`, both relative to the repository root."""
    parts = path.split("/")
    links_compiler_libraries = parts[0] in ("compiler", "dialects") or (parts[0] == "backends" and parts[2] in ("compiler", "test"))
    if include.startswith(COMPILER_LIBRARIES):
        return links_compiler_libraries or parts[0] == "test"
    if not include.startswith(OURS):
        return True
    if parts[0] in ("test", "examples"):
        return True
    if parts[0] == "runtime":
        return include.startswith("runtime/") or include == REGISTRY
    if parts[0] == "dialects":
        own = DIALECTS.index(parts[1]) if parts[1] in DIALECTS else 0
        folder = include.split("/")[1]
        later = folder in DIALECTS[own:] or folder not in DIALECTS
        return include.startswith("dialects/") and later
    if parts[0] == "compiler":
        return (include.startswith(("compiler/", "dialects/")) or include == REGISTRY
                or bool(PACKAGE_FORMAT.match(include)))
    if parts[0] == "backends":
        backend, side = "/".join(parts[:2]) + "/", parts[2]
        if side == "test":  # tests see both halves of their own backend and what is shared, never another backend
            return include.startswith(backend) or not include.startswith("backends/")
        if include.startswith(backend):  # its own side, or the format that its two sides share
            return include.startswith(backend + side + "/") or "/" not in include[len(backend):]
        if side == "compiler":
            return include.startswith(("compiler/", "dialects/"))
        return include.startswith("runtime/") and side == "runtime"
    return False


@pytest.mark.parametrize("path, include, expected", [
    ("runtime/module.cpp", "runtime/status.h", True),
    ("runtime/module.cpp", "llvm/ADT/StringRef.h", False),
    ("runtime/module.cpp", "dialects/kernel/Kernel.h", False),
    ("runtime/registry.cpp", REGISTRY, True),
    ("runtime/registry.cpp", "backends/cpu/runtime/device.h", False),
    ("dialects/kernel/Kernel.cpp", "dialects/graph/Graph.h", False),
    ("dialects/graph/Graph.cpp", "dialects/kernel/Kernel.h", True),
    ("dialects/graph/Graph.cpp", "compiler/package/Pack.h", False),
    ("compiler/package/PackageWriter.cpp", "runtime/package_generated.h", True),
    ("compiler/package/PackageWriter.cpp", "runtime/module.h", False),
    ("compiler/lowering/Pipeline.cpp", "backends/cpu/compiler/Backend.h", False),
    ("backends/cpu/compiler/Backend.cpp", "compiler/offload/Backend.h", True),
    ("backends/cpu/test/compiler/a_test.cpp", "compiler/offload/Backend.h", True),
    ("backends/cpu/test/compiler/a_test.cpp", "backends/reference/compiler/Serialize.h", False),
    ("backends/cpu/compiler/Backend.cpp", "backends/reference/compiler/Backend.h", False),
    ("backends/cpu/compiler/Backend.cpp", "backends/cpu/runtime/queue.h", False),
    ("backends/reference/compiler/Serialize.cpp", "backends/reference/bytecode_generated.h", True),
    ("backends/cpu/runtime/device.cpp", "runtime/device.h", True),
    ("backends/cpu/runtime/device.cpp", "mlir/IR/BuiltinOps.h", False),
])
def test_the_rules_themselves(path, include, expected):
    assert allowed(path, include) is expected


def test_every_include_follows_the_flow():
    paths = code("runtime", "dialects", "compiler", "backends", "test", "examples")
    includes = [(str(path), bracket, include) for path in paths for bracket, include in INCLUDE.findall(text(path))]
    assert len(includes) > 20, f"expects to find the repository's includes, got {len(includes)}"
    wrong = [f"{path} includes {include}" for path, _, include in includes if not allowed(path, include)]
    assert not wrong, "against the direction of the flow:\n" + "\n".join(wrong)
    relative = [f'{path} includes "{include}"' for path, bracket, include in includes
                if bracket == '"' and "/" not in include]
    assert not relative, "expects paths from the repository root:\n" + "\n".join(relative)
