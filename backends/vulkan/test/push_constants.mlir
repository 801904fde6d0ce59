// RUN: freeport-opt %s --freeport-vulkan-pipeline | FileCheck %s

// However many operands there are, one word is pushed: where this dispatch's block of sizes begins.
// CHECK-LABEL: spirv.module @many
// CHECK: spirv.GlobalVariable @push : !spirv.ptr<!spirv.struct<(i32 [0])>, PushConstant>
// CHECK-NOT: , PushConstant>
// CHECK: spirv.func @main
// CHECK: spirv.IAdd %{{.+}}, %cst40_i32 : i32
kernel.func @many(%y: !kernel.buffer<f32>, %a: index, %b: index, %c: index, %d: index, %e: index, %f: index, %g: index,
                  %h: index, %i: index, %j: index, %k: index, %l: index, %m: index, %n: index, %o: index, %p: index,
                  %q: index, %r: index, %s: index, %t: index, %u: index, %v: index, %w: index, %x: index, %z: index,
                  %a1: index, %b1: index, %c1: index, %d1: index, %e1: index, %f1: index, %g1: index, %h1: index,
                  %i1: index, %j1: index, %k1: index, %l1: index) {
  %at = arith.addi %a, %l1 : index
  %one = arith.constant 1.0 : f32
  kernel.store %one, %y[%at] : f32, !kernel.buffer<f32>
  kernel.return
}
