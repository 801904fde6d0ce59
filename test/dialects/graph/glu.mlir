// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/gated.mlir --freeport-kernel-stage | FileCheck %t/gated.mlir
// RUN: freeport-opt %t/apart.mlir --freeport-kernel-stage | FileCheck %t/apart.mlir
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

//--- gated.mlir
// Where a linear map makes nothing but gate and up, the same program makes both and writes the next one's activations.
// CHECK: launch.variant tokens 1 to 1
// CHECK: launch.dispatch @linear_glu_q8_128x64_tile_1_i8 grid [{{.*}}2]
// CHECK-NOT: launch.dispatch @glu
// CHECK: launch.dispatch @linear_q8_64x64_
// CHECK-LABEL: kernel.func @linear_glu_q8_128x64_tile_1_i8
// CHECK-DAG: %[[BLOCK:.+]] = kernel.program_id y
// CHECK: kernel.span_dot %arg0 rows[%[[BLOCK]]]
// CHECK: %[[UP:.+]] = arith.addi %[[BLOCK]], %c2
// CHECK: kernel.span_dot %arg0 rows[%[[UP]]]
// CHECK: arith.divf
// CHECK: kernel.store_group {{.+}}, %arg2[%{{.+}}, %[[BLOCK]]]
graph.parameter @t [64, 64] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [128, 64] "q8" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @d [64, 64] "q8" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x64xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x64xf32>
  %w = graph.linear %e, @w : (tensor<?x64xf32>) -> tensor<?x128xf32>
  %g = graph.columns %w from 0 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %u = graph.columns %w from 64 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %x = graph.glu %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %r = graph.linear %x, @d : (tensor<?x64xf32>) -> tensor<?x64xf32>
  return %r : tensor<?x64xf32>
}

//--- apart.mlir
// Up before gate, a bias, another reader: the linear map is a dispatch of its own.
// CHECK-NOT: linear_glu
// CHECK: launch.dispatch @linear_q8_128x64_tile_1_f32_128
// CHECK: launch.dispatch @glu_64_gate_64_128_up_0_128
// CHECK: launch.dispatch @linear_q8_128x64_tile_1_f32_128_bias
// CHECK: launch.dispatch @glu_64_gate_0_128_up_64_128
// CHECK: launch.dispatch @linear_q8_128x64_tile_1_f32_128 grid
// CHECK: launch.dispatch @glu_64_gate_0_128_up_64_128
// CHECK: launch.dispatch @glu_128
// CHECK-NOT: linear_glu
graph.parameter @t [64, 64] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [128, 64] "q8" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @b [128] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x128xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x64xf32>
  %w = graph.linear %e, @w : (tensor<?x64xf32>) -> tensor<?x128xf32>
  %u = graph.columns %w from 0 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %g = graph.columns %w from 64 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %x = graph.glu %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %wb = graph.linear %x, @w bias @b : (tensor<?x64xf32>) -> tensor<?x128xf32>
  %gb = graph.columns %wb from 0 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %ub = graph.columns %wb from 64 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %xb = graph.glu %gb, %ub : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %wr = graph.linear %xb, @w : (tensor<?x64xf32>) -> tensor<?x128xf32>
  %gr = graph.columns %wr from 0 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %ur = graph.columns %wr from 64 : (tensor<?x128xf32>) -> tensor<?x64xf32>
  %xr = graph.glu %gr, %ur : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %last = graph.linear %xr, @w residual %wr : (tensor<?x64xf32>, tensor<?x128xf32>) -> tensor<?x128xf32>
  %r = graph.glu %last, %last : (tensor<?x128xf32>, tensor<?x128xf32>) -> tensor<?x128xf32>
  return %r : tensor<?x128xf32>
}

//--- invalid.mlir
func.func @glu_c1(%a: tensor<?x8xf32>, %b: tensor<?x4xf32>) {
  // expected-error@+1 {{expects up of width 8, got 4}}
  %r = graph.glu %a, %b : (tensor<?x8xf32>, tensor<?x4xf32>) -> tensor<?x8xf32>
  return
}
