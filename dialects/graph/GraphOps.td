// The graph dialect: what a model computes. Whole-tensor ops with value semantics, free of any target; weights are symbols.
//
// A frontend builds one module: `graph.parameter`s, and `func.func @step(%ids: tensor<?xi32>, %positions: tensor<?xi32>,
// %logit_rows: tensor<?xi32>) -> tensor<?xVOCABULARYxf32>` that maps the token ids and positions of a step's rows (T of
// them, of one or several sequences) to the logits of the chosen rows. Activations are `tensor<?xWIDTHxf32>`, one row a token.
#ifndef FREEPORT_DIALECTS_GRAPH_GRAPHOPS_TD
#define FREEPORT_DIALECTS_GRAPH_GRAPHOPS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "dialects/Lowerable.td"

def Graph_Dialect : Dialect {
  let name = "graph";
  let cppNamespace = "::freeport::graph";
  let summary = "whole-tensor transformer and mixture-of-experts ops";
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::mlir::func::FuncDialect"];
}

class Graph_Op<string mnemonic, list<Trait> traits = []> : Op<Graph_Dialect, mnemonic, traits>;
class Graph_ComputeOp<string mnemonic, list<Trait> traits = []>
    : Graph_Op<mnemonic, !listconcat(traits, [DeclareOpInterfaceMethods<Lowerable>])>;

def Rows : 2DTensorOf<[F32]>;        // [rows of the step, width]
def Integers : 1DTensorOf<[I32]>;    // [rows of the step]
def Choices : 2DTensorOf<[I32]>;     // [rows of the step, choices]

//===----------------------------------------------------------------------===//
// Parameters
//===----------------------------------------------------------------------===//

def Graph_PieceAttr : AttrDef<Graph_Dialect, "Piece"> {
  let mnemonic = "piece";
  let summary = "rows (of a vector: elements) `firstRow .. firstRow + rows - 1` of a checkpoint tensor, perhaps transposed";
  let parameters = (ins StringRefParameter<>:$tensor, "int64_t":$firstRow, "int64_t":$rows, "bool":$transposed);
  let assemblyFormat = "`<` $tensor `,` $firstRow `,` $rows `,` $transposed `>`";
}

