// RUN: freeport-opt %s --freeport-vulkan-pipeline --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot --split-input-file | FileCheck %s --check-prefix=DOT

// Codes of q4 are unsigned, 8 too large: eight words of activations against the low and high nibbles of four, less 8 times
// the sum of the bytes. Without the instruction the bytes are multiplied one by one.
// CHECK-LABEL: spirv.module @q4
// CHECK-NOT: spirv.SUDot
// CHECK: spirv.mlir.loop
// CHECK: spirv.BitwiseAnd %{{.+}}, %cst252645135_i32 : i32
// CHECK: spirv.FunctionCall @half_to_float
// CHECK-COUNT-32: spirv.IMul
// CHECK: spirv.ConvertSToF
// CHECK: spirv.FMul %{{.+}}, %{{.+}} {no_contraction} : f32
// CHECK: spirv.FAdd %{{.+}}, %{{.+}} {no_contraction} : f32
// DOT-LABEL: spirv.module @q4
// DOT-SAME: DotProductInput4x8BitPacked
// DOT: spirv.IMul %{{.+}}, %cst-8_i32 : i32
// DOT-COUNT-8: spirv.SUDot %{{.+}}, %{{.+}}, <PackedVectorFormat4x8Bit> : i32 -> i32
// DOT-NOT: spirv.SUDot
kernel.func @q4(%w: !kernel.weights<q4, 64x96>, %x: !kernel.activations<i8, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%t] : !kernel.weights<q4, 64x96>, !kernel.activations<i8, 96> -> vector<1x1x32xf32>
  %l = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Several tokens share the words of a row.
// DOT-LABEL: spirv.module @q8_tokens
// DOT-COUNT-16: spirv.SDot %{{.+}}, %{{.+}}, <PackedVectorFormat4x8Bit> : i32 -> i32
// DOT-NOT: spirv.SDot
kernel.func @q8_tokens(%w: !kernel.weights<q8, 64x96>, %x: !kernel.activations<i8, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%c0, %c1] : !kernel.weights<q8, 64x96>, !kernel.activations<i8, 96> -> vector<1x2x32xf32>
  %l = vector.extract %v[0, 1] : vector<32xf32> from vector<1x2x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Floats: products and sums stay separate, inputs ascending.
// CHECK-LABEL: spirv.module @f32
// CHECK: spirv.mlir.loop
// CHECK: spirv.mlir.loop
// CHECK: %[[PRODUCT:.+]] = spirv.FMul %{{.+}}, %{{.+}} {no_contraction} : f32
// CHECK: spirv.FAdd %{{.+}}, %[[PRODUCT]] {no_contraction} : f32
kernel.func @f32(%w: !kernel.weights<f32, 64x96>, %x: !kernel.activations<f32, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%t] : !kernel.weights<f32, 64x96>, !kernel.activations<f32, 96> -> vector<1x1x32xf32>
  %l = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Two halves a word: bf16 by a shift and a mask, f16 by the exact conversion.
// CHECK-LABEL: spirv.module @bf16
// CHECK: spirv.ShiftLeftLogical %{{.+}}, %cst16_i32 : i32, i32
// CHECK: spirv.BitwiseAnd %{{.+}}, %cst-65536_i32 : i32
kernel.func @bf16(%w: !kernel.weights<bf16, 64x96>, %x: !kernel.activations<f32, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows [%t] span %c0, %x tokens [%t] : !kernel.weights<bf16, 64x96>, !kernel.activations<f32, 96> -> vector<1x1x32xf32>
  %l = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// CHECK-LABEL: spirv.module @f16_bank
// CHECK-COUNT-2: spirv.FunctionCall @half_to_float
kernel.func @f16_bank(%w: !kernel.weights<f16, 4x64x96, stride = 12288>, %x: !kernel.activations<f32, 96>, %y: !kernel.buffer<f32>, %t: index) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w entry %t rows [%c0] span %c0, %x tokens [%t] : !kernel.weights<f16, 4x64x96, stride = 12288>, !kernel.activations<f32, 96> -> vector<1x1x32xf32>
  %l = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// A lane is an input; those past the matrix's last are zero.
// CHECK-LABEL: spirv.module @unpack_q4
// CHECK: spirv.BitwiseAnd %{{.+}}, %cst15_i32 : i32
// CHECK: spirv.ISub %{{.+}}, %cst8_i32 : i32
// CHECK: spirv.SLessThan %{{.+}}, %cst90_i32 : i32
// CHECK: spirv.Select
kernel.func @unpack_q4(%w: !kernel.weights<q4, 64x90>, %y: !kernel.buffer<f32>, %t: index) {
  %v = kernel.unpack %w[%t, %t] : !kernel.weights<q4, 64x90>
  kernel.store_lanes %v, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// 1,050 MB of weights are nine bindings, cut at row blocks; the program computes the piece.
// CHECK-LABEL: spirv.module @large
// CHECK-SAME: StorageBufferArrayDynamicIndexing
// CHECK: spirv.GlobalVariable @argument0 bind(0, 1) {aliased} : !spirv.ptr<!spirv.array<8 x !spirv.struct<
// CHECK: %[[PIECE:.+]] = spirv.SDiv %{{.+}}, %cst508_i32 : i32
// CHECK: spirv.AccessChain %argument0_addr[%[[PIECE]], %cst0_i32, %{{.+}}]
kernel.func @large(%w: !kernel.weights<f32, 128256x2048>, %y: !kernel.buffer<f32>, %t: index) {
  %v = kernel.unpack %w[%t, %t] : !kernel.weights<f32, 128256x2048>
  kernel.store_lanes %v, %y[%t] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
