// RUN: freeport-opt %s --freeport-cpu-lower-kernel --split-input-file | FileCheck %s

// Lane 0 of the tree depends on half of the lanes, a quarter, …: each round halves the vector.
// CHECK-LABEL: func.func @reduce_add
// CHECK: %[[HIGH:.+]] = vector.shuffle %{{.+}}, %{{.+}} [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]
// CHECK: arith.addf %{{.+}}, %[[HIGH]] : vector<16xf32>
// CHECK: arith.addf %{{.+}}, %{{.+}} : vector<8xf32>
// CHECK: arith.addf %{{.+}}, %{{.+}} : vector<4xf32>
// CHECK: arith.addf %{{.+}}, %{{.+}} : vector<2xf32>
// CHECK: %[[LAST:.+]] = arith.addf %{{.+}}, %{{.+}} : vector<1xf32>
// CHECK: vector.extract %[[LAST]][0]
kernel.func @reduce_add(%b: !kernel.buffer<f32>, %n: index) {
  %v = kernel.load_lanes %b[%n] : !kernel.buffer<f32> -> vector<32xf32>
  %r = kernel.reduce add %v : vector<32xf32> -> f32
  kernel.store %r, %b[%n] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// `max` is a > b ? a : b.
// CHECK-LABEL: func.func @reduce_max
// CHECK: %[[WINS:.+]] = arith.cmpf ogt, %[[A:.+]], %[[B:.+]] : vector<16xf32>
// CHECK: arith.select %[[WINS]], %[[A]], %[[B]]
kernel.func @reduce_max(%b: !kernel.buffer<f32>, %n: index) {
  %v = kernel.load_lanes %b[%n] : !kernel.buffer<f32> -> vector<32xf32>
  %r = kernel.reduce max %v : vector<32xf32> -> f32
  kernel.store %r, %b[%n] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// CHECK-LABEL: func.func @argmax
// CHECK: %[[GREATER:.+]] = arith.cmpf ogt
// CHECK: %[[EQUAL:.+]] = arith.cmpf oeq
// CHECK: %[[BEFORE:.+]] = arith.cmpi slt
// CHECK: %[[TIE:.+]] = arith.andi %[[EQUAL]], %[[BEFORE]]
// CHECK: arith.ori %[[GREATER]], %[[TIE]]
kernel.func @argmax(%b: !kernel.buffer<f32>, %i: !kernel.buffer<i32>, %n: index) {
  %lane = kernel.lane_id
  %v = kernel.load_lanes %b[%n] : !kernel.buffer<f32> -> vector<32xf32>
  %m, %at = kernel.argmax %v, %lane
  kernel.store %at, %i[%n] : i32, !kernel.buffer<i32>
  kernel.return
}

// -----

// CHECK-LABEL: func.func @scan
// CHECK: vector.shuffle %{{.+}}, %{{.+}} [31, 32, 33
// CHECK-COUNT-5: arith.addi %{{.+}}, %{{.+}} : vector<32xi32>
kernel.func @scan(%i: !kernel.buffer<i32>, %n: index) {
  %v = kernel.load_lanes %i[%n] : !kernel.buffer<i32> -> vector<32xi32>
  %s = kernel.scan %v
  kernel.store_lanes %s, %i[%n] : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
}

// -----

// CHECK-LABEL: func.func @sqrt_and_broadcast
// CHECK: %[[ROOT:.+]] = llvm.intr.sqrt(%{{.+}}) : (vector<32xf32>) -> vector<32xf32>
// CHECK: llvm.store %[[ROOT]], %[[SLOT:[0-9]+]] {{.*}}: vector<32xf32>, !llvm.ptr
// CHECK: %[[LANE:.+]] = llvm.getelementptr %[[SLOT]][%{{.+}}] : (!llvm.ptr, i64) -> !llvm.ptr, f32
// CHECK: llvm.load %[[LANE]] {{.*}}: !llvm.ptr -> f32
kernel.func @sqrt_and_broadcast(%b: !kernel.buffer<f32>, %n: index) {
  %v = kernel.load_lanes %b[%n] : !kernel.buffer<f32> -> vector<32xf32>
  %r = kernel.sqrt %v : vector<32xf32>
  %s = kernel.broadcast %r[%n] : vector<32xf32> -> f32
  kernel.store %s, %b[%n] : f32, !kernel.buffer<f32>
  kernel.return
}
