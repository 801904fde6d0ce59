// In `fast` numerics exp is math.exp, clamped first; never in portable numerics. Targets without an exp of their own expand
// it to the portable definition.
// RUN: split-file %s %t
// RUN: freeport-opt %t/step.mlir --freeport-graph-lower=fast | FileCheck %t/step.mlir --check-prefix=FAST
// RUN: freeport-opt %t/step.mlir --freeport-graph-lower | FileCheck %t/step.mlir --check-prefix=PORTABLE --implicit-check-not=math.
// RUN: freeport-opt %t/kernel.mlir --freeport-kernel-expand-math | FileCheck %t/kernel.mlir --implicit-check-not=math.

//--- step.mlir
// FAST-LABEL: kernel.func @glu
// FAST: arith.constant -8.700000e+01 : f32
// FAST: arith.constant 8.700000e+01 : f32
// FAST: math.exp %{{.+}} : vector<32xf32>
// FAST-NOT: arith.shli
// PORTABLE-LABEL: kernel.func @glu
// PORTABLE: arith.shli
graph.parameter @t [64, 32] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @u [64, 32] "f32" from [[#graph.piece<"u", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x32xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x32xf32>
  %f = graph.embed %a, @u : (tensor<?xi32>) -> tensor<?x32xf32>
  %g = graph.glu %e, %f : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  return %g : tensor<?x32xf32>
}

//--- kernel.mlir
// CHECK-LABEL: kernel.func @exp
// CHECK: %[[N:.+]] = arith.fptosi %{{.+}} : vector<32xf32> to vector<32xi32>
// CHECK: arith.shli %[[N]], %{{.+}} : vector<32xi32>
// CHECK: arith.shli %{{.+}} : i32
kernel.func @exp(%x: !kernel.buffer<f32>, %at: index) {
  %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
  %e = math.exp %v : vector<32xf32>
  kernel.store_lanes %e, %x[%at] : vector<32xf32>, !kernel.buffer<f32>
  %s = kernel.load %x[%at] : !kernel.buffer<f32> -> f32
  %f = math.exp %s : f32
  kernel.store %f, %x[%at] : f32, !kernel.buffer<f32>
  kernel.return
}
