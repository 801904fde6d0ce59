// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.dispatch @route_sigmoid_2_of_12
// CHECK: launch.barrier
// CHECK: launch.dispatch @expert_counts_2_of_12 grid [#launch.size<12>]
// CHECK: launch.barrier
// CHECK: launch.dispatch @expert_tiles_2_of_12_by_1 grid [#launch.size<13>]
// CHECK: launch.dispatch @experts_gate_up_q4_12x8x40_stride_4096
// CHECK: launch.dispatch @experts_down_q4
// CHECK: launch.dispatch @experts_combine_2_of_40_residual
// CHECK: #launch.size<(tokens * 2) ceildiv 4 + 12>
// CHECK-LABEL: kernel.func @route_sigmoid_2_of_12
// CHECK: kernel.argmax
// CHECK-LABEL: kernel.func @expert_tiles_2_of_12_by_1
// CHECK: kernel.scan
graph.parameter @t [64, 40] "q4" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @m [12, 40] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @g [12, 8, 40] "q4" record "r" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @u [12, 8, 40] "q4" record "r" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @d [12, 40, 8] "q4" record "r" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x40xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x40xf32>
  %m = graph.linear %e, @m : (tensor<?x40xf32>) -> tensor<?x12xf32>
  %i, %w = graph.route %m sigmoid top 2 {groups = 4 : i64, groups_kept = 2 : i64, group_score = #graph<group_score top2_sum>, normalize} : (tensor<?x12xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  %r = graph.experts %e, %i, %w gate @g up @u down @d residual %e : (tensor<?x40xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x40xf32>) -> tensor<?x40xf32>
  return %r : tensor<?x40xf32>
}

//--- invalid.mlir
graph.parameter @g [2, 4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @u [2, 5, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @d [2, 8, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @experts_c1(%a: tensor<?x8xf32>, %b: tensor<?x2xi32>, %c: tensor<?x2xf32>) {
  // expected-error@+1 {{expects banks of experts x inner x 8}}
  %r = graph.experts %a, %b, %c gate @g up @u down @d  : (tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @g [2, 4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @u [2, 4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @d [2, 8, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @experts_c2(%a: tensor<?x8xf32>, %b: tensor<?x2xi32>, %c: tensor<?x2xf32>, %d: tensor<?x4xf32>) {
  // expected-error@+1 {{expects shared and residual of width 8, got 4}}
  %r = graph.experts %a, %b, %c gate @g up @u down @d residual %d : (tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x4xf32>) -> tensor<?x8xf32>
  return
}

// -----

graph.parameter @g [2, 4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @u [2, 4, 8] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
graph.parameter @d [2, 8, 4] "f32" from [[#graph.piece<"t", 0, 1, false>], [#graph.piece<"t", 0, 1, false>]]
func.func @experts_c3(%a: tensor<?x8xf32>, %b: tensor<?x2xi32>, %c: tensor<?x3xf32>) {
  // expected-error@+1 {{expects as many weights as ids, got 3 and 2}}
  %r = graph.experts %a, %b, %c gate @g up @u down @d  : (tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x3xf32>) -> tensor<?x8xf32>
  return
}
