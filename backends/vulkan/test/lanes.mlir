// RUN: freeport-opt %s --freeport-vulkan-pipeline --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline='profile=dot subgroup=4' --split-input-file | FileCheck %s --check-prefixes=SHUFFLE,FOUR
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot_subgroup8 --split-input-file | FileCheck %s --check-prefixes=SHUFFLE,EIGHT
// RUN: freeport-opt %s --freeport-vulkan-pipeline='profile=dot subgroup=16' --split-input-file | FileCheck %s --check-prefixes=SHUFFLE,SIXTEEN
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot_subgroup32 --split-input-file | FileCheck %s --check-prefix=WHOLE
// RUN: freeport-opt %s --freeport-vulkan-pipeline='profile=dot subgroup=64' --split-input-file | FileCheck %s

// The tree combines lanes 16, 8, 4, 2 and 1 apart. Without subgroups (and with those of 64, which 32 invocations never
// fill) every invocation computes it out of shared memory; with them, only the distances beyond a subgroup.
// CHECK-LABEL: spirv.module @reduce
// CHECK: spirv.Store "Workgroup"
// CHECK: spirv.ControlBarrier
// CHECK-COUNT-32: spirv.Load "Workgroup"
// CHECK-COUNT-31: spirv.FAdd %{{.+}}, %{{.+}} {no_contraction} : f32
// CHECK-NOT: spirv.GroupNonUniform

// SHUFFLE-LABEL: spirv.module @reduce
// SHUFFLE-SAME: GroupNonUniformShuffle
// SHUFFLE: spirv.ControlBarrier
// FOUR-COUNT-8: spirv.Load "Workgroup"
// EIGHT-COUNT-4: spirv.Load "Workgroup"
// SIXTEEN-COUNT-2: spirv.Load "Workgroup"
// FOUR-NOT: spirv.Load "Workgroup"
// EIGHT-NOT: spirv.Load "Workgroup"
// SIXTEEN-NOT: spirv.Load "Workgroup"
// FOUR-COUNT-2: spirv.GroupNonUniformShuffleXor <Subgroup>
// EIGHT-COUNT-3: spirv.GroupNonUniformShuffleXor <Subgroup>
// SIXTEEN-COUNT-4: spirv.GroupNonUniformShuffleXor <Subgroup>
// SHUFFLE: spirv.GroupNonUniformBroadcast <Subgroup>

// WHOLE-LABEL: spirv.module @reduce
// WHOLE-NOT: Workgroup>
// WHOLE-COUNT-5: spirv.GroupNonUniformShuffleXor <Subgroup>
// WHOLE: spirv.GroupNonUniformBroadcast <Subgroup>
// WHOLE-NOT: spirv.ControlBarrier
kernel.func @reduce(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %r = kernel.reduce add %v : vector<32xf32> -> f32
  kernel.store %r, %y[%at] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// `max` is a > b ? a : b, for integers and floats; a second reduction waits until all have read the first.
// CHECK-LABEL: spirv.module @reduce_twice
// CHECK: spirv.ControlBarrier
// CHECK: spirv.FOrdGreaterThan
// CHECK: spirv.ControlBarrier
// CHECK: spirv.ControlBarrier
// CHECK: spirv.SLessThan
kernel.func @reduce_twice(%x: !kernel.buffer<f32>, %i: !kernel.buffer<i32>, %y: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %r = kernel.reduce max %v : vector<32xf32> -> f32
  %w = kernel.load_lanes %i[%at] : !kernel.buffer<i32> -> vector<32xi32>
  %s = kernel.reduce min %w : vector<32xi32> -> i32
  %f = arith.sitofp %s : i32 to f32
  %t = arith.addf %r, %f : f32
  kernel.store %t, %y[%at] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// Values and indices go through the tree together.
// CHECK-LABEL: spirv.module @argmax
// CHECK-COUNT-64: spirv.Load "Workgroup"
// CHECK: spirv.FOrdEqual
// WHOLE-LABEL: spirv.module @argmax
// WHOLE-COUNT-10: spirv.GroupNonUniformShuffleXor <Subgroup>
kernel.func @argmax(%x: !kernel.buffer<f32>, %y: !kernel.buffer<i32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %lane = kernel.lane_id
  %m, %i = kernel.argmax %v, %lane
  kernel.store %i, %y[%at] : i32, !kernel.buffer<i32>
  kernel.return
}

// -----

// CHECK-LABEL: spirv.module @scan
// CHECK: spirv.ControlBarrier
// CHECK: spirv.mlir.loop
// WHOLE-LABEL: spirv.module @scan
// WHOLE-COUNT-5: spirv.GroupNonUniformShuffle <Subgroup>
kernel.func @scan(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<i32> -> vector<32xi32>
  %s = kernel.scan %v
  kernel.store_lanes %s, %y[%at] : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
}

// -----

// CHECK-LABEL: spirv.module @broadcast
// CHECK: spirv.Store "Workgroup"
// CHECK: spirv.ControlBarrier
// CHECK: spirv.Load "Workgroup"
// WHOLE-LABEL: spirv.module @broadcast
// WHOLE: spirv.GroupNonUniformShuffle <Subgroup>
kernel.func @broadcast(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %u = kernel.broadcast %v[%at] : vector<32xf32> -> f32
  kernel.store %u, %y[%at] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// Invocations of a workgroup are the lanes, workgroups the programs.
// CHECK-LABEL: spirv.module @ids
// CHECK-DAG: spirv.GlobalVariable @workgroup_id built_in("WorkgroupId")
// CHECK-DAG: spirv.GlobalVariable @local_id built_in("LocalInvocationId")
// WHOLE-LABEL: spirv.module @ids
// WHOLE: spirv.GlobalVariable @subgroup_lane built_in("SubgroupLocalInvocationId")
// WHOLE-NOT: LocalInvocationId")
kernel.func @ids(%y: !kernel.buffer<i32>) {
  %p = kernel.program_id y
  %lane = kernel.lane_id
  kernel.store_lanes %lane, %y[%p] : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
}
