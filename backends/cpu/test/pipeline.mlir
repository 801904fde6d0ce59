// RUN: split-file %s %t

// The whole pipeline by its name.
// RUN: freeport-opt %t/copy.mlir --freeport-cpu-pipeline --debug-only=freeport-cpu-lower-kernel 2>&1 | FileCheck %s
// CHECK: kernel @copy
// CHECK: llvm.func @copy(%{{.+}}: !llvm.ptr, %{{.+}}: !llvm.ptr, %{{.+}}: i64, %{{.+}}: i64, %{{.+}}: i64)

// Its reproducer names every pass of it, and freeport-opt knows them all.
// RUN: not freeport-opt %t/choice.mlir --freeport-cpu-pipeline --mlir-pass-pipeline-crash-reproducer=%t/crash.mlir
// RUN: FileCheck %s --check-prefix=REPRODUCER < %t/crash.mlir
// RUN: not freeport-opt %t/crash.mlir --run-reproducer 2>&1 | FileCheck %s --check-prefix=AGAIN
// REPRODUCER: freeport-cpu-lower-kernel{profile=x86-64-v3}, {{.*}}convert-vector-to-llvm{{.*}}, reconcile-unrealized-casts)
// AGAIN: expects memory operands to go from arguments and kernel.local to kernel ops directly

//--- copy.mlir
kernel.func @copy(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %n: index) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  scf.for %i = %zero to %n step %one {
    %v = kernel.load %x[%i] : !kernel.buffer<f32> -> f32
    kernel.store %v, %y[%i] : f32, !kernel.buffer<f32>
  }
  kernel.return
}

//--- choice.mlir
kernel.func @choice(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %n: index) {
  %zero = arith.constant 0 : index
  %first = arith.cmpi eq, %n, %zero : index
  %chosen = arith.select %first, %x, %y : !kernel.buffer<f32>
  %v = kernel.load %chosen[%zero] : !kernel.buffer<f32> -> f32
  kernel.store %v, %y[%zero] : f32, !kernel.buffer<f32>
  kernel.return
}
