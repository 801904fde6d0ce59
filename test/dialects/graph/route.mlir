// RUN: split-file %s %t
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- invalid.mlir
graph.parameter @b [4] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @route_c1(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects a bias of 8 elements}}
  %i, %w = graph.route %a sigmoid top 2 bias @b  : (tensor<?x8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  return
}

// -----

func.func @route_c2(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects groups that divide 8 experts}}
  %i, %w = graph.route %a sigmoid top 2  {groups = 3 : i64} : (tensor<?x8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  return
}

// -----

func.func @route_c3(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects top_k of 1 to 8 as the results' width, got 9}}
  %i, %w = graph.route %a sigmoid top 9   : (tensor<?x8xf32>) -> (tensor<?x9xi32>, tensor<?x9xf32>)
  return
}

// -----

func.func @route_c4(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects groups of at least 2 experts for top2_sum, got 1}}
  %i, %w = graph.route %a sigmoid top 2  {groups = 8 : i64, groups_kept = 8 : i64, group_score = #graph<group_score top2_sum>} : (tensor<?x8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
  return
}
