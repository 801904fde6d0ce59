// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot | FileCheck %s --check-prefix=STAGED
// RUN: freeport-opt %s --freeport-vulkan-pipeline | FileCheck %s

// 20 KB of staged elements are shared memory where the device has 32 KB; where it has 16, they are read where they came
// from, through the same index.
// STAGED-LABEL: spirv.module @stage
// STAGED: !spirv.ptr<!spirv.array<5120 x i32>, Workgroup>
// STAGED: spirv.Store "Workgroup"
// STAGED: spirv.Load "Workgroup"
// CHECK-LABEL: spirv.module @stage
// CHECK-NOT: Workgroup>
// CHECK-NOT: spirv.Store "Workgroup"
// CHECK: spirv.FunctionCall @half_to_float
// CHECK: spirv.Store "StorageBuffer"
kernel.func @stage(%x: !kernel.buffer<f16>, %y: !kernel.buffer<f32>, %at: index) {
  %c0 = arith.constant 0 : index
  %c32 = arith.constant 32 : index
  %m = kernel.local 5120 : !kernel.buffer<f32>
  kernel.stage %x[%at] pitch 160 to %m columns 160 : !kernel.buffer<f16> to !kernel.buffer<f32>
  %v = kernel.load_lanes %m[%c32] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_lanes %v, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
