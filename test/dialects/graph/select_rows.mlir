// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.dispatch @select_rows_40_pitch_64_from_0 grid [#launch.size<2>, #launch.size<logit_rows>]
// CHECK: kernel.func @select_rows_40
// CHECK: kernel.load_lanes
// CHECK: kernel.store_lanes
graph.parameter @t [64, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x40xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x40xf32>
  %r = graph.select_rows %e, %c : (tensor<?x40xf32>, tensor<?xi32>) -> tensor<?x40xf32>
  return %r : tensor<?x40xf32>
}

//--- invalid.mlir
func.func @select_rows_c1(%a: tensor<?x8xf32>, %b: tensor<?xi32>) {
  // expected-error@+1 {{expects a result of width 8, got 4}}
  %r = graph.select_rows %a, %b : (tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x4xf32>
  return
}
