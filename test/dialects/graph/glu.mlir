// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: kernel.func @glu_40
// CHECK: arith.divf
// CHECK: arith.mulf
// CHECK: kernel.store_lanes
graph.parameter @t [64, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x40xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x40xf32>
  %r = graph.glu %e, %e : (tensor<?x40xf32>, tensor<?x40xf32>) -> tensor<?x40xf32>
  return %r : tensor<?x40xf32>
}

//--- invalid.mlir
func.func @glu_c1(%a: tensor<?x8xf32>, %b: tensor<?x4xf32>) {
  // expected-error@+1 {{expects up of width 8, got 4}}
  %r = graph.glu %a, %b : (tensor<?x8xf32>, tensor<?x4xf32>) -> tensor<?x8xf32>
  return
}
