// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/bias.mlir --freeport-kernel-stage | FileCheck %t/bias.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.variant tokens 1 to 1
// CHECK: launch.dispatch @activations_i8_40
// CHECK: launch.dispatch @linear_q8_70x40_tile_1_
// CHECK: launch.variant tokens 2 to 31
// CHECK: launch.dispatch @linear_q8_70x40_tile_4_
// CHECK: launch.variant tokens 32 to 512
// CHECK: launch.dispatch @linear_q8_70x40_tile_16_
// CHECK-LABEL: kernel.func @activations_i8_40
// CHECK: kernel.store_group %{{.+}} scale %{{.+}} sum
// CHECK-LABEL: kernel.func @linear_q8_70x40_tile_1_
// CHECK: kernel.span_dot
// CHECK: arith.addf
// CHECK: kernel.store_lanes
graph.parameter @t [64, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [70, 40] "q8" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x70xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x40xf32>
  %r = graph.linear %e, @w : (tensor<?x40xf32>) -> tensor<?x70xf32>
  return %r : tensor<?x70xf32>
}

//--- bias.mlir
// The bias is added to the row's sum, and the residual to both.
// CHECK: launch.dispatch @linear_f32_64x64_tile_{{.+}}_bias
// CHECK-LABEL: kernel.func @linear_f32_64x64_tile_
// CHECK: %[[BIAS:.+]] = kernel.load_lanes %arg2
// CHECK: %[[SUM:.+]] = arith.addf %{{.+}}, %[[BIAS]]
// CHECK: %[[RESIDUAL:.+]] = kernel.load_lanes %arg3
// CHECK: arith.addf %[[RESIDUAL]], %[[SUM]]
graph.parameter @t [64, 64] "f32" from [[#graph.piece<"t", 0, 64, false>]]
graph.parameter @b [64] "f32" from [[#graph.piece<"c", 0, 40, false>, #graph.piece<"d", 0, 24, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x64xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x64xf32>
  %r = graph.linear %e, @t bias @b residual %e : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  return %r : tensor<?x64xf32>
}

//--- invalid.mlir
graph.parameter @w [4, 4] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @linear_c1(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects @w of shape 4, 8, got 4, 4}}
  %r = graph.linear %a, @w : (tensor<?x8xf32>) -> tensor<?x4xf32>
  return
}

// -----

graph.parameter @w [4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @b [8] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @linear_c2(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects @b of shape 4, got 8}}
  %r = graph.linear %a, @w bias @b : (tensor<?x8xf32>) -> tensor<?x4xf32>
  return
}

// -----

graph.parameter @w [4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @linear_c3(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects a residual of width 4, got 8}}
  %r = graph.linear %a, @w residual %a : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x4xf32>
  return
}
