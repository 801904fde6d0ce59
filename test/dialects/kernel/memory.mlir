// RUN: freeport-opt %s --split-input-file --verify-diagnostics

kernel.func @local_c1(%n: index) {
  scf.for %i = %n to %n step %n {
    // expected-error@+1 {{expects to stand in the entry block of a kernel.func}}
    %l = kernel.local 32 : !kernel.buffer<f32>
  }
  kernel.return
}

// -----

kernel.func @stage_c1(%b: !kernel.buffer<f16>, %n: index) {
  %l = kernel.local 64 : !kernel.buffer<f32>
  // expected-error@+1 {{expects a target of at least 128 elements, got 64}}
  kernel.stage %b[%n] pitch 4 to %l columns 4 : !kernel.buffer<f16> to !kernel.buffer<f32>
  kernel.return
}

// -----

kernel.func @store_group_c1(%x: !kernel.activations<f32, 32>, %v: index) {
  %c = arith.constant dense<0> : vector<32xi8>
  // expected-error@+1 {{expects values of 'f32', got 'i8'}}
  kernel.store_group %c, %x[%v, %v] : vector<32xi8>, !kernel.activations<f32, 32>
  kernel.return
}

// -----

kernel.func @store_group_c2(%x: !kernel.activations<i8, 32>, %v: index) {
  %c = arith.constant dense<0> : vector<32xi8>
  // expected-error@+1 {{expects a scale and a sum exactly for activations of i8}}
  kernel.store_group %c, %x[%v, %v] : vector<32xi8>, !kernel.activations<i8, 32>
  kernel.return
}

// -----

kernel.func @unpack_c1(%w: !kernel.weights<q4, 2x32x32, stride = 576>, %i: index) {
  // expected-error@+1 {{expects a matrix, got a bank of 2}}
  %v = kernel.unpack %w[%i, %i] : !kernel.weights<q4, 2x32x32, stride = 576>
  kernel.return
}
