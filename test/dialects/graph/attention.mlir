// RUN: split-file %s %t
// RUN: freeport-opt %t/lower.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/lower.mlir
// RUN: freeport-opt %t/heads.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/heads.mlir
// RUN: freeport-opt %t/keys.mlir --freeport-graph-lower --canonicalize --cse --freeport-launch-plan-arena \
// RUN:   --freeport-launch-insert-barriers | FileCheck %t/keys.mlir
// RUN: freeport-opt %t/invalid.mlir --verify-diagnostics --split-input-file

//--- lower.mlir
// CHECK: launch.state @state.s page_bytes 7168
// CHECK: launch.dispatch @attention_append_f16
// CHECK: launch.barrier
// CHECK: launch.dispatch @attention_f16
// CHECK-LABEL: kernel.func @attention_append_f16
// CHECK: arith.truncf
// CHECK: kernel.scatter
// CHECK-LABEL: kernel.func @attention_f16
// CHECK: kernel.reduce max
// CHECK: kernel.broadcast
graph.parameter @t [64, 48] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x48xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x48xf32>
  %r = graph.attention %e, %e, %e, %b state "s" "f16" heads 2, 2 scale 5.0e-01 : (tensor<?x48xf32>, tensor<?x48xf32>, tensor<?x48xf32>, tensor<?xi32>) -> tensor<?x48xf32>
  return %r : tensor<?x48xf32>
}

