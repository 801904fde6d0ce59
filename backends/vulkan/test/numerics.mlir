// RUN: freeport-opt %s --freeport-vulkan-pipeline --split-input-file | FileCheck %s
// RUN: freeport-opt %s --freeport-vulkan-pipeline=profile=dot --split-input-file | FileCheck %s --check-prefix=ROUND

// Vulkan's division and square root may be off: both are functions of products, sums and integers.
// CHECK-LABEL: spirv.module @exact
// CHECK-NOT: spirv.FDiv
// CHECK-NOT: spirv.GL
// CHECK: spirv.FunctionCall @square_root
// CHECK: spirv.FunctionCall @divide
// CHECK-NOT: spirv.FDiv
// CHECK-NOT: spirv.GL
// CHECK: spirv.func @square_root
// CHECK: spirv.FMul %{{.+}}, %{{.+}} {no_contraction} : f32
// ROUND-LABEL: spirv.module @exact
// ROUND-SAME: RoundingModeRTE
// ROUND: spirv.ExecutionMode @main "RoundingModeRTE", 32
// ROUND: spirv.ExecutionMode @main "SignedZeroInfNanPreserve", 32
kernel.func @exact(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %s = kernel.sqrt %v : vector<32xf32>
  %q = arith.divf %v, %s : vector<32xf32>
  kernel.store_lanes %q, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
  kernel.return
}

// -----

// Many drivers take x + 0 for x: what adds to a constant zero is done by integers, and sums begin with a zero that no
// driver sees through.
// CHECK-LABEL: spirv.module @zeros
// CHECK: %[[SHIFTED:.+]] = spirv.ShiftRightLogical %{{.+}}, %cst5_i32 : i32, i32
// CHECK: %[[ZERO:.+]] = spirv.Bitcast %[[SHIFTED]] : i32 to f32
// CHECK-NOT: spirv.FAdd %{{.+}}, %cst_f32
// CHECK: spirv.IEqual %{{.+}}, %cst-2147483648_i32 : i32
// CHECK: spirv.Branch ^bb1(%cst0_i32, %[[ZERO]] : i32, f32)
// CHECK-NOT: spirv.FSub
kernel.func @zeros(%x: !kernel.buffer<f32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %v = kernel.load %x[%c0] : !kernel.buffer<f32> -> f32
  %w = arith.addf %v, %zero : f32
  kernel.store %w, %x[%c1] : f32, !kernel.buffer<f32>
  %sum = scf.for %i = %c0 to %n step %c1 iter_args(%s = %zero) -> f32 {
    %y = kernel.load %x[%i] : !kernel.buffer<f32> -> f32
    %t = arith.addf %s, %y : f32
    scf.yield %t : f32
  }
  %u = arith.subf %zero, %sum : f32
  kernel.store %u, %x[%n] : f32, !kernel.buffer<f32>
  kernel.return
}

// -----

// A loop without iterations keeps its first values; what does not fit an integer becomes the least.
// CHECK-LABEL: spirv.module @control
// CHECK: spirv.mlir.loop
// CHECK: %[[ANY:.+]] = spirv.SGreaterThan %{{.+}}, %cst0_i32 : i32
// CHECK: spirv.Select %[[ANY]]
// CHECK: spirv.ConvertFToS
// CHECK: spirv.Select %{{.+}}, %{{.+}}, %cst-2147483648_i32
kernel.func @control(%x: !kernel.buffer<f32>, %y: !kernel.buffer<i32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %sum = scf.for %i = %c0 to %n step %c1 iter_args(%s = %zero) -> f32 {
    %v = kernel.load %x[%i] : !kernel.buffer<f32> -> f32
    %t = arith.addf %s, %v : f32
    scf.yield %t : f32
  }
  %k = arith.fptosi %sum : f32 to i32
  kernel.store %k, %y[%c0] : i32, !kernel.buffer<i32>
  kernel.return
}

// -----

// exp of `fast` numerics is the device's own.
// CHECK-LABEL: spirv.module @exp
// CHECK-COUNT-2: spirv.GL.Exp %{{.+}} : f32
kernel.func @exp(%x: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %e = math.exp %v : vector<32xf32>
  kernel.store_lanes %e, %x[%at] : vector<32xf32>, !kernel.buffer<f32>
  %s = kernel.load %x[%at] : !kernel.buffer<f32> -> f32
  %f = math.exp %s : f32
  kernel.store %f, %x[%at] : f32, !kernel.buffer<f32>
  kernel.return
}
