// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.dispatch @embed_q4_64x40 grid [#launch.size<2>, #launch.size<tokens>]
// CHECK: kernel.func @embed_q4_64x40
// CHECK: %[[ID:.+]] = kernel.load
// CHECK: kernel.unpack %{{.+}}[%{{.+}}, %{{.+}}] : <q4, 64x40>
// CHECK: kernel.store_lanes
graph.parameter @w [64, 40] "q4" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x40xf32> {
  %r = graph.embed %a, @w : (tensor<?xi32>) -> tensor<?x40xf32>
  return %r : tensor<?x40xf32>
}

//--- invalid.mlir
graph.parameter @w [64, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @embed_c1(%a: tensor<?xi32>) {
  // expected-error@+1 {{expects a table with 32 inputs}}
  %r = graph.embed %a, @w : (tensor<?xi32>) -> tensor<?x32xf32>
  return
}
