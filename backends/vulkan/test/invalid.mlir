// RUN: freeport-opt %s --freeport-vulkan-lower-kernel --split-input-file --verify-diagnostics

// expected-error @+1 {{expects at most 16384 bytes of shared memory, got 20480}}
kernel.func @too_much_local(%x: !kernel.buffer<f32>, %at: index) {
  %m = kernel.local 5120 : !kernel.buffer<f32>
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_lanes %v, %m[%at] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// expected-error @+1 {{expects units of weights of at most}}
kernel.func @units_too_large(%w: !kernel.weights<f32, 128x2000000>, %y: !kernel.buffer<f32>, %t: index) {
  %v = kernel.unpack %w[%t, %t] : !kernel.weights<f32, 128x2000000>
  kernel.store_lanes %v, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
