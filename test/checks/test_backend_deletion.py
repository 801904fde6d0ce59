"""Deleting a backend is deleting its folder and one line: what is left configures, builds what changed and passes quick
tests. It is built beside this build and shares its compiler cache, so that only what knew the backend is compiled."""

import shutil
import subprocess

import pytest

from repository import BUILD, ROOT

BACKEND = "vulkan"
QUICK = "freeport-runtime-tests"


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.mark.skipif(not (ROOT / "backends" / BACKEND).exists(), reason="the backend is deleted already")
def test_the_project_lives_without_a_backend(tmp_path):
    tree = tmp_path / "tree"
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, files):
        if name.startswith(f"backends/{BACKEND}/") or not (ROOT / name).is_file():
            continue
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    listing = tree / "backends/CMakeLists.txt"
    lines = listing.read_text().splitlines(keepends=True)
    left = [line for line in lines if line.strip() != f"freeport_add_backend({BACKEND})"]
    assert len(left) == len(lines) - 1, "expects one line that names the backend"
    listing.write_text("".join(left))

    run("cmake", "--preset", "release", cwd=tree)
    run("cmake", "--build", "--preset", "release", "--target", "freeport", QUICK, cwd=tree)
    summary = run(tree / "build/bin" / QUICK, "--gtest_brief=1", cwd=tree)
    assert "PASSED" in summary and "FAILED" not in summary
    help_text = run(tree / "build/bin/freeport", "devices", cwd=tree)
    assert "cpu" in help_text and BACKEND not in help_text
    package = tmp_path / "model.port"
    run(tree / "build/bin/freeport", "compile", ROOT / "test/data/models/llama", "-o", package, cwd=tree)
    run(tree / "build/bin/freeport", "logits", package, "--ids", "1,2,3", "-o", tmp_path / "logits.npy", cwd=tree)
    # The same bits as with the backend, from the same package.
    run(BUILD / "bin/freeport", "logits", package, "--ids", "1,2,3", "-o", tmp_path / "with.npy", cwd=ROOT)
    assert (tmp_path / "logits.npy").read_bytes() == (tmp_path / "with.npy").read_bytes()
