// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.state @state.s page_bytes 7168
// CHECK: launch.dispatch @attention_append_f16
// CHECK: launch.barrier
// CHECK: launch.dispatch @attention_f16
// CHECK-LABEL: kernel.func @attention_append_f16
// CHECK: arith.truncf
// CHECK: kernel.scatter
// CHECK-LABEL: kernel.func @attention_f16
// CHECK: kernel.reduce max
// CHECK: kernel.broadcast
graph.parameter @t [64, 48] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x48xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x48xf32>
  %r = graph.attention %e, %e, %e, %b state "s" "f16" heads 2, 2 scale 5.0e-01 : (tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>, tensor<?xi32>) -> tensor<?x48xf32>
  return %r : tensor<?x48xf32>
}

//--- invalid.mlir
func.func @attention_c1(%a: tensor<?x8xf32>, %b: tensor<?x8xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects heads that are a multiple of key_value_heads, got 2 and 3}}
  %r = graph.attention %a, %b, %b, %c state "s" "f16" heads 2, 3 scale 1.0 : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @attention_c2(%a: tensor<?x8xf32>, %b: tensor<?x8xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects widths of 2 and 1 heads of one size}}
  %r = graph.attention %a, %b, %b, %c state "s" "f16" heads 2, 1 scale 1.0 : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @attention_c3(%a: tensor<?x8xf32>, %b: tensor<?x4xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects state format f16 or f32, got f64}}
  %r = graph.attention %a, %b, %b, %c state "s" "f64" heads 2, 1 scale 1.0 : (tensor<?x8xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}
