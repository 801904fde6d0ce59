// RUN: freeport-opt %s --freeport-cpu-lower-kernel --split-input-file --verify-diagnostics | FileCheck %s

// Binding i is memory argument i, scalar j the j-th index argument; the grid's place comes as three integers.
// CHECK-LABEL: func.func @arguments(
// CHECK-SAME: %[[BINDINGS:.+]]: !llvm.ptr, %[[SCALARS:.+]]: !llvm.ptr, %[[X:.+]]: i64, %[[Y:.+]]: i64, %[[Z:.+]]: i64)
// CHECK: %[[PLACE:.+]] = arith.index_cast %[[Y]] : i64 to index
// CHECK: %[[FIRST:.+]] = llvm.load %[[BINDINGS]] {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
// CHECK: %[[AT:.+]] = llvm.getelementptr %[[BINDINGS]][8]
// CHECK: %[[SECOND:.+]] = llvm.load %[[AT]] {alignment = 8 : i64} : !llvm.ptr -> !llvm.ptr
// CHECK: %[[AT2:.+]] = llvm.getelementptr %[[SCALARS]][8]
// CHECK: llvm.load %[[AT2]] {alignment = 8 : i64} : !llvm.ptr -> i64
// CHECK: llvm.getelementptr %[[FIRST]][%{{.+}}] : (!llvm.ptr, i64) -> !llvm.ptr, f16
// CHECK: llvm.getelementptr %[[SECOND]][%{{.+}}] : (!llvm.ptr, i64) -> !llvm.ptr, f32
kernel.func @arguments(%a: !kernel.buffer<f16>, %b: !kernel.buffer<f32>, %n: index, %m: index) {
  %y = kernel.program_id y
  %v = kernel.load_lanes %a[%y] : !kernel.buffer<f16> -> vector<32xf16>
  %w = arith.extf %v : vector<32xf16> to vector<32xf32>
  kernel.store_lanes %w, %b[%m] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// CHECK-LABEL: func.func @masks
// CHECK: arith.extsi %{{.+}} : vector<32xi1> to vector<32xi32>
// CHECK-COUNT-4: llvm.call_intrinsic "llvm.x86.avx2.maskload.d.256"
// CHECK: llvm.intr.masked.gather %{{.+}}, %{{.+}}, %{{.+}} {alignment = 4 : i32}
// CHECK: llvm.intr.masked.scatter %{{.+}}, %{{.+}}, %{{.+}} {alignment = 4 : i32}
// CHECK-COUNT-4: llvm.call_intrinsic "llvm.x86.avx2.maskstore.d.256"
kernel.func @masks(%a: !kernel.buffer<i32>, %n: index) {
  %lane = kernel.lane_id
  %v = kernel.load_lanes %a[%n] : !kernel.buffer<i32> -> vector<32xi32>
  %mask = arith.cmpi slt, %lane, %v : vector<32xi32>
  %w = kernel.load_lanes %a[%n] mask %mask : !kernel.buffer<i32> -> vector<32xi32>
  %g = kernel.gather %a[%n][%w] mask %mask : !kernel.buffer<i32> -> vector<32xi32>
  kernel.scatter %g, %a[%n][%w] mask %mask : vector<32xi32>, !kernel.buffer<i32>
  kernel.store_lanes %g, %a[%n] mask %mask : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
}

// -----

// Local memory is on the stack, in the entry block; eight rows of eight columns at a time are transposed in registers.
// CHECK-LABEL: func.func @stage
// CHECK: llvm.alloca %{{.+}} x i8 {alignment = 64 : i64}
// CHECK: scf.for
// CHECK-COUNT-8: llvm.load %{{.+}} {alignment = 2 : i64} : !llvm.ptr -> vector<8xf16>
// CHECK: vector.shuffle %{{.+}}, %{{.+}} [0, 8, 1, 9, 4, 12, 5, 13] : vector<8xf32>, vector<8xf32>
// CHECK: llvm.store %{{.+}}, %{{.+}} {alignment = 4 : i64} : vector<8xf32>, !llvm.ptr
kernel.func @stage(%a: !kernel.buffer<f16>, %n: index) {
  %l = kernel.local 512 : !kernel.buffer<f32>
  kernel.stage %a[%n] pitch 16 to %l columns 16 : !kernel.buffer<f16> to !kernel.buffer<f32>
  kernel.return
}

// -----

kernel.func @chosen_memory(%a: !kernel.buffer<f32>, %b: !kernel.buffer<f32>, %n: index) {
  %c0 = arith.constant 0 : index
  %more = arith.cmpi sgt, %n, %c0 : index
  // expected-error@+1 {{expects memory operands to go from arguments and kernel.local to kernel ops directly}}
  %c = arith.select %more, %a, %b : !kernel.buffer<f32>
  %v = kernel.load %c[%n] : !kernel.buffer<f32> -> f32
  kernel.return
}
