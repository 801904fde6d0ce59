"""Machine instructions are chosen by the compiler halves of backends and nowhere else: no intrinsic, no assembly and no
hand-written kernel stands in the runtime, the compiler's shared part or a backend's runtime half."""

import re

import pytest

from repository import files, text

FORBIDDEN = re.compile(
    r"\b(?:imm|x86|amm|emm|xmm|smm|nmm|tmm|wmm|pmm)intrin\.h|\barm_(?:neon|sve|sme)\.h|\b_mm\d*_\w+|\b__m(?:64|128|256|512)"
    r"|\b__builtin_(?:ia32|neon|arm|sve)_\w+|\b(?:__asm__|__asm|asm)\b\s*(?:volatile|__volatile__|goto)?\s*\("
    r"|\bvector_size\b|\bext_vector_type\b")
# The hint that a spin loop gives to the processor; it computes nothing.
SPIN_LOOP_PAUSE = "__builtin_ia32_pause"
KERNEL_SOURCES = {".s", ".S", ".asm", ".ll", ".cl", ".cu", ".comp", ".glsl", ".hlsl", ".metal", ".ptx", ".spvasm"}


def found(source):
    return [match for match in FORBIDDEN.findall(source) if match != SPIN_LOOP_PAUSE]


def holds_kernels(path):
    return path.parts[0] == "backends" and len(path.parts) > 3 and path.parts[2] == "compiler"


@pytest.mark.parametrize("source, count", [
    ("#include <immintrin.h>", 1), ("_mm256_add_ps(a, b)", 1), ("__m256i x;", 1), ("__builtin_ia32_pmaddubsw256(a, b)", 1),
    ('asm volatile("nop");', 1), ("__builtin_ia32_pause();", 0), ("__builtin_expect(a, b)", 0), ("assembly(format)", 0)])
def test_the_pattern_itself(source, count):
    assert len(found(source)) == count


def test_no_intrinsics_outside_compiler_halves():
    looked_at, wrong = 0, []
    for path in files():
        if path.parts[0] not in ("runtime", "dialects", "compiler", "backends", "python") or holds_kernels(path):
            continue
        if path.suffix in KERNEL_SOURCES:
            wrong.append(f"{path} is a hand-written kernel")
        elif path.suffix in (".h", ".c", ".cpp", ".inc", ".td"):
            looked_at += 1
            wrong += [f"{path} uses {match}" for match in found(text(path))]
    assert looked_at > 5
    assert not wrong, "\n".join(wrong)