//--- heads.mlir
// Norms and rotations of queries and keys are part of the attention, and it writes the activations of the linear map behind it.
// CHECK: launch.dispatch @embed_f32_64x192
// CHECK-NOT: launch.dispatch @{{rms_norm|heads}}
// CHECK: launch.dispatch @attention_append_f16_4_2x32_key_32_from_128_192_rms_norm_{{.+}}_rope_half_32_at_0_factor_3F800000_value_32_from_0_192 {{.+}} writes [0]
// CHECK-NOT: launch.dispatch
// CHECK: launch.barrier
// CHECK-NEXT: launch.dispatch @attention_f16_4_2x32_query_32_from_0_192_rms_norm_{{.+}}_rope_half_32_at_0_factor_3F800000_i8_tile_1x2_{{.+}} writes [7]
// CHECK-NOT: launch.dispatch
// CHECK: launch.barrier
// CHECK-NEXT: launch.dispatch @linear_q8_64x128_
// CHECK-LABEL: kernel.func @attention_append_f16
// CHECK: %[[KEYS:.+]] = kernel.local 32
// The norm, of the rows' elements into local memory.
// CHECK: kernel.reduce add
// CHECK: kernel.sqrt
// CHECK: kernel.load_lanes %arg5
// CHECK: kernel.store_lanes %{{.+}}, %[[KEYS]]
// The rotation, in place: 16 pairs of a head's 32 elements.
// CHECK: kernel.load_lanes %arg6
// CHECK: kernel.load_lanes %[[KEYS]]
// CHECK: kernel.load_lanes %[[KEYS]]
// CHECK: kernel.store_lanes %{{.+}}, %[[KEYS]]
// CHECK: kernel.store_lanes %{{.+}}, %[[KEYS]]
// CHECK: kernel.scatter
// CHECK-LABEL: kernel.func @attention_f16
// CHECK-SAME: %[[OUT:arg[0-9]+]]: !kernel.activations<i8, 128>
// CHECK: kernel.sqrt
// CHECK: kernel.sqrt
// CHECK: kernel.reduce max
// CHECK: kernel.store_group %{{.+}}, %[[OUT]]
graph.parameter @t [64, 192] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @n [32] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @f [16] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @w [64, 128] "q8" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x64xf32> {
  %e = graph.embed %a, @t : (tensor<?xi32>) -> tensor<?x192xf32>
  %q = graph.columns %e from 0 : (tensor<?x192xf32>) -> tensor<?x128xf32>
  %k = graph.columns %e from 128 : (tensor<?x192xf32>) -> tensor<?x64xf32>
  %v = graph.columns %e from 0 : (tensor<?x192xf32>) -> tensor<?x64xf32>
  %qn = graph.rms_norm %q, @n epsilon 1.0e-05 {heads = 4} : (tensor<?x128xf32>) -> tensor<?x128xf32>
  %kn = graph.rms_norm %k, @n epsilon 1.0e-05 {heads = 2} : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %qr = graph.rope %qn, %b, @f half heads 4 : (tensor<?x128xf32>, tensor<?xi32>) -> tensor<?x128xf32>
  %kr = graph.rope %kn, %b, @f half heads 2 : (tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x64xf32>
  %r = graph.attention %qr, %kr, %v, %b state "s" "f16" heads 4, 2 scale 5.0e-01 : (tensor<?x128xf32>, tensor<?x64xf32>, tensor<?x64xf32>, tensor<?xi32>) -> tensor<?x128xf32>
  %o = graph.linear %r, @w : (tensor<?x128xf32>) -> tensor<?x64xf32>
  return %o : tensor<?x64xf32>
}

//--- keys.mlir
// A page has 2 heads of 2 records of keys, of 1088 bytes, and 32 x 64 values of f16, of 4096.
// CHECK: launch.state @state.s page_bytes 12544
// One barrier for the queries and the keys: neither waits for the other.
// CHECK: %[[STATE:[0-9]+]] = launch.state_memory @state.s
// CHECK: launch.dispatch @activations_i8_40_of_4x40
// CHECK-NOT: launch.barrier
// CHECK: launch.dispatch @attention_append_f16_keys_q8_{{.+}}(%[[STATE]], {{.+}}, %[[STATE]], %[[STATE]], {{.+}}) writes [0, 4, 5]
// CHECK: launch.barrier
// CHECK: launch.dispatch @attention_f16_keys_q8_{{.+}}(%[[STATE]], {{.+}}, %[[STATE]], {{.+}}) writes [6]
// CHECK-LABEL: kernel.func @attention_append_f16_keys_q8
// CHECK-SAME: %[[VALUES:arg[0-9]+]]: !kernel.buffer<f16>, {{.+}}, %[[CODES:arg[0-9]+]]: !kernel.buffer<i8>, %[[SCALES:arg[0-9]+]]: !kernel.buffer<f16>
// CHECK: %[[MAXIMUM:.+]] = kernel.reduce max
// CHECK: %[[RATIO:.+]] = arith.divf %[[MAXIMUM]], %cst{{.*}} : f32
// CHECK: %[[SCALE:.+]] = arith.truncf %{{.+}} : f32 to f16
// CHECK: %[[STEP:.+]] = arith.extf %[[SCALE]] : f16 to f32
// CHECK: arith.divf %{{.+}}, %{{.+}} : vector<32xf32>
// CHECK: kernel.scatter %{{.+}}, %[[CODES]][%{{.+}}] [%{{.+}}] : vector<32xi8>
// CHECK: kernel.store %[[SCALE]], %[[SCALES]]
// CHECK: kernel.store_lanes %{{.+}}, %[[VALUES]]
// Of a token and of two tokens that share pages, the scores are those of a linear map, one row block of 32 keys.
// CHECK-LABEL: kernel.func @attention_f16_keys_q8_{{.+}}_tile_1x2
// CHECK-SAME: %[[QUERIES:arg[0-9]+]]: !kernel.activations<i8, 40>, %[[KEYS:arg[0-9]+]]: !kernel.weights<q8, ?x32x40, stride = 6272>
// CHECK: kernel.span_dot %[[KEYS]] entry %{{.+}} rows[%c0] span %{{.+}}, %[[QUERIES]] tokens[%{{.+}}, %{{.+}}] : {{.+}} -> vector<1x2x32xf32>
// CHECK: kernel.reduce max
// CHECK-LABEL: kernel.func @attention_f16_keys_q8_{{.+}}_tile_2x2
// CHECK: kernel.span_dot {{.+}} -> vector<1x4x32xf32>
// CHECK: kernel.span_dot {{.+}} -> vector<1x2x32xf32>
graph.parameter @q [64, 160] "f32" from [[#graph.piece<"t", 0, 1, false>]]
graph.parameter @k [64, 80] "f32" from [[#graph.piece<"t", 0, 1, false>]]
func.func @step(%a: tensor<?xi32>, %b: tensor<?xi32>, %c: tensor<?xi32>) -> tensor<?x160xf32> {
  %q = graph.embed %a, @q : (tensor<?xi32>) -> tensor<?x160xf32>
  %k = graph.embed %a, @k : (tensor<?xi32>) -> tensor<?x80xf32>
  %r = graph.attention %q, %k, %k, %b state "s" "f16" keys "q8" heads 4, 2 scale 5.0e-01 : (tensor<?x160xf32>, tensor<?x80xf32>, tensor<?x80xf32>, tensor<?xi32>) -> tensor<?x160xf32>
  return %r : tensor<?x160xf32>
}

//--- invalid.mlir
func.func @attention_c1(%a: tensor<?x8xf32>, %b: tensor<?x8xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects heads that are a multiple of key_value_heads, got 2 and 3}}
  %r = graph.attention %a, %b, %b, %c state "s" "f16" heads 2, 3 scale 1.0 : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @attention_c2(%a: tensor<?x8xf32>, %b: tensor<?x8xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects widths of 2 and 1 heads of one size}}
  %r = graph.attention %a, %b, %b, %c state "s" "f16" heads 2, 1 scale 1.0 : (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @attention_c3(%a: tensor<?x8xf32>, %b: tensor<?x4xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects state format f16 or f32, got f64}}
  %r = graph.attention %a, %b, %b, %c state "s" "f64" heads 2, 1 scale 1.0 : (tensor<?x8xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @attention_c4(%a: tensor<?x8xf32>, %b: tensor<?x4xf32>, %c: tensor<?xi32>) {
  // expected-error@+1 {{expects key format q8, or none, got q4}}
  %r = graph.attention %a, %b, %b, %c state "s" "f16" keys "q4" heads 2, 1 scale 1.0 : (tensor<?x8xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?xi32>) -> tensor<?x8xf32>
  return
}
