// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=baseline --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot_subgroup32 --split-input-file | FileCheck %s --check-prefix=SUBGROUP

// Few rows: four waves take the spans first, first + 1, … of five, each where there is one left; what they found meets in
// shared memory, and every wave adds it up in order. The first one stores.
// CHECK-LABEL: spirv.module @few_rows
// CHECK: spirv.GlobalVariable @span_sums : !spirv.ptr<!spirv.array<128 x i32>, Workgroup>
// CHECK: %[[WAVE:.+]] = spirv.CompositeExtract %{{.+}}[1 : i32] : vector<3xi32>
// CHECK: spirv.mlir.loop
// CHECK: %[[SPAN:.+]] = spirv.IAdd %{{.+}}, %[[WAVE]] : i32
// CHECK: spirv.SLessThan %[[SPAN]], %cst5_i32 : i32
// CHECK: spirv.mlir.selection
// CHECK: spirv.Store "Workgroup"
// CHECK: spirv.ControlBarrier
// CHECK-COUNT-4: spirv.Select %{{.+}}, %{{.+}}, %{{.+}} : i1, f32
// CHECK: spirv.ControlBarrier
// CHECK: spirv.IEqual %[[WAVE]], %cst0_i32 : i32
// CHECK: spirv.mlir.selection
// CHECK: spirv.Store "StorageBuffer"
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 4, 1
// SUBGROUP-LABEL: spirv.module @few_rows
// SUBGROUP: built_in("SubgroupId")
// SUBGROUP: spirv.ExecutionMode @main "LocalSize", 32, 4, 1
kernel.func @few_rows(%w: !kernel.weights<q8, 64x5000>, %x: !kernel.activations<i8, 5000>, %y: !kernel.buffer<f32>) {
  %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %spans = arith.constant 5 : index
  %block = kernel.program_id x
  %sums = scf.for %s = %c0 to %spans step %c1 iter_args(%sum = %zero) -> vector<1x1x32xf32> {
    %dot = kernel.span_dot %w rows [%block] span %s, %x tokens [%c0] : !kernel.weights<q8, 64x5000>, !kernel.activations<i8, 5000> -> vector<1x1x32xf32>
    %next = arith.addf %sum, %dot : vector<1x1x32xf32>
    scf.yield %next : vector<1x1x32xf32>
  }
  %l = vector.extract %sums[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%block] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// As many waves as spans.
// CHECK-LABEL: spirv.module @two_spans
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 2, 1
kernel.func @two_spans(%w: !kernel.weights<q8, 64x2048>, %x: !kernel.activations<i8, 2048>, %y: !kernel.buffer<f32>) {
  %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %spans = arith.constant 2 : index
  %block = kernel.program_id x
  %sums = scf.for %s = %c0 to %spans step %c1 iter_args(%sum = %zero) -> vector<1x1x32xf32> {
    %dot = kernel.span_dot %w rows [%block] span %s, %x tokens [%c0] : !kernel.weights<q8, 64x2048>, !kernel.activations<i8, 2048> -> vector<1x1x32xf32>
    %next = arith.addf %sum, %dot : vector<1x1x32xf32>
    scf.yield %next : vector<1x1x32xf32>
  }
  %l = vector.extract %sums[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%block] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Rows enough for every multiprocessor.
// CHECK-LABEL: spirv.module @many_rows
// CHECK-NOT: span_sums
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 1, 1
kernel.func @many_rows(%w: !kernel.weights<q8, 32768x5000>, %x: !kernel.activations<i8, 5000>, %y: !kernel.buffer<f32>) {
  %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %spans = arith.constant 5 : index
  %block = kernel.program_id x
  %sums = scf.for %s = %c0 to %spans step %c1 iter_args(%sum = %zero) -> vector<1x1x32xf32> {
    %dot = kernel.span_dot %w rows [%block] span %s, %x tokens [%c0] : !kernel.weights<q8, 32768x5000>, !kernel.activations<i8, 5000> -> vector<1x1x32xf32>
    %next = arith.addf %sum, %dot : vector<1x1x32xf32>
    scf.yield %next : vector<1x1x32xf32>
  }
  %l = vector.extract %sums[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%block] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Lanes that meet in scratch memory belong to one wave; by shuffles each wave can do it.
// CHECK-LABEL: spirv.module @meets
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 1, 1
// SUBGROUP-LABEL: spirv.module @meets
// SUBGROUP: spirv.ExecutionMode @main "LocalSize", 32, 4, 1
kernel.func @meets(%w: !kernel.weights<q8, 64x5000>, %x: !kernel.activations<i8, 5000>, %y: !kernel.buffer<f32>) {
  %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %spans = arith.constant 5 : index
  %block = kernel.program_id x
  %sums = scf.for %s = %c0 to %spans step %c1 iter_args(%sum = %zero) -> vector<1x1x32xf32> {
    %dot = kernel.span_dot %w rows [%block] span %s, %x tokens [%c0] : !kernel.weights<q8, 64x5000>, !kernel.activations<i8, 5000> -> vector<1x1x32xf32>
    %next = arith.addf %sum, %dot : vector<1x1x32xf32>
    scf.yield %next : vector<1x1x32xf32>
  }
  %l = vector.extract %sums[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  %r = kernel.reduce add %l : vector<32xf32> -> f32
  kernel.store %r, %y[%block] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// Only the first wave would see what it stored.
// CHECK-LABEL: spirv.module @reads_back
// CHECK: spirv.ExecutionMode @main "LocalSize", 32, 1, 1
kernel.func @reads_back(%w: !kernel.weights<q8, 64x5000>, %x: !kernel.activations<i8, 5000>, %y: !kernel.buffer<f32>) {
  %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %spans = arith.constant 5 : index
  %block = kernel.program_id x
  %sums = scf.for %s = %c0 to %spans step %c1 iter_args(%sum = %zero) -> vector<1x1x32xf32> {
    %dot = kernel.span_dot %w rows [%block] span %s, %x tokens [%c0] : !kernel.weights<q8, 64x5000>, !kernel.activations<i8, 5000> -> vector<1x1x32xf32>
    %next = arith.addf %sum, %dot : vector<1x1x32xf32>
    scf.yield %next : vector<1x1x32xf32>
  }
  %l = vector.extract %sums[0, 0] : vector<32xf32> from vector<1x1x32xf32>
  kernel.store_lanes %l, %y[%block] : vector<32xf32>, !kernel.buffer<f32>
  %back = kernel.load_lanes %y[%c0] : !kernel.buffer<f32> -> vector<32xf32>
  kernel.store_lanes %back, %y[%c1] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}