def Graph_ParameterOp : Graph_Op<"parameter", [Symbol]> {
  let summary = "a weight: a symbol with a shape, a block format and a source; its values never enter the IR";
  let description = [{
    `shape` is [n], [rows, inputs] or [entries, rows, inputs] (a bank). `format` names the block format: f32, f16, bf16, q8,
    q4, q5, q4_k or q6_k; parameters of rank 1 are f32. `entries` lists, for each entry (one unless a bank), pieces of checkpoint tensors
    whose rows are concatenated; or `values` holds a small computed table. Banks with the same `record` lie side by side.
    Constraints:
    * (C1) the shape has rank 1 to 3 and positive sizes.
    * (C2) exactly one of `entries` and `values` is given; `values` only for rank 1 and with as many elements.
    * (C3) there are as many entries as the bank has, and one otherwise.
    * (C4) the format is one of the block formats, f32 for rank 1.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, DenseI64ArrayAttr:$shape, StrAttr:$format, OptionalAttr<StrAttr>:$record,
                       OptionalAttr<ArrayAttr>:$entries, OptionalAttr<DenseF32ArrayAttr>:$values);
  let assemblyFormat = [{
    $sym_name $shape $format (`record` $record^)? (`from` $entries^)? (`values` $values^)? attr-dict
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Ops. A parameter operand is a symbol; its shape is checked against the tensors when the module is verified.
//===----------------------------------------------------------------------===//

def Graph_EmbedOp : Graph_ComputeOp<"embed"> {
  let summary = "`result[t, :] = table[ids[t], :]`";
  let description = [{
    Constraints:
    * (C1) `table` is a matrix of `width(result)` inputs.
  }];
  let arguments = (ins Integers:$ids, FlatSymbolRefAttr:$table);
  let results = (outs Rows:$result);
  let assemblyFormat = "$ids `,` $table attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Graph_SelectRowsOp : Graph_ComputeOp<"select_rows"> {
  let summary = "`result[r, :] = input[rows[r], :]`";
  let description = [{
    Constraints:
    * (C1) result and input have the same width.
  }];
  let arguments = (ins Rows:$input, Integers:$rows);
  let results = (outs Rows:$result);
  let assemblyFormat = "$input `,` $rows attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Graph_ColumnsOp : Graph_ComputeOp<"columns", [Pure]> {
  let summary = "`result[t, i] = input[t, offset + i]`: a view, no copy";
  let description = [{
    Constraints:
    * (C1) the columns lie inside the input.
  }];
  let arguments = (ins Rows:$input, I64Attr:$offset);
  let results = (outs Rows:$result);
  let assemblyFormat = "$input `from` $offset attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Graph_RmsNormOp : Graph_ComputeOp<"rms_norm"> {
  let summary = "`result[t, i] = (input[t, i] * (1 / sqrt(sum(input[t, :]^2) / n + epsilon))) * weight[i]`";
  let description = [{
    With `heads`, each of that many parts of a row by itself, with the same weight.
    Constraints:
    * (C1) `weight` has rank 1 and `width(input) / heads` elements.
    * (C2) result and input have the same width.
    * (C3) the width is a multiple of `heads`.
  }];
  let arguments = (ins Rows:$input, FlatSymbolRefAttr:$weight, F32Attr:$epsilon,
                       DefaultValuedAttr<I64Attr, "1">:$heads);
  let results = (outs Rows:$result);
  let assemblyFormat = "$input `,` $weight `epsilon` $epsilon attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Graph_LinearOp : Graph_ComputeOp<"linear"> {
  let summary = "`result[t, o] = residual[t, o] + (sum_k weight[o, k] * input[t, k] + bias[o])`";
  let description = [{
    The sum's order and the quantisation of the input follow from the weight's block format (design.md §4).
    Constraints:
    * (C1) `weight` is a matrix of `width(input)` inputs and `width(result)` rows.
    * (C2) `bias` has rank 1 and `width(result)` elements.
    * (C3) `residual` has the result's width.
  }];
  let arguments = (ins Rows:$input, FlatSymbolRefAttr:$weight, OptionalAttr<FlatSymbolRefAttr>:$bias,
                       Optional<Rows>:$residual);
  let results = (outs Rows:$result);
  let assemblyFormat = [{
    $input `,` $weight (`bias` $bias^)? (`residual` $residual^)? attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Graph_RopePairs : I32EnumAttr<"RopePairs", "which elements a rotary embedding rotates together", [
    I32EnumAttrCase<"half", 0>, I32EnumAttrCase<"interleaved", 1>]> {
  let cppNamespace = "::freeport::graph";
  let genSpecializedAttr = 0;
}
def Graph_RopePairsAttr : EnumAttr<Graph_Dialect, Graph_RopePairs, "rope_pairs">;

def Graph_RopeOp : Graph_ComputeOp<"rope"> {
  let summary = "rotary position embedding of each head";
  let description = [{
    Rotates 2n elements of each of `heads` heads, from element `offset` of the head on, n the number of inverse `frequencies`;
    the others pass. With `angle = f32(positions[t]) * frequencies[i]`, `c = cos(angle) * factor`, `s = sin(angle) * factor`:
    `(x0, x1) -> (x0 * c - x1 * s, x1 * c + x0 * s)`; pair i is (i, i + n) for `half`, (2i, 2i + 1) for `interleaved`.
    Constraints:
    * (C1) the width is a multiple of `heads`.
    * (C2) the rotated elements lie inside a head.
    * (C3) result and input have the same width.
  }];
  let arguments = (ins Rows:$input, Integers:$positions, FlatSymbolRefAttr:$frequencies, Graph_RopePairsAttr:$pairs,
                       I64Attr:$heads, DefaultValuedAttr<I64Attr, "0">:$offset,
                       DefaultValuedAttr<F32Attr, "1.0f">:$factor);
  let results = (outs Rows:$result);
  let assemblyFormat = [{
    $input `,` $positions `,` $frequencies $pairs `heads` $heads attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Graph_AttentionOp : Graph_ComputeOp<"attention"> {
  let summary = "causal grouped-query attention over the paged keys and values of `state`";
  let description = [{
    Appends this step's keys and values to the state (f16 or f32 by `state_format`), then attends: query head h reads
    key-value head `h / (heads / key_value_heads)`; scores are `(q . k) * scale`; each row sees the positions up to its own of
    its own sequence. Page by page in the order of design.md §4.
    With `key_format` "q8", keys are stored as a weight of that format is: of each head, 32 tokens x 32 elements make a record,
    with one f16 scale for 32 elements of a token, `max|x| / 127` to nearest even, and codes `x / scale` to nearest even. Queries
    become int8 activations, head by head, and `q . k` is a row of span_dot.
    Constraints:
    * (C1) `heads` is a multiple of `key_value_heads`.
    * (C2) the widths are `heads` and `key_value_heads` times one head size.
    * (C3) `state_format` is "f16" or "f32".
    * (C4) `key_format` is "q8", or absent: keys are then stored as values are.
  }];
  let arguments = (ins Rows:$query, Rows:$key, Rows:$value, Integers:$positions, StrAttr:$state, StrAttr:$state_format,
                       OptionalAttr<StrAttr>:$key_format, I64Attr:$heads, I64Attr:$key_value_heads, F32Attr:$scale);
  let results = (outs Rows:$result);
  let assemblyFormat = [{
    $query `,` $key `,` $value `,` $positions `state` $state $state_format (`keys` $key_format^)? `heads` $heads `,` $key_value_heads
    `scale` $scale attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Graph_LatentAttentionOp : Graph_ComputeOp<"latent_attention"> {
  let summary = "multi-head latent attention, absorbed: only the normed latent and the rotated key are cached";
  let description = [{
    Each head of `query` has `nope` elements without position, then `rope` rotated ones. `q_latent[h] = key_weight[h] @
    q_nope[h]`; a score is `(q_latent . latent + q_rope . rope_key) * scale`; the result of head h is `value_weight[h] @
    (sum of p * latent)`. `key_weight` is a bank of heads x latent x nope, `value_weight` of heads x value x latent.
    With `expansion_weight`, `key_weight` transposed, steps of many tokens may have keys `expansion_weight[h] @ latent` and
    values `value_weight[h] @ latent` instead: the same in exact arithmetic, so only in `fast` numerics.
    Constraints:
    * (C1) the query's width is `heads * (nope + rope)`, with rope the width of `rope_key`.
    * (C2) `key_weight` is a bank of `heads` entries of `width(latent)` rows, f32 or bf16 or f16.
    * (C3) `value_weight` is a bank of `heads` entries of `width(latent)` inputs and `width(result) / heads` rows.
    * (C4) `state_format` is "f16" or "f32".
    * (C5) `expansion_weight` is a bank of `heads` entries of `nope` rows and `width(latent)` inputs, f32 or bf16 or f16.
  }];
  let arguments = (ins Rows:$query, Rows:$latent, Rows:$rope_key, Integers:$positions, FlatSymbolRefAttr:$key_weight,
                       FlatSymbolRefAttr:$value_weight, StrAttr:$state, StrAttr:$state_format, I64Attr:$heads,
                       F32Attr:$scale, OptionalAttr<FlatSymbolRefAttr>:$expansion_weight);
  let results = (outs Rows:$result);
  let assemblyFormat = [{
    $query `,` $latent `,` $rope_key `,` $positions `key` $key_weight `value` $value_weight
    (`expansion` $expansion_weight^)? `state` $state $state_format
    `heads` $heads `scale` $scale attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Graph_GluOp : Graph_ComputeOp<"glu"> {
  let summary = "`result = silu(gate) * up`, `silu(x) = x / (1 + exp(-x))`";
  let description = [{
    Constraints:
    * (C1) gate, up and result have the same width.
  }];
  let arguments = (ins Rows:$gate, Rows:$up);
  let results = (outs Rows:$result);
  let assemblyFormat = "$gate `,` $up attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Graph_RouteScore : I32EnumAttr<"RouteScore", "how router logits become scores", [
    I32EnumAttrCase<"softmax", 0>, I32EnumAttrCase<"sigmoid", 1>]> {
  let cppNamespace = "::freeport::graph";
  let genSpecializedAttr = 0;
}
def Graph_RouteScoreAttr : EnumAttr<Graph_Dialect, Graph_RouteScore, "route_score">;
def Graph_GroupScore : I32EnumAttr<"GroupScore", "how a group of experts is judged", [
    I32EnumAttrCase<"maximum", 0>, I32EnumAttrCase<"top2_sum", 1>]> {
  let cppNamespace = "::freeport::graph";
  let genSpecializedAttr = 0;
}
def Graph_GroupScoreAttr : EnumAttr<Graph_Dialect, Graph_GroupScore, "group_score">;

def Graph_RouteOp : Graph_ComputeOp<"route"> {
  let summary = "chooses `top_k` experts a token";
  let description = [{
    `choice = score(logits) + bias`; with more than one group, only the `groups_kept` groups with the best `group_score` stay,
    the others become -inf. `ids` are the `top_k` greatest choices in descending order, ties to the lower id. `weights` are
    their scores without bias, divided by (their sum in rank order + 1e-20) if `normalize`, then times `scale`.
    Constraints:
    * (C1) `bias` has rank 1 and one element an expert.
    * (C2) the experts are a multiple of `groups`, and 1 <= groups_kept <= groups.
    * (C3) `top_k` is the width of both results and no more than the experts of the kept groups.
    * (C4) `top2_sum` needs groups of at least 2.
  }];
  let arguments = (ins Rows:$logits, OptionalAttr<FlatSymbolRefAttr>:$bias, Graph_RouteScoreAttr:$score, I64Attr:$top_k,
                       DefaultValuedAttr<I64Attr, "1">:$groups, DefaultValuedAttr<I64Attr, "1">:$groups_kept,
                       DefaultValuedAttr<Graph_GroupScoreAttr, "::freeport::graph::GroupScore::maximum">:$group_score,
                       UnitAttr:$normalize, DefaultValuedAttr<F32Attr, "1.0f">:$scale);
  let results = (outs Choices:$ids, Rows:$weights);
  let assemblyFormat = [{
    $logits $score `top` $top_k (`bias` $bias^)? attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Graph_ExpertsOp : Graph_ComputeOp<"experts", [AttrSizedOperandSegments]> {
  let summary = "the routed experts' gated networks, computed only for the tokens routed to them";
  let description = [{
    `result = residual + ((sum over ranks r, ascending, of weights[t, r] * down[e] @ (silu(gate[e] @ x) * (up[e] @ x))) +
    shared)`, `e = ids[t, r]`. `gate` and `up` are banks of experts x inner x width, `down` of experts x width x inner.
    Constraints:
    * (C1) the banks' shapes agree with each other and with the input's width, and the formats of gate and up are the same.
    * (C2) `shared` and `residual` have the result's width.
    * (C3) `ids` and `weights` have the same width.
  }];
  let arguments = (ins Rows:$input, Choices:$ids, Rows:$weights, FlatSymbolRefAttr:$gate, FlatSymbolRefAttr:$up,
                       FlatSymbolRefAttr:$down, Optional<Rows>:$shared, Optional<Rows>:$residual);
  let results = (outs Rows:$result);
  let assemblyFormat = [{
    $input `,` $ids `,` $weights `gate` $gate `up` $up `down` $down (`shared` $shared^)? (`residual` $residual^)? attr-dict
    `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

#endif // FREEPORT_DIALECTS_GRAPH_GRAPHOPS_TD
