"""Line coverage of the lowering: of the sources that build/bin/freeport-backend-tests has a counting copy of
(test/CMakeLists.txt), after runs that left their counts in profiles."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = 80  # percent of the lines of each folder


def covered_lines(program, profiles):
    """folder -> (lines reached, lines), of the .cpp files that `program` counts."""
    indexed = profiles[0].with_suffix(".profdata")
    subprocess.run(["llvm-profdata-19", "merge", "-sparse", *profiles, "-o", indexed], check=True)
    command = ["llvm-cov-19", "export", "-summary-only", program, f"-instr-profile={indexed}"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    folders = {}
    for file in report["data"][0]["files"]:
        path = (ROOT / "build" / file["filename"]).resolve()
        if path.suffix != ".cpp" or not path.is_relative_to(ROOT):
            continue
        folder, lines = str(path.relative_to(ROOT).parent), file["summary"]["lines"]
        covered, count = folders.get(folder, (0, 0))
        folders[folder] = covered + lines["covered"], count + lines["count"]
    return folders


def report_coverage(program, profiles):
    """(whether every folder has the minimum, a line of text for each folder)."""
    try:
        folders = covered_lines(program, profiles)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return False, [f"line coverage of the lowering: {error}"]
    lines = [f"line coverage of the lowering: {100 * covered / count:.1f} % ({folder}, {covered} of {count} lines)"
             for folder, (covered, count) in sorted(folders.items())]
    low = [folder for folder, (covered, count) in folders.items() if 100 * covered < MINIMUM * count]
    if low or not folders:
        lines.append(f"line coverage of the lowering: expects {MINIMUM} % at least; below: {', '.join(low) or 'all'}")
    return bool(folders) and not low, lines
