// RUN: freeport-opt %s --split-input-file --verify-diagnostics

// expected-error@+1 {{expects memory arguments before index arguments}}
kernel.func @func_c1(%n: index, %y: !kernel.buffer<f32>) {
  kernel.return
}

// -----

kernel.func @func_c2(%y: !kernel.buffer<f32>) {
  %c = arith.constant 0.0 : f32
  // expected-error@+1 {{expects a kernel op or one of the closed list of upstream ops}}
  %f = vector.splat %c : vector<32xf32>
  kernel.return
}
