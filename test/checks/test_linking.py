"""What the programs load: the user's program needs the small runtime and no LLVM, the developer's has it all.
Reads the built files with ldd, readelf and strip (those of LLVM), so it judges what ships and not what a build file says."""

import re
import subprocess
from pathlib import Path

from repository import BUILD

PLATFORM = re.compile(r"^(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|ld-linux-x86-64|ld-linux-aarch64)\.so")
COMPILER = re.compile(r"LLVM|MLIR|lld|clang|freeport_compiler", re.IGNORECASE)
MEGABYTE = 1_000_000


def output(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, encoding="utf-8").stdout


def needed(path):
    """The libraries that a file names itself."""
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", output("llvm-readelf-19", "-d", path)))


def loaded(path):
    """name -> path of everything that running or loading the file brings in."""
    pairs = re.findall(r"^\s*(\S+) => (\S+)", output("ldd", path), re.MULTILINE)
    assert pairs and all(target != "not" for _, target in pairs), f"expects that everything is found, got {pairs}"
    return dict(pairs)


def stripped_size(path, scratch):
    copy = Path(scratch) / path.name
    subprocess.run(["llvm-strip-19", "-o", copy, path], check=True)
    return copy.stat().st_size


def test_freeport_links_only_the_runtime():
    own = {name for name in needed(BUILD / "bin/freeport") if not PLATFORM.match(name)}
    assert own == {"libfreeport.so"}


def test_no_llvm_behind_the_runtime():
    for path in (BUILD / "bin/freeport", BUILD / "lib/libfreeport.so"):
        found = [name for name in loaded(path) if COMPILER.search(name)]
        assert not found, f"{path.name} loads {found}"


def test_the_runtime_is_small(tmp_path):
    library = BUILD / "lib/libfreeport.so"
    own = stripped_size(library, tmp_path)
    assert own < 3 * MEGABYTE, f"expects less than 3 MB stripped, got {own / MEGABYTE:.2f}"
    beside = {name: Path(path).resolve() for name, path in loaded(BUILD / "bin/freeport").items()
              if not PLATFORM.match(name) and name != "libfreeport.so"}
    total = own + sum(path.stat().st_size for path in beside.values())
    assert total < 6 * MEGABYTE, f"expects less than 6 MB with {sorted(beside)}, got {total / MEGABYTE:.2f}"


def test_the_compiler_is_its_own_library():
    assert "libfreeport_compiler.so" in needed(BUILD / "bin/freeport-opt")
    assert any("MLIR" in name for name in loaded(BUILD / "lib/libfreeport_compiler.so"))
