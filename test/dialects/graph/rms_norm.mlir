// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/heads.mlir --freeport-kernel-stage | FileCheck %t/heads.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: kernel.func @rms_norm_1x40
// CHECK: scf.for
// CHECK: arith.mulf
// CHECK: kernel.reduce add
// CHECK: kernel.sqrt
// CHECK: arith.divf
// CHECK: kernel.store_lanes
graph.parameter @t [64, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x40xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x40xf32>
  %r = graph.rms_norm %e, @w epsilon 1.0e-05 : (tensor<?x40xf32>) -> tensor<?x40xf32>
  return %r : tensor<?x40xf32>
}

//--- heads.mlir
// Each head by itself, with the same weight; what follows needs no whole groups.
// CHECK: launch.dispatch @rms_norm_3x40_pitch_128_from_0_{{.+}} grid [{{.*}}3
// CHECK-LABEL: kernel.func @rms_norm_3x40
// CHECK-DAG: %[[HEAD:.+]] = kernel.program_id y
// CHECK-DAG: %[[COLUMN:.+]] = arith.muli %[[HEAD]], %c40
// CHECK: kernel.reduce add
// CHECK: kernel.load_lanes %arg1[%{{.+}}] mask
// CHECK: kernel.store_lanes %{{.+}}, %arg2[%{{.+}}] mask
graph.parameter @t [64, 120] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x120xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x120xf32>
  %n = graph.rms_norm %e, @w epsilon 1.0e-05 {heads = 3} : (tensor<?x120xf32>) -> tensor<?x120xf32>
  %r = graph.glu %n, %n : (tensor<?x120xf32>, tensor<?x120xf32>) -> tensor<?x120xf32>
  return %r : tensor<?x120xf32>
}

//--- invalid.mlir
graph.parameter @w [4] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rms_norm_c1(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{of shape 8, got 4}}
  %r = graph.rms_norm %a, @w epsilon 1.0e-05 : (tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @w [8] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rms_norm_c2(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects a result of width 8, got 4}}
  %r = graph.rms_norm %a, @w epsilon 1.0e-05 : (tensor<?x8xf32>) -> tensor<?x4xf32>
  return
}

// -----

graph.parameter @w [4] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rms_norm_c3(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects a width that is a multiple of the heads, got 8 and 3}}
  %r = graph.rms_norm %a, @w epsilon 1.0e-05 {heads = 3} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}
