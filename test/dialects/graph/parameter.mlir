// RUN: freeport-opt %s --verify-diagnostics --split-input-file | FileCheck %s

// CHECK: graph.parameter @ok [2, 32, 16] "q4" record "r" from [
graph.parameter @ok [2, 32, 16] "q4" record "r" from [[#graph.piece<"a", 0, 32, false>], [#graph.piece<"b", 0, 16, true>]]
// CHECK: graph.parameter @two_biases [48] "f32" from [
graph.parameter @two_biases [48] "f32" from [[#graph.piece<"a.bias", 0, 32, false>, #graph.piece<"b.bias", 0, 16, false>]]

// -----

// expected-error@+1 {{expects a shape of one to three positive sizes, got 4, 0}}
graph.parameter @parameter_c1 [4, 0] "q4" from [[]]

// -----

// expected-error@+1 {{expects either entries or values}}
graph.parameter @parameter_c2 [4] "f32"

// -----

// expected-error@+1 {{expects 3 entries, got 1}}
graph.parameter @parameter_c3 [3, 4, 4] "q4" from [[]]

// -----

// expected-error@+1 {{expects format f32, got q4}}
graph.parameter @parameter_c4 [4] "q4" from [[]]
