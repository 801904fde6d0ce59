// math.exp of `fast` numerics: two fused steps of reduction, a polynomial of five, no call on any processor.
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v3 | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=x86_64 -mcpu=x86-64-v3 | FileCheck %s --check-prefix=X86 --implicit-check-not=call
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v4-avx512vnni | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=x86_64 -mcpu=x86-64-v4 -mattr=+avx512vnni | FileCheck %s --check-prefix=X86 --implicit-check-not=call
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=aarch64-neon | mlir-translate --mlir-to-llvmir | llc -O3 -mtriple=aarch64 -mattr=+neon | FileCheck %s --check-prefix=NEON --implicit-check-not='{{^[[:space:]]+bl[[:space:]]}}'

// X86-LABEL: exp:
// X86: vfmadd{{[0-9]+}}ps
// X86: vfmsub{{[0-9]+}}ps
// X86-COUNT-5: vfmadd{{[0-9]+}}ps
// X86: vpslld $23
// X86: vfmadd{{[0-9]+}}ss
// X86: vfmsub{{[0-9]+}}ss
// X86-COUNT-5: vfmadd{{[0-9]+}}ss
// X86: shll $23
// NEON-LABEL: exp:
// NEON-COUNT-56: {{fmla v[0-9]+.4s|fmadd s}}
// NEON-LABEL: .Lfunc_end0
kernel.func @exp(%x: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %e = math.exp %v : vector<32xf32>
  kernel.store_lanes %e, %x[%at] : vector<32xf32>, !kernel.buffer<f32>
  %s = kernel.load %x[%at] : !kernel.buffer<f32> -> f32
  %f = math.exp %s : f32
  kernel.store %f, %x[%at] : f32, !kernel.buffer<f32>
  kernel.return
}
