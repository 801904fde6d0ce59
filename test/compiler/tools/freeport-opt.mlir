// RUN: split-file %s %t

// Every pass and every stage has a name, upstream passes that our pipelines use too.
// RUN: freeport-opt %t/step.mlir --freeport-kernel-stage --freeport-launch-stage | FileCheck %s --check-prefix=LAUNCH
// LAUNCH: launch.program @step arena
// LAUNCH: launch.barrier

// IR after each pass, and before the first.
// RUN: freeport-opt %t/step.mlir --freeport-kernel-stage --freeport-launch-stage --mlir-print-ir-before=freeport-graph-lower \
// RUN:   --mlir-print-ir-after-all -o /dev/null 2>&1 | FileCheck %s --check-prefix=STAGES
// STAGES: IR Dump Before {{.*}} (freeport-graph-lower)
// STAGES: graph.linear
// STAGES: IR Dump After {{.*}} (freeport-graph-lower)
// STAGES: IR Dump After Canonicalizer
// STAGES: launch.allocate
// STAGES: IR Dump After {{.*}} (freeport-launch-plan-arena)
// STAGES: launch.arena
// STAGES: IR Dump After {{.*}} (freeport-launch-insert-barriers)
// STAGES: launch.barrier

// Debug output of the passes that are named, and of no other.
// RUN: freeport-opt %t/step.mlir --freeport-kernel-stage --freeport-launch-stage -o /dev/null \
// RUN:   --debug-only=freeport-launch-plan-arena,freeport-launch-insert-barriers 2>&1 | FileCheck %s --check-prefix=DEBUG
// DEBUG-NOT: graph.linear
// DEBUG: launch.arena
// DEBUG: barrier before @linear
// RUN: freeport-opt %t/step.mlir --freeport-kernel-stage -o /dev/null --debug-only=freeport-graph-lower 2>&1 \
// RUN:   | FileCheck %s --check-prefix=DEBUG-LOWER
// DEBUG-LOWER: one token: %{{.+}} = graph.linear
// DEBUG-LOWER: many tokens: %{{.+}} = graph.linear

// A pass that fails leaves a reproducer, which fails alike.
// RUN: not freeport-opt %t/unplanned.mlir --freeport-launch-insert-barriers \
// RUN:   --mlir-pass-pipeline-crash-reproducer=%t/crash.mlir 2>&1 | FileCheck %s --check-prefix=FAILURE
// RUN: FileCheck %s --check-prefix=REPRODUCER < %t/crash.mlir
// RUN: not freeport-opt %t/crash.mlir --run-reproducer 2>&1 | FileCheck %s --check-prefix=AGAIN
// FAILURE: expects planned memory
// FAILURE: reproducer generated at
// REPRODUCER: launch.dispatch @k
// REPRODUCER: pipeline: "builtin.module(freeport-launch-insert-barriers)"
// AGAIN: expects planned memory

//--- step.mlir
graph.parameter @w [32, 32] "f32" from [[#graph.piece<"w", 0, 32, false>]]
func.func @step(%ids: tensor<?xi32>, %positions: tensor<?xi32>, %rows: tensor<?xi32>) -> tensor<?x32xf32> {
  %x = graph.embed %ids, @w : (tensor<?xi32>) -> tensor<?x32xf32>
  %y = graph.linear %x, @w : (tensor<?x32xf32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

//--- unplanned.mlir
kernel.func @k(%b: !kernel.buffer<f32>) {
  kernel.return
}
launch.program @step {
  launch.variant tokens 1 to 1 {
    %a = launch.allocate <4>
    launch.dispatch @k grid [#launch.size<1>](%a) writes [0] scalars [] implements "test"
  }
}
