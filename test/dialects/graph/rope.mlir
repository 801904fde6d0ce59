// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.dispatch @heads_24_from_0_64_rope_interleaved_16_at_0_factor_3F800000_of_2 grid [{{.*}}2
// CHECK: kernel.func @heads_24_from_0_64_rope_interleaved_16_at_0_factor_3F800000_of_2
// CHECK: arith.sitofp
// CHECK: kernel.gather
// CHECK: kernel.gather
// CHECK: kernel.scatter
// CHECK: kernel.scatter
graph.parameter @t [64, 48] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @f [8] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x48xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x48xf32>
  %r = graph.rope %e, %b, @f interleaved heads 2 : (tensor<?x48xf32>, tensor<?xi32>) -> tensor<?x48xf32>
  return %r : tensor<?x48xf32>
}

//--- invalid.mlir
graph.parameter @f [2] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rope_c1(%a: tensor<?x8xf32>, %b: tensor<?xi32>) {
  // expected-error@+1 {{expects a width that is a multiple of 3 heads}}
  %r = graph.rope %a, %b, @f half heads 3 : (tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @f [3] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rope_c2(%a: tensor<?x8xf32>, %b: tensor<?xi32>) {
  // expected-error@+1 {{expects rotated elements inside a head of 4, got 0 to 6}}
  %r = graph.rope %a, %b, @f half heads 2 : (tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @f [2] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @rope_c3(%a: tensor<?x8xf32>, %b: tensor<?xi32>) {
  // expected-error@+1 {{expects a result of width 8, got 4}}
  %r = graph.rope %a, %b, @f half heads 2 : (tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x4xf32>
  return
}
