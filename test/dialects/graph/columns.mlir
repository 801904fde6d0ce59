// RUN: split-file %s %t
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- invalid.mlir
func.func @columns_c1(%a: tensor<?x8xf32>) {
  // expected-error@+1 {{expects columns inside 0 to 8, got 4 to 12}}
  %r = graph.columns %a from 4 : (tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}
