"""Runs the GoogleTest programs, lit and pytest, and adds their counts up from the reports that each of them writes.
A suite that runs nothing, or that dies before it reports, counts as one failure: silence is never success."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from line_coverage import report_coverage

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CROSS_BUILD = ROOT / "build-aarch64"  # ./dev setup --cross
EMULATOR = "qemu-aarch64"
REPORTS = BUILD / "reports"
NOTES = []  # printed before the counts


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def run(command, report, read_report, environment=None):
    """The counts of one program: those of its report, plus a failure where its exit code says more than the report."""
    report.unlink(missing_ok=True)
    code = subprocess.run([str(part) for part in command], cwd=ROOT, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(environment or {})}).returncode
    counts = Counts()
    try:
        counts = read_report(report)
    except (OSError, ValueError, KeyError, xml.etree.ElementTree.ParseError):
        print(f"{command[0]}: ended with code {code} and left no report", flush=True)
    if code != 0 and counts.failed == 0:
        print(f"{command[0]}: ended with code {code} although no test failed", flush=True)
        counts.failed += 1
    return counts


def read_gtest(report):
    counts = Counts()
    for group in json.loads(report.read_text())["testsuites"]:
        for case in group["testsuite"]:
            if case["status"] != "RUN":
                counts.skipped += 1
            elif case["result"] == "SKIPPED":
                counts.skipped += 1
            elif case.get("failures"):
                counts.failed += 1
            else:
                counts.passed += 1
    return counts


def read_lit(report):
    counts = Counts()
    for test in json.loads(report.read_text())["tests"]:
        if test["code"] in ("PASS", "XFAIL", "FLAKYPASS"):
            counts.passed += 1
        elif test["code"] in ("UNSUPPORTED", "SKIPPED"):
            counts.skipped += 1
        elif test["code"] != "EXCLUDED":
            counts.failed += 1
    return counts


def read_pytest(report):
    counts = Counts()
    for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures")) + int(suite.get("errors"))
        skipped = int(suite.get("skipped"))
        counts.add(Counts(int(suite.get("tests")) - failed - skipped, failed, skipped))
    return counts


def emulated():
    """Whether programs of the cross build can run: says why not."""
    if not (CROSS_BUILD / "bin/freeport-dispatch-runner").exists():
        NOTES.append("not tested: aarch64 (./dev setup --cross builds for it)")
    elif not shutil.which(EMULATOR):
        NOTES.append(f"not tested: aarch64 (expects {EMULATOR}, found none)")
    else:
        return True
    return False


def gtest(name_filter):
    """Every program in as many shards as there are processors, at once."""
    if name_filter and not set(name_filter) & set("*?:-"):
        name_filter = f"*{name_filter}*"
    selection = [f"--gtest_filter={name_filter}"] if name_filter else []
    programs = [[program] for program in sorted((BUILD / "bin").glob("freeport-*-tests"))]
    environment = {}
    if emulated():
        runner = shlex.quote(str(CROSS_BUILD / "bin/freeport-dispatch-runner"))
        environment["FREEPORT_DISPATCH_RUNNER"] = f"{EMULATOR} -cpu max {runner}"
        programs.append([EMULATOR, CROSS_BUILD / "bin/freeport-runtime-tests"])
    counts, shards = Counts(), os.cpu_count() or 1
    for program in programs:
        name = "-".join(Path(part).name for part in program)
        profiles = [REPORTS / f"{name}.{shard}.profraw" for shard in range(shards)]
        for profile in profiles:
            profile.unlink(missing_ok=True)

        def run_shard(shard):
            report = REPORTS / f"{name}.{shard}.json"
            return run([*program, "--gtest_brief=1", f"--gtest_output=json:{report}"] + selection, report, read_gtest,
                       {**environment, "GTEST_TOTAL_SHARDS": str(shards), "GTEST_SHARD_INDEX": str(shard),
                        "LLVM_PROFILE_FILE": str(profiles[shard])})

        with ThreadPoolExecutor(shards) as pool:
            for shard_counts in pool.map(run_shard, range(shards)):
                counts.add(shard_counts)
        if profiles[0].exists() and not name_filter:
            enough, lines = report_coverage(program[0], profiles)
            counts.add(Counts(passed=int(enough), failed=int(not enough)))
            NOTES.extend(lines)
    return counts


def lit(name_filter):
    report = REPORTS / "lit.json"
    selection = [f"--filter={name_filter}"] if name_filter else []
    program = ROOT / ".venv/bin/lit"
    return run([program, "-sv", "-o", report] + selection + [BUILD / "test", BUILD / "test-backends"], report, read_lit)


def pytest(name_filter):
    report = REPORTS / "pytest.xml"
    selection = ["-k", name_filter] if name_filter else []
    # A worker takes whole files: their tests share packages.
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--durations=8", f"--junitxml={report}",
               "-n", str(os.cpu_count() or 1), "--dist", "loadfile"]
    folders = [ROOT / "test", *sorted(ROOT.glob("backends/*/test"))]
    return run(command + selection + folders, report, read_pytest)


SUITES = {"gtest": gtest, "lit": lit, "pytest": pytest}


def main(arguments):
    chosen = [name for name in SUITES if not arguments or arguments[0] in ("all", name)]
    name_filter = arguments[1] if len(arguments) > 1 else None
    REPORTS.mkdir(parents=True, exist_ok=True)
    total, lines = Counts(), []
    for name in chosen:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        counts = SUITES[name](name_filter)
        if counts.passed + counts.failed == 0:
            print(f"{name}: no test ran", flush=True)
            counts.failed += 1
        lines.append(f"{name:<7} {(time.monotonic() - start) / 60:6.2f} min   {counts}")
        total.add(counts)
    print("\n".join(NOTES + ["== minutes per suite"] + lines))
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
