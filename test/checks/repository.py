"""What the checks of this folder look at: the repository's own files, tracked or about to be, never build outputs."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CODE = {".h", ".c", ".cpp", ".td", ".inc", ".fbs"}


@functools.cache
def files():
    """Paths relative to ROOT, sorted."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                             capture_output=True, encoding="utf-8").stdout
    return sorted(path for path in map(Path, set(listing.split("\0")) - {""}) if (ROOT / path).is_file())


def code(*folders):
    """The C, C++, TableGen and schema files under any of the folders."""
    return [path for path in files() if path.suffix in CODE and path.parts[0] in folders]


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")
