// RUN: freeport-opt %s --freeport-cpu-pipeline --split-input-file | FileCheck %s --implicit-check-not=fma --implicit-check-not=fastmath
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v4-avx512vnni --split-input-file | FileCheck %s --check-prefix=VNNI --implicit-check-not=fma --implicit-check-not=fastmath
// RUN: freeport-opt %s --freeport-cpu-pipeline=profile=x86-64-v3-avxvnni --split-input-file | FileCheck %s --check-prefix=AVXVNNI

// One token: all lanes together; the group's sum, eightfold, is taken off.
// CHECK-LABEL: llvm.func @q4_one_token
// CHECK: llvm.lshr %{{.+}}, %{{.+}} : vector<16xi16>
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"(%{{.+}}, %{{.+}}) : (vector<32xi8>, vector<32xi8>) -> vector<16xi16>
// CHECK-NOT: psign
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"(%{{.+}}, %{{.+}}) : (vector<16xi16>, vector<16xi16>) -> vector<8xi32>
// CHECK: llvm.mul %{{.+}}, %{{.+}} : i32
// CHECK: llvm.sub %{{.+}}, %{{.+}} : vector<8xi32>
// CHECK: llvm.fpext %{{.+}} : vector<8xf16> to vector<8xf32>
// CHECK: %[[DOT:.+]] = llvm.sitofp %{{.+}} : vector<8xi32> to vector<8xf32>
// CHECK: %[[SCALE:.+]] = llvm.fmul %{{.+}}, %{{.+}} : vector<8xf32>
// CHECK: %[[VALUE:.+]] = llvm.fmul %[[DOT]], %[[SCALE]] : vector<8xf32>
// CHECK: llvm.fadd %{{.+}}, %[[VALUE]] : vector<8xf32>
kernel.func @q4_one_token(%w: !kernel.weights<q4, 128x64>, %x: !kernel.activations<i8, 64>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = kernel.span_dot %w rows[%c0, %c1] span %c0, %x tokens[%c0]
       : !kernel.weights<q4, 128x64>, !kernel.activations<i8, 64> -> vector<2x1x32xf32>
  %lanes = vector.extract %v[1, 0] : vector<32xf32> from vector<2x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Two tokens: strips of eight lanes, whose sums go through the stack.
// CHECK-LABEL: llvm.func @q4_two_tokens
// CHECK: llvm.alloca %{{.+}} x i8 {alignment = 64 : i64}
// CHECK: pmadd.ub.sw
// CHECK: llvm.store %{{.+}}, %{{.+}} {alignment = 4 : i64} : vector<8xf32>, !llvm.ptr
// CHECK: llvm.load %{{.+}} {alignment = 4 : i64} : !llvm.ptr -> vector<32xf32>
kernel.func @q4_two_tokens(%w: !kernel.weights<q4, 32x64>, %x: !kernel.activations<i8, 64>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0, %c1]
       : !kernel.weights<q4, 32x64>, !kernel.activations<i8, 64> -> vector<1x2x32xf32>
  %lanes = vector.extract %v[0, 1] : vector<32xf32> from vector<1x2x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Weights of q8 are signed: their magnitude is the unsigned side, and the activation takes their sign.
// CHECK-LABEL: llvm.func @q8
// CHECK: llvm.intr.abs"(%{{.+}}) <{is_int_min_poison = false}>
// CHECK: %[[X:.+]] = llvm.call_intrinsic "llvm.x86.avx2.psign.b"
// CHECK: %[[PAIRS:.+]] = llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"(%{{.+}}, %[[X]])
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"(%[[PAIRS]], %{{.+}})
kernel.func @q8(%w: !kernel.weights<q8, 32x32>, %x: !kernel.activations<i8, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<q8, 32x32>, !kernel.activations<i8, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// CHECK-LABEL: llvm.func @f16
// CHECK: llvm.load %{{.+}} {alignment = 2 : i64} : !llvm.ptr -> vector<16xf16>
// CHECK: llvm.fpext %{{.+}} : vector<8xf16> to vector<8xf32>
// CHECK: %[[VALUE:.+]] = llvm.fmul
// CHECK: llvm.fadd %{{.+}}, %[[VALUE]] : vector<8xf32>
kernel.func @f16(%w: !kernel.weights<f16, 32x32>, %x: !kernel.activations<f32, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<f16, 32x32>, !kernel.activations<f32, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// CHECK-LABEL: llvm.func @bf16
// CHECK: llvm.load %{{.+}} {alignment = 4 : i64} : !llvm.ptr -> vector<8xi32>
// CHECK: llvm.shl %{{.+}}, %{{.+}} : vector<8xi32>
// CHECK: llvm.and %{{.+}}, %{{.+}} : vector<8xi32>
// CHECK: llvm.fmul
// CHECK: llvm.fadd
kernel.func @bf16(%w: !kernel.weights<bf16, 32x32>, %x: !kernel.activations<f32, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<bf16, 32x32>, !kernel.activations<f32, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Fifths bits are one dword, turned to where the nibble ends; four sums of two products fit in 16 bits.
// CHECK-LABEL: llvm.func @q5
// CHECK: llvm.or %{{.+}}, %{{.+}} : vector<32xi8>
// CHECK-COUNT-2: llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
// VNNI-LABEL: llvm.func @q5
// VNNI-NOT: pmadd
// VNNI-COUNT-16: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.256"(%{{.+}}, %{{.+}}, %{{.+}}) : (vector<8xi32>, vector<8xi32>, vector<8xi32>) -> vector<8xi32>
kernel.func @q5(%w: !kernel.weights<q5, 32x32>, %x: !kernel.activations<i8, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<q5, 32x32>, !kernel.activations<i8, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Two tokens share the loads of their weights: registers of 512 bits then hold more products.
// CHECK-LABEL: llvm.func @q5_tokens
// VNNI-LABEL: llvm.func @q5_tokens
// VNNI-NOT: pmadd
// VNNI-COUNT-16: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%{{.+}}, %{{.+}}, %{{.+}}) : (vector<16xi32>, vector<16xi32>, vector<16xi32>) -> vector<16xi32>
kernel.func @q5_tokens(%w: !kernel.weights<q5, 32x32>, %x: !kernel.activations<i8, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0, %c1]
       : !kernel.weights<q5, 32x32>, !kernel.activations<i8, 32> -> vector<1x2x32xf32>
  %lanes = vector.extract %v[0, 1] : vector<32xf32> from vector<1x2x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// A scale multiplies the exact dot, then both products of steps round, then their difference.
// CHECK-LABEL: llvm.func @q4_k
// CHECK: llvm.mul %{{.+}}, %{{.+}} : vector<8xi32>
// CHECK: llvm.fsub %{{.+}}, %{{.+}} : vector<8xf32>
// CHECK: llvm.fadd
// AVXVNNI-LABEL: llvm.func @q4_k
// AVXVNNI: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.256"(%{{.+}}, %{{.+}}, %{{.+}}) : (vector<8xi32>, vector<8xi32>, vector<8xi32>) -> vector<8xi32>
// AVXVNNI: llvm.mul %{{.+}}, %{{.+}} : vector<8xi32>
// AVXVNNI: llvm.fsub %{{.+}}, %{{.+}} : vector<8xf32>
kernel.func @q4_k(%w: !kernel.weights<q4_k, 32x32>, %x: !kernel.activations<i8, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<q4_k, 32x32>, !kernel.activations<i8, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Each half of a group has a scale of its own; the values are signed.
// CHECK-LABEL: llvm.func @q6_k
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.psign.b"
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
// CHECK: llvm.mul %{{.+}}, %{{.+}} : vector<8xi32>
// CHECK: llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
// CHECK: llvm.mul %{{.+}}, %{{.+}} : vector<8xi32>
// VNNI-LABEL: llvm.func @q6_k
// VNNI: llvm.call_intrinsic "llvm.x86.avx2.psign.b"
kernel.func @q6_k(%w: !kernel.weights<q6_k, 32x32>, %x: !kernel.activations<i8, 32>, %y: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %v = kernel.span_dot %w rows[%c0] span %c0, %x tokens[%c0]
       : !kernel.weights<q6_k, 32x32>, !kernel.activations<i8, 32> -> vector<1x1x32xf32>
  %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %lanes, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
