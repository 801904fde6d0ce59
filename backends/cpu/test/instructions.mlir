// The instructions that span_dot becomes on each processor, as LLVM writes them: --freeport-cpu-pipeline, then upstream's
// tools with the triple and features of compiler/Profile.cpp.
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v3 | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=x86_64 -mcpu=x86-64-v3 | FileCheck %s --check-prefix=V3 --implicit-check-not=vpdpbusd --implicit-check-not=vfmadd
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v3-avxvnni | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=x86_64 -mcpu=x86-64-v3 -mattr=+avxvnni | FileCheck %s --check-prefix=AVXVNNI --implicit-check-not=pmaddubsw --implicit-check-not=vfmadd
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v4-avx512vnni | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=x86_64 -mcpu=x86-64-v4 -mattr=+avx512vnni | FileCheck %s --check-prefix=V4 --implicit-check-not=pmaddubsw --implicit-check-not=vfmadd
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=aarch64-neon | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=aarch64 -mattr=+neon | FileCheck %s --check-prefix=NEON --implicit-check-not=sdot --implicit-check-not=fmla
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=aarch64-dotprod | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=aarch64 -mattr=+dotprod | FileCheck %s --check-prefix=DOTPROD --implicit-check-not=smmla --implicit-check-not=fmla
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=aarch64-i8mm | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=aarch64 -mattr=+dotprod,+i8mm | FileCheck %s --check-prefix=I8MM --implicit-check-not=fmla

// One token has two loops: where the loader set a distance, one that prefetches records of 576 bytes into both caches, and one
// that does not. More tokens do not prefetch.
// V3-LABEL: one_token:
// V3-COUNT-9: prefetcht1
// V3-COUNT-9: prefetcht0
// V3: vpmaddubsw {{.+}}, %ymm{{[0-9]+}}
// V3: vpmaddwd {{.+}}, %ymm{{[0-9]+}}
// V3: vpmaddwd {{.+}}, %ymm{{[0-9]+}}
// V3-NOT: prefetcht
// AVXVNNI-LABEL: one_token:
// AVXVNNI: {vex} vpdpbusd {{.+}}, %ymm{{[0-9]+}}
// V4-LABEL: one_token:
// V4-NOT: vpdpbusd {{.+}}, %zmm
// V4: vpdpbusd {{.+}}, %ymm{{[0-9]+}}
// NEON-LABEL: one_token:
// NEON: prfm pldl2keep
// NEON: prfm pldl1keep
// NEON: smull v{{[0-9]+}}.8h, v{{[0-9]+}}.8b, v{{[0-9]+}}.8b
// NEON: smlal2 v{{[0-9]+}}.8h, v{{[0-9]+}}.16b, v{{[0-9]+}}.16b
// NEON: addp v{{[0-9]+}}.4s
// DOTPROD-LABEL: one_token:
// DOTPROD: sdot v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.4b[0]
// DOTPROD: sdot v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.4b[3]
// I8MM-LABEL: one_token:
// I8MM-NOT: smmla
// I8MM: sdot v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.4b[0]
kernel.func @one_token(%w: !kernel.weights<q4, 32x64>, %x: !kernel.activations<i8, 64>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<q4, 32x64>, !kernel.activations<i8, 64> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// V3-LABEL: three_tokens:
// V3-NOT: prefetch
// V3: vpsignb
// V3: vpmaddubsw
// AVXVNNI-LABEL: three_tokens:
// AVXVNNI-COUNT-24: vpdpbusd
// AVXVNNI-NOT: vpdpbusd
// V4-LABEL: three_tokens:
// V4-COUNT-24: vpdpbusd {{.+}}, %zmm{{[0-9]+}}
// V4-NOT: vpdpbusd
// NEON-LABEL: three_tokens:
// NEON: smlal
// NEON: sadalp
// DOTPROD-LABEL: three_tokens:
// DOTPROD-COUNT-24: sdot
// DOTPROD-NOT: sdot
// Two tokens are a pair, the third is alone.
// I8MM-LABEL: three_tokens:
// I8MM: smmla v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.16b
// I8MM: sdot
kernel.func @three_tokens(%w: !kernel.weights<q8, 32x64>, %x: !kernel.activations<i8, 64>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0, %c1, %c2]
       : !kernel.weights<q8, 32x64>, !kernel.activations<i8, 64> -> vector<1x3x32xf32>
  %lanes = vector.extract %v[0, 2] : vector<32xf32> from vector<1x3x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
