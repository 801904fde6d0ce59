// RUN: freeport-opt %s --split-input-file --verify-diagnostics | FileCheck %s

// CHECK-LABEL: kernel.func @span_dot_q4
// CHECK: kernel.span_dot %{{.*}} rows[%{{.*}}] span %{{.*}}, %{{.*}} tokens[%{{.*}}] : <q4, 384x128>, <i8, 128> -> vector<1x1x32xf32>
kernel.func @span_dot_q4(%w: !kernel.weights<q4, 384x128>, %x: !kernel.activations<i8, 128>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %r = kernel.program_id x
  %t = kernel.program_id y
  %v = kernel.span_dot %w rows[%r] span %c0, %x tokens[%t]
       : !kernel.weights<q4, 384x128>, !kernel.activations<i8, 128> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%r] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// A bank of as many entries as its memory holds.
// CHECK-LABEL: kernel.func @span_dot_pages
// CHECK: kernel.span_dot %{{.*}} entry %{{.*}} rows[%{{.*}}] span %{{.*}}, %{{.*}} tokens[%{{.*}}] : <q8, ?x32x40, stride = 6272>, <i8, 40> -> vector<1x1x32xf32>
kernel.func @span_dot_pages(%w: !kernel.weights<q8, ?x32x40, stride = 6272>, %x: !kernel.activations<i8, 40>, %i: index) {
  %v = kernel.span_dot %w entry %i rows[%i] span %i, %x tokens[%i]
       : !kernel.weights<q8, ?x32x40, stride = 6272>, !kernel.activations<i8, 40> -> vector<1x1x32xf32>
  kernel.return
}

// -----

// expected-error@+1 {{expects positive sizes, but for the entries of a bank}}
kernel.func @weights_rows(%w: !kernel.weights<q8, 4x?x40, stride = 6272>) {
  kernel.return
}

// -----

kernel.func @span_dot_c1(%w: !kernel.weights<q4, 384x128>, %x: !kernel.activations<f32, 128>, %i: index) {
  // expected-error@+1 {{expects activations of i8 for q4 weights, got 'f32'}}
  %v = kernel.span_dot %w rows[%i] span %i, %x tokens[%i]
       : !kernel.weights<q4, 384x128>, !kernel.activations<f32, 128> -> vector<1x1x32xf32>
  kernel.return
}

// -----

kernel.func @span_dot_c2(%w: !kernel.weights<q4, 384x128>, %x: !kernel.activations<i8, 96>, %i: index) {
  // expected-error@+1 {{expects activations of width 128, got 96}}
  %v = kernel.span_dot %w rows[%i] span %i, %x tokens[%i]
       : !kernel.weights<q4, 384x128>, !kernel.activations<i8, 96> -> vector<1x1x32xf32>
  kernel.return
}

// -----

kernel.func @span_dot_c3(%w: !kernel.weights<f32, 4x32x32, stride = 4096>, %x: !kernel.activations<f32, 32>, %i: index) {
  // expected-error@+1 {{expects an entry exactly for a bank of weights}}
  %v = kernel.span_dot %w rows[%i] span %i, %x tokens[%i]
       : !kernel.weights<f32, 4x32x32, stride = 4096>, !kernel.activations<f32, 32> -> vector<1x1x32xf32>
  kernel.return
}

// -----

kernel.func @span_dot_c4(%w: !kernel.weights<q8, 64x64>, %x: !kernel.activations<i8, 64>, %i: index) {
  // expected-error@+1 {{expects result 'vector<2x1x32xf32>', got 'vector<1x1x32xf32>'}}
  %v = kernel.span_dot %w rows[%i, %i] span %i, %x tokens[%i]
       : !kernel.weights<q8, 64x64>, !kernel.activations<i8, 64> -> vector<1x1x32xf32>
  kernel.return
}
