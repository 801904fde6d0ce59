// RUN: freeport-opt %s --verify-diagnostics --split-input-file | FileCheck %s

// CHECK: launch.program @step arena <tokens * 64 + 128> {
// CHECK: launch.dispatch @k grid [#launch.size<(tokens + 3) ceildiv 4>](%{{.+}}) writes [0] scalars [#launch.size<tokens>] implements "test"
kernel.func @k(%b: !kernel.buffer<f32>, %n: index) {
  kernel.return
}
launch.program @step arena <tokens * 64 + 128> {
  launch.variant tokens 1 to 4 {
    %a = launch.arena <0> bytes <tokens * 4>
    launch.dispatch @k grid [#launch.size<(tokens + 3) ceildiv 4>](%a) writes [0] scalars [#launch.size<tokens>] implements "test"
  }
}

// -----

launch.program @variant_c1 {
  // expected-error@+1 {{expects 1 <= minimum <= maximum, got 4 to 2}}
  launch.variant tokens 4 to 2 {
  }
}

// -----

func.func @dispatch_c1(%a: !launch.buffer) {
  // expected-error@+1 {{expects the name of a kernel.func, got nothing}}
  launch.dispatch @nothing grid [#launch.size<1>](%a) writes [0] scalars [] implements "test"
  return
}

// -----

kernel.func @k(%b: !kernel.buffer<f32>, %n: index) {
  kernel.return
}
func.func @dispatch_c2(%a: !launch.buffer) {
  // expected-error@+1 {{expects 1 buffers and 1 scalars for k, got 1 and 0}}
  launch.dispatch @k grid [#launch.size<1>](%a) writes [0] scalars [] implements "test"
  return
}

// -----

kernel.func @k(%b: !kernel.buffer<f32>) {
  kernel.return
}
func.func @dispatch_c3(%a: !launch.buffer) {
  // expected-error@+1 {{expects one to three grid dimensions, got 0}}
  launch.dispatch @k grid [](%a) writes [0] scalars [] implements "test"
  return
}

// -----

kernel.func @k(%b: !kernel.buffer<f32>) {
  kernel.return
}
func.func @dispatch_c4(%a: !launch.buffer) {
  // expected-error@+1 {{expects numbers of its 1 buffers in writes, got 1}}
  launch.dispatch @k grid [#launch.size<1>](%a) writes [1] scalars [] implements "test"
  return
}
