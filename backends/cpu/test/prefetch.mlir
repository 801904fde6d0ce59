// The distance that was measured for a package is the variable's value in the file; where none was, it is 0, and the
// loader decides.
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v3 | FileCheck %s
// RUN: sed 's/freeport.prefetch_distance = 4608 : i64/a.b/' %s | freeport-opt --allow-unregistered-dialect --freeport-cpu-pipeline=profile=x86-64-v3 | FileCheck %s --check-prefix=LOADER

// CHECK: llvm.mlir.global weak @freeport_prefetch_distance(4608 : i64)
// LOADER: llvm.mlir.global weak @freeport_prefetch_distance(0 : i64)
module attributes {freeport.prefetch_distance = 4608 : i64} {
  kernel.func @one_token(%w: !kernel.weights<q4, 32x64>, %x: !kernel.activations<i8, 64>, %y: !kernel.buffer<f32>) {
    %c0 = arith.constant 0 : index
    %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
         : !kernel.weights<q4, 32x64>, !kernel.activations<i8, 64> -> vector<1x1x32xf32>
    %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
    kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
    kernel.return
  }
}
