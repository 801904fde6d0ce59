// RUN: freeport-opt %s --freeport-vulkan-pipeline --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot --split-input-file | FileCheck %s --check-prefix=HALF

// A load is a word at a byte offset out of the block of sizes plus the element's; a uniform store is the first lane's.
// CHECK-LABEL: spirv.module @uniform
// CHECK-DAG: spirv.GlobalVariable @parameters bind(0, 0)
// CHECK-DAG: spirv.GlobalVariable @argument0 bind(0, 1) {aliased}
// CHECK-DAG: spirv.GlobalVariable @argument1 bind(0, 2) {aliased}
// CHECK: %[[LANE:.+]] = spirv.CompositeExtract %{{.+}}[0 : i32]
// CHECK: %[[WORD:.+]] = spirv.Load "StorageBuffer" %{{.+}} : i32
// CHECK: %[[FIRST:.+]] = spirv.IEqual %{{.+}}, %cst0_i32 : i32
// CHECK: spirv.BranchConditional %[[FIRST]]
// CHECK: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i32
// CHECK: spirv.EntryPoint "GLCompute" @main
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 1, 1
kernel.func @uniform(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load %x[%at] : !kernel.buffer<f32> -> f32
  kernel.store %v, %y[%at] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// Masked lanes read the first element and drop it; masked stores are not made.
// CHECK-LABEL: spirv.module @masked
// CHECK: %[[INSIDE:.+]] = spirv.SLessThan %{{.+}}, %cst20_i32 : i32
// CHECK: spirv.Select %[[INSIDE]], %{{.+}}, %cst0_i32 : i1, i32
// CHECK: spirv.Load "StorageBuffer"
// CHECK: spirv.BranchConditional %[[INSIDE]]
// CHECK: spirv.Store "StorageBuffer"
// CHECK-NOT: spirv.ControlBarrier
kernel.func @masked(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>, %at: index) {
  %lane = kernel.lane_id
  %twenty = arith.constant dense<20> : vector<32xi32>
  %inside = arith.cmpi slt, %lane, %twenty : vector<32xi32>
  %v = kernel.load_lanes %x[%at] mask %inside : !kernel.buffer<i32> -> vector<32xi32>
  kernel.store_lanes %v, %y[%at] mask %inside : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
}

// -----

// CHECK-LABEL: spirv.module @gather_scatter
// CHECK: spirv.Load "StorageBuffer"
// CHECK: spirv.Store "StorageBuffer"
kernel.func @gather_scatter(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
  %lane = kernel.lane_id
  %two = arith.constant dense<2> : vector<32xi32>
  %offsets = arith.muli %lane, %two : vector<32xi32>
  %v = kernel.gather %x[%at][%offsets] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.scatter %v, %y[%at][%offsets] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Without 16-bit storage a half is read out of its word and written as two bytes; with it, it is one element.
// CHECK-LABEL: spirv.module @halves
// CHECK-NOT: StorageBuffer16BitAccess
// CHECK: spirv.GlobalVariable @argument1_bytes bind(0, 2) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<i8, stride=1> [0])>, StorageBuffer>
// CHECK-COUNT-2: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i8
// HALF-LABEL: spirv.module @halves
// HALF-SAME: StorageBuffer16BitAccess
// HALF: spirv.GlobalVariable @argument1_halves bind(0, 2) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<i16, stride=2> [0])>, StorageBuffer>
// HALF: spirv.Load "StorageBuffer" %{{.+}} : i16
// HALF: spirv.FunctionCall @half_to_float
// HALF: spirv.FunctionCall @float_to_half
// HALF: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i16
kernel.func @halves(%x: !kernel.buffer<f16>, %y: !kernel.buffer<f16>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f16> -> vector<32xf16>
  %f = arith.extf %v : vector<32xf16> to vector<32xf32>
  %h = arith.truncf %f : vector<32xf32> to vector<32xf16>
  kernel.store_lanes %h, %y[%at] : vector<32xf16>, !kernel.buffer<f16>
  kernel.return
}

// -----

// Local memory is shared by the invocations. Lanes that meet only their own elements need no barrier; a lane that reads
// another's does, and so does a write behind that read.
// CHECK-LABEL: spirv.module @local
// CHECK: spirv.GlobalVariable @local{{[0-9]*}} : !spirv.ptr<!spirv.array<64 x i32>, Workgroup>
// CHECK: spirv.Store "Workgroup"
// CHECK-NOT: spirv.ControlBarrier
// CHECK: spirv.Load "Workgroup"
// CHECK: spirv.Store "Workgroup"
// CHECK: spirv.ControlBarrier <Workgroup>, <Workgroup>, <AcquireRelease|UniformMemory|WorkgroupMemory>
// CHECK: spirv.Load "Workgroup"
// CHECK: spirv.ControlBarrier
// CHECK: spirv.Store "Workgroup"
kernel.func @local(%x: !kernel.buffer<f32>) {
  %c0 = arith.constant 0 : index
  %c32 = arith.constant 32 : index
  %c7 = arith.constant 7 : index
  %m = kernel.local 64 : !kernel.buffer<f32>
  %v = kernel.load_lanes %x[%c0] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_lanes %v, %m[%c0] : vector<32xf32>, !kernel.buffer<f32>
  %w = kernel.load_lanes %m[%c0] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_lanes %w, %m[%c32] : vector<32xf32>, !kernel.buffer<f32>
  %u = kernel.load %m[%c7] : !kernel.buffer<f32> -> f32
  %l = vector.broadcast %u : f32 to vector<32xf32>
  kernel.store_lanes %l, %m[%c0] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Quantised activations: a byte a lane, then scale and sum by the first lane.
// CHECK-LABEL: spirv.module @store_group_i8
// CHECK: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i8
// CHECK: spirv.BranchConditional
// CHECK: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i32
// CHECK: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i32
kernel.func @store_group_i8(%x: !kernel.buffer<i8>, %a: !kernel.activations<i8, 64>, %t: index) {
  %v = kernel.load_lanes %x[%t] : !kernel.buffer<i8> -> vector<32xi8>
  %s = arith.constant 1.0 : f32
  %n = arith.constant 3 : i32
  kernel.store_group %v scale %s sum %n, %a[%t, %t] : vector<32xi8>, !kernel.activations<i8, 64>
  kernel.return
}

// -----

// CHECK-LABEL: spirv.module @store_group_f32
// CHECK: spirv.Store "StorageBuffer" %{{.+}}, %{{.+}} : i32
// CHECK-NOT: spirv.Store
kernel.func @store_group_f32(%x: !kernel.buffer<f32>, %a: !kernel.activations<f32, 64>, %t: index) {
  %v = kernel.load_lanes %x[%t] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_group %v, %a[%t, %t] : vector<32xf32>, !kernel.activations<f32, 64>
  kernel.return
}
