// RUN: not freeport-opt %s --freeport-vulkan-pipeline=profile=none 2>&1 | FileCheck %s
// CHECK: expects a profile of the vulkan backend, got 'none'
kernel.func @k(%y: !kernel.buffer<f32>) {
  kernel.return
}
