// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/expand.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/expand.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.state @state.s page_bytes 4096
// CHECK: launch.dispatch @linear_f32_2x16x4
// CHECK: launch.dispatch @latent_append_f32
// CHECK: launch.dispatch @latent_attention_f32
// CHECK: launch.dispatch @linear_f32_2x4x16
// CHECK-LABEL: kernel.func @latent_attention_f32
// CHECK: kernel.stage %{{.+}} pitch 32 to %{{.+}} columns 18
graph.parameter @t [64, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @l [16, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @p [2, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x8xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x12xf32>
  %n = graph.linear %e, @l : (tensor<?x12xf32>) -> tensor<?x16xf32>
  %k = graph.linear %e, @p : (tensor<?x12xf32>) -> tensor<?x2xf32>
  %r = graph.latent_attention %e, %n, %k, %b key @k value @v state "s" "f32" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return %r : tensor<?x8xf32>
}

//--- expand.mlir
// Pages of f32: 32 * 4 keys and 32 * 32 values of two heads, 32 * 2 rotated keys, 32 records of 16 elements, one flag.
// CHECK: launch.program @step arena <{{.*}}(sequences * table_pages) * 13632
// CHECK: launch.variant tokens 32 to 127
// CHECK: launch.dispatch @latent_attention_f32
// CHECK-NOT: launch.dispatch @latent_expand
// CHECK: launch.variant tokens 128 to 512
// CHECK-NOT: launch.dispatch @latent_attention_f32
// CHECK: launch.dispatch @latent_append_f32
// CHECK: launch.barrier
// CHECK-NEXT: launch.dispatch @latent_context_f32{{.+}} grid [#launch.size<table_pages>, #launch.size<sequences>]
// CHECK: launch.barrier
// CHECK-NEXT: launch.dispatch @latent_expand_keys_f32{{.+}} grid [#launch.size<(sequences * table_pages) * 2>
// CHECK: launch.dispatch @latent_expand_values_f32
// CHECK-NEXT: launch.barrier
// CHECK-NEXT: launch.dispatch @latent_expanded_f32
// Pages that no token of the step sees are not read: the table's entries for them may be anything.
// CHECK-LABEL: kernel.func @latent_context_f32
// CHECK: kernel.reduce max
// CHECK: scf.if
// CHECK: kernel.stage %{{.+}} pitch 32 to %{{.+}} columns 2
// CHECK-LABEL: kernel.func @latent_expand_keys_f32
// CHECK: scf.if
// CHECK: kernel.span_dot %{{.+}} entry
// CHECK: kernel.scatter
// A score sums the nope part, then the rotated one.
// CHECK-LABEL: kernel.func @latent_expanded_f32
// CHECK: %[[NOPE:.+]]:4 = scf.for %{{.+}} = %c0 to %c4 step %c1
// CHECK: scf.for %{{.+}} = %c0 to %c2 step %c1 iter_args(%{{.+}} = %[[NOPE]]#0
graph.parameter @t [64, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @l [16, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @p [2, 12] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @x [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x8xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x12xf32>
  %n = graph.linear %e, @l : (tensor<?x12xf32>) -> tensor<?x16xf32>
  %k = graph.linear %e, @p : (tensor<?x12xf32>) -> tensor<?x2xf32>
  %r = graph.latent_attention %e, %n, %k, %b key @k value @v expansion @x state "s" "f32" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return %r : tensor<?x8xf32>
}

//--- invalid.mlir
graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @latent_attention_c1(%a: tensor<?x12xf32>, %b: tensor<?x16xf32>, %c: tensor<?x2xf32>, %d: tensor<?xi32>) {
  // expected-error@+1 {{expects a query of 5 heads of more than 2 elements}}
  %r = graph.latent_attention %a, %b, %c, %d key @k value @v state "s" "f32" heads 5 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @k [2, 16, 4] "q4" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @latent_attention_c2(%a: tensor<?x12xf32>, %b: tensor<?x16xf32>, %c: tensor<?x2xf32>, %d: tensor<?xi32>) {
  // expected-error@+1 {{expects a float key weight of shape 2x16x4, got q4}}
  %r = graph.latent_attention %a, %b, %c, %d key @k value @v state "s" "f32" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 5, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @latent_attention_c3(%a: tensor<?x12xf32>, %b: tensor<?x16xf32>, %c: tensor<?x2xf32>, %d: tensor<?xi32>) {
  // expected-error@+1 {{expects a float value weight of shape 2x4x16}}
  %r = graph.latent_attention %a, %b, %c, %d key @k value @v state "s" "f32" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @latent_attention_c4(%a: tensor<?x12xf32>, %b: tensor<?x16xf32>, %c: tensor<?x2xf32>, %d: tensor<?xi32>) {
  // expected-error@+1 {{expects state format f16 or f32, got i8}}
  %r = graph.latent_attention %a, %b, %c, %d key @k value @v state "s" "i8" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @k [2, 16, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @v [2, 4, 16] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @latent_attention_c5(%a: tensor<?x12xf32>, %b: tensor<?x16xf32>, %c: tensor<?x2xf32>, %d: tensor<?xi32>) {
  // expected-error@+1 {{expects a float expansion weight of shape 2x4x16, got f32 2, 16, 4}}
  %r = graph.latent_attention %a, %b, %c, %d key @k value @v expansion @k state "s" "f32" heads 2 scale 1.0 : (tensor<?x12xf32>, tensor<?x16xf32>, tensor<?x2xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}
