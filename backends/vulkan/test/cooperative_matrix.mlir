// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=matrix32 --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=matrix16 --split-input-file | FileCheck %s --check-prefix=K16
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot --split-input-file | FileCheck %s --check-prefix=DOT

// Sixteen tokens: 32 rows x 32 inputs by 32 inputs x 16 tokens are two products of 16 x 32 by 32 x 16, or four where the
// device takes 16 inputs at a time. The sums are exact; what follows is what follows any dot.
// CHECK-LABEL: spirv.module @q4 Logical Vulkan
// CHECK-SAME: v1.6
// CHECK-SAME: Int8, VulkanMemoryModel, CooperativeMatrixKHR
// CHECK: spirv.GlobalVariable @matrices : !spirv.ptr<!spirv.array<1088 x i32>, Workgroup>
// CHECK: spirv.mlir.loop
// CHECK: spirv.Store "Workgroup" %{{.+}}, %{{.+}} ["NonPrivatePointer"] : i32
// CHECK: spirv.ControlBarrier <Workgroup>, <Workgroup>, <AcquireRelease|UniformMemory|WorkgroupMemory|MakeAvailable|MakeVisible>
// CHECK: spirv.CompositeConstruct %cst0_i32 : (i32) -> !spirv.coopmatrix<16x16xi32, Subgroup, MatrixAcc>
// CHECK: spirv.KHR.CooperativeMatrixLoad %{{.+}}, %cst12_i32, <RowMajor>, <NonPrivatePointer> : !spirv.ptr<i32, Workgroup>, i32 -> !spirv.coopmatrix<16x32xi8, Subgroup, MatrixA>
// CHECK: spirv.KHR.CooperativeMatrixLoad %{{.+}}, %cst12_i32, <ColumnMajor>, <NonPrivatePointer> : !spirv.ptr<i32, Workgroup>, i32 -> !spirv.coopmatrix<32x16xi8, Subgroup, MatrixB>
// CHECK: spirv.KHR.CooperativeMatrixMulAdd %{{.+}}, %{{.+}}, %{{.+}}, <ASigned|BSigned|CSigned|ResultSigned>
// CHECK: spirv.KHR.CooperativeMatrixStore %{{.+}}, %{{.+}}, %cst32_i32, <ColumnMajor>, <NonPrivatePointer>
// CHECK: spirv.KHR.CooperativeMatrixMulAdd
// CHECK-NOT: spirv.KHR.CooperativeMatrixMulAdd
// CHECK: spirv.ControlBarrier
// CHECK: spirv.ConvertSToF
// CHECK: spirv.FMul %{{.+}}, %{{.+}} {no_contraction} : f32
// CHECK: spirv.FAdd %{{.+}}, %{{.+}} {no_contraction} : f32
// K16-LABEL: spirv.module @q4
// K16-COUNT-4: spirv.KHR.CooperativeMatrixMulAdd {{.+}} : !spirv.coopmatrix<16x16xi8, Subgroup, MatrixA>
// K16-NOT: spirv.KHR.CooperativeMatrixMulAdd
// DOT-LABEL: spirv.module @q4 Logical GLSL450
// DOT-NOT: CooperativeMatrix
kernel.func @q4(%w: !kernel.weights<q4, 64x96>, %x: !kernel.activations<i8, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%c0, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t] : !kernel.weights<q4, 64x96>, !kernel.activations<i8, 96> -> vector<1x16x32xf32>
  %l = vector.extract %v[0, 1] : vector<32xf32> from vector<1x16x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Fewer tokens would leave most of a matrix empty.
// CHECK-LABEL: spirv.module @few Logical GLSL450
// CHECK-NOT: CooperativeMatrix
// CHECK: spirv.SDot
kernel.func @few(%w: !kernel.weights<q8, 64x96>, %x: !kernel.activations<i8, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%c0, %t, %t, %t] : !kernel.weights<q8, 64x96>, !kernel.activations<i8, 96> -> vector<1x4x32xf32>
  %l = vector.extract %v[0, 1] : vector<32xf32> from vector<1x4x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// A matrix unit adds floats in an order of its own.
// CHECK-LABEL: spirv.module @floats Logical GLSL450
// CHECK-NOT: CooperativeMatrix
kernel.func @floats(%w: !kernel.weights<bf16, 64x96>, %x: !kernel.activations<f32, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%c0, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t, %t] : !kernel.weights<bf16, 64x96>, !kernel.activations<f32, 96> -> vector<1x16x32xf32>
  %l = vector.extract %v[0, 1] : vector<32xf32> from vector<1x16x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
