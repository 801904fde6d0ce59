"""Prints the lines of code per folder, and refuses a file that nobody can hold in mind at once."""

from collections import Counter

from repository import files, text

LIMIT = 1000
WRITTEN = {".h", ".c", ".cpp", ".td", ".fbs", ".py", ".cmake"}


def test_files_stay_small(capsys):
    lines, count, longest = Counter(), Counter(), {}
    for path in files():
        if path.suffix in WRITTEN or path.name in ("CMakeLists.txt", "dev"):
            folder = "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0] if len(path.parts) > 1 else "."
            size = text(path).count("\n")
            lines[folder] += size
            count[folder] += 1
            longest[folder] = max(longest.get(folder, (0, "")), (size, str(path)))
    with capsys.disabled():
        print(f"\n{'folder':<24}{'files':>6}{'lines':>8}   longest")
        for folder in sorted(lines):
            size, path = longest[folder]
            print(f"{folder:<24}{count[folder]:>6}{lines[folder]:>8}   {size} {path}")
        print(f"{'all':<24}{sum(count.values()):>6}{sum(lines.values()):>8}")
    too_long = [f"{path}: {size} lines" for size, path in longest.values() if size > LIMIT]
    assert not too_long, f"expects at most {LIMIT} lines: " + ", ".join(too_long)
