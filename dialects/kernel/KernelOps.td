// The kernel dialect: programs for 32 lanes over blocks, the narrow waist that every backend sees.
// A `kernel.func` runs once per point of a grid; its values are uniform scalars (`index`, i32, i1, f32) and lane vectors
// `vector<...x32xT>`, whose leading dimensions are registers. Beside the ops below a kernel may use the closed list of
// upstream ops in Kernel.cpp (`isKernelUpstreamOp`): arith, reshapes of vector, scf.for and scf.if on uniform values, and in
// `fast` numerics math.exp, of arguments in [-87, 87].
#ifndef FREEPORT_DIALECTS_KERNEL_KERNELOPS_TD
#define FREEPORT_DIALECTS_KERNEL_KERNELOPS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/FunctionInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/SymbolInterfaces.td"

def Kernel_Dialect : Dialect {
  let name = "kernel";
  let cppNamespace = "::freeport::kernel";
  let summary = "32-lane programs over blocks: the narrow waist";
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::math::MathDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

def BlockFormat : I32EnumAttr<"BlockFormat", "how a block of 32 rows x 32 inputs is stored", [
    I32EnumAttrCase<"f32", 0>, I32EnumAttrCase<"f16", 1>, I32EnumAttrCase<"bf16", 2>,
    I32EnumAttrCase<"q8", 3>, I32EnumAttrCase<"q4", 4>, I32EnumAttrCase<"q5", 5>, I32EnumAttrCase<"q4_k", 6>,
    I32EnumAttrCase<"q6_k", 7>]> {
  let cppNamespace = "::freeport::kernel";
}

class Kernel_Type<string name, string typeMnemonic> : TypeDef<Kernel_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Kernel_BufferType : Kernel_Type<"Buffer", "buffer"> {
  let summary = "memory of one element type: f32, f16, i32 or i8";
  let parameters = (ins "::mlir::Type":$elementType);
  let assemblyFormat = "`<` $elementType `>`";
  let genVerifyDecl = 1;
}

def Kernel_WeightsType : Kernel_Type<"Weights", "weights"> {
  let summary = "a packed matrix, or a bank of them: `weights<q4, 384x128>`, `weights<q4, 16x64x256, stride = 28672>`";
  let description = [{
    Rows x inputs (of each entry, for a bank). A bank of `?` entries, `weights<q8, ?x32x128, stride = 12544>`, has as many as
    its memory holds: the pages of a state. Records cover 32 rows x 32 inputs, row-block major with inputs ascending;
    partial blocks are padded with zeros. In a record's payload, dword `j` of lane (row) `r` lies at byte `4 * (32 * j + r)`
    and holds consecutive inputs of that row:
    * `f32`: input `j`. `f16`, `bf16`: inputs `2j` (low half) and `2j+1`. `q8`: signed bytes `4j .. 4j+3`.
    * `q4`: byte `b` of dword `j` has input `8j+b` in its low and `8j+4+b` in its high nibble; a value is `code - 8`.
    * `q5`: four dwords of `q4`'s low nibbles, then one whose bit `8b + 2j + h` is the fifth bit of input `8j + 4h + b`; a
      value is `code - 16`.
    * `q4_k`: four dwords of `q4`'s nibbles; codes are unsigned.
    * `q6_k`: four dwords of `q4`'s low nibbles, then two whose bits `8b + 2i` and the next are the two high bits of input
      `4i + b` of the first and second 16; a value is `code - 32`.
    `q8`, `q4` and `q5` are followed by an f16 scale per row; `q4_k` by an unsigned byte of scale and one of minimum per row,
    then by the f16 steps of both per row; `q6_k` by a dword per row: a signed byte of scale for each 16 inputs, then the f16
    step of both. Record bytes: f32 4096, f16 and bf16 2048, q8 1088, q6_k 896, q5 and q4_k 704, q4 576.
    `entryStride` is the distance between the entries of a bank in bytes.
  }];
  let parameters = (ins "::freeport::kernel::BlockFormat":$format, "int64_t":$entries, "int64_t":$rows, "int64_t":$inputs,
                        "int64_t":$entryStride);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isBank() const { return getEntries() != 0; }
    /// Whether the memory decides how many entries there are.
    bool hasDynamicEntries() const { return ::mlir::ShapedType::isDynamic(getEntries()); }
    /// Blocks of 32 rows, the last perhaps partial.
    int64_t getRowBlocks() const { return (getRows() + 31) / 32; }
    /// Groups of 32 inputs, the last perhaps partial.
    int64_t getGroups() const { return (getInputs() + 31) / 32; }
    /// Spans of 32 groups (1,024 inputs), the last perhaps partial.
    int64_t getSpans() const { return (getGroups() + 31) / 32; }
    bool isQuantized() const { return ::freeport::kernel::isQuantized(getFormat()); }
    int64_t getRecordBytes() const { return recordBytes(getFormat()); }
    /// Bytes of one matrix.
    int64_t getEntryBytes() const { return matrixBytes(getFormat(), getRows(), getInputs()); }
  }];
}

def Kernel_ActivationsType : Kernel_Type<"Activations", "activations"> {
  let summary = "the input rows of a span_dot: `activations<i8, 128>` or `activations<f32, 128>`";
  let description = [{
    One record per token, `tokenBytes()` apart, of `groups = ceil(width / 32)` groups.
    * `i8`: `32 * groups` signed bytes, then `groups` f32 scales, then `groups` i32 sums of the bytes; padded to 64 bytes.
    * `f32`: `32 * groups` floats, none of them nonzero below 2^-50; padded to 64 bytes.
    Elements past `width` are zero.
  }];
  let parameters = (ins "::mlir::Type":$elementType, "int64_t":$width);
  let assemblyFormat = "`<` $elementType `,` $width `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isQuantized() const { return getElementType().isInteger(8); }
    int64_t getGroups() const { return (getWidth() + 31) / 32; }
    /// Bytes from one token's record to the next.
    int64_t getTokenBytes() const {
      return ((isQuantized() ? 40 : 128) * getGroups() + 63) / 64 * 64;
    }
  }];
}

//===----------------------------------------------------------------------===//
// Structure
//===----------------------------------------------------------------------===//

class Kernel_Op<string mnemonic, list<Trait> traits = []> : Op<Kernel_Dialect, mnemonic, traits>;

class Lanes<Type element, string builder> : VectorOfLengthAndType<[32], [element]>,
    BuildableType<"::mlir::VectorType::get({32}, " # builder # ")">;
def LaneF32 : Lanes<F32, "$_builder.getF32Type()">;
def LaneI32 : Lanes<I32, "$_builder.getI32Type()">;
def LaneMask : Lanes<I1, "$_builder.getI1Type()">;
def LaneValue : VectorOfLengthAndType<[32], [F32, F16, I32, I8]>;
def LaneNumber : VectorOfLengthAndType<[32], [F32, I32]>;
def ScalarValue : AnyTypeOf<[F32, F16, I32, I8]>;
def ScalarNumber : AnyTypeOf<[F32, I32]>;

def Kernel_FuncOp : Kernel_Op<"func", [IsolatedFromAbove, FunctionOpInterface]> {
  let summary = "a program for 32 lanes, run over a grid of up to three dimensions";
  let description = [{
    Arguments are memory operands (buffer, weights, activations) first, then `index` scalars.
    Constraints:
    * (C1) memory arguments come before `index` arguments, and there are no others.
    * (C2) the body holds only kernel ops and the closed list of upstream ops.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<FunctionType>:$function_type,
                       OptionalAttr<DictArrayAttr>:$arg_attrs, OptionalAttr<DictArrayAttr>:$res_attrs);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
  let builders = [OpBuilder<(ins "::llvm::StringRef":$name, "::mlir::FunctionType":$type)>];
  let extraClassDeclaration = [{
    ::mlir::ArrayRef<::mlir::Type> getArgumentTypes() { return getFunctionType().getInputs(); }
    ::mlir::ArrayRef<::mlir::Type> getResultTypes() { return getFunctionType().getResults(); }
    ::mlir::Region *getCallableRegion() { return &getBody(); }
    /// How many of the arguments are memory operands; the `index` scalars follow.
    unsigned getNumMemoryArguments();
    /// Whether the body may write through memory argument `number`.
    bool writesArgument(unsigned number);
    /// Whether the body may read through memory argument `number`.
    bool readsArgument(unsigned number);
  }];
}

def Kernel_ReturnOp : Kernel_Op<"return", [Pure, Terminator, HasParent<"FuncOp">]> {
  let summary = "ends a program";
  let assemblyFormat = "attr-dict";
}

def Dimension : I32EnumAttr<"Dimension", "a dimension of the grid", [
    I32EnumAttrCase<"x", 0>, I32EnumAttrCase<"y", 1>, I32EnumAttrCase<"z", 2>]> {
  let cppNamespace = "::freeport::kernel";
  let genSpecializedAttr = 0;
}
def DimensionAttr : EnumAttr<Kernel_Dialect, Dimension, "dimension">;

def Kernel_ProgramIdOp : Kernel_Op<"program_id", [Pure]> {
  let summary = "this program's place in the grid";
  let arguments = (ins DimensionAttr:$dimension);
  let results = (outs Index:$result);
  let assemblyFormat = "$dimension attr-dict";
}

def Kernel_LaneIdOp : Kernel_Op<"lane_id", [Pure]> {
  let summary = "`result[lane] = lane`";
  let results = (outs LaneI32:$result);
  let assemblyFormat = "attr-dict";
}

//===----------------------------------------------------------------------===//
// Memory. An address is a uniform 64-bit base in elements, plus a 32-bit offset per lane where lanes differ.
//===----------------------------------------------------------------------===//

class ElementMatches<string value, string buffer> : PredOpTrait<
  "value's element type is the buffer's",
  CPred<"::mlir::getElementTypeOrSelf($" # value # ".getType()) == "
        "::llvm::cast<::freeport::kernel::BufferType>($" # buffer # ".getType()).getElementType()">>;

def Kernel_LoadOp : Kernel_Op<"load", [ElementMatches<"result", "buffer">]> {
  let summary = "`result = buffer[base]`, uniform";
  let arguments = (ins Arg<Kernel_BufferType, "", [MemRead]>:$buffer, Index:$base);
  let results = (outs ScalarValue:$result);
  let assemblyFormat = "$buffer `[` $base `]` attr-dict `:` type($buffer) `->` type($result)";
}

def Kernel_LoadLanesOp : Kernel_Op<"load_lanes", [ElementMatches<"result", "buffer">]> {
  let summary = "`result[lane] = mask[lane] ? buffer[base + lane] : 0`; masked lanes touch no memory";
  let arguments = (ins Arg<Kernel_BufferType, "", [MemRead]>:$buffer, Index:$base, Optional<LaneMask>:$mask);
  let results = (outs LaneValue:$result);
  let assemblyFormat = "$buffer `[` $base `]` (`mask` $mask^)? attr-dict `:` type($buffer) `->` type($result)";
}

def Kernel_GatherOp : Kernel_Op<"gather", [ElementMatches<"result", "buffer">]> {
  let summary = "`result[lane] = mask[lane] ? buffer[base + offsets[lane]] : 0`; masked lanes touch no memory";
  let arguments = (ins Arg<Kernel_BufferType, "", [MemRead]>:$buffer, Index:$base, LaneI32:$offsets,
                       Optional<LaneMask>:$mask);
  let results = (outs LaneValue:$result);
  let assemblyFormat =
      "$buffer `[` $base `]` `[` $offsets `]` (`mask` $mask^)? attr-dict `:` type($buffer) `->` type($result)";
}

def Kernel_StoreOp : Kernel_Op<"store", [ElementMatches<"value", "buffer">]> {
  let summary = "`buffer[base] = value`, uniform";
  let arguments = (ins ScalarValue:$value, Arg<Kernel_BufferType, "", [MemWrite]>:$buffer, Index:$base);
  let assemblyFormat = "$value `,` $buffer `[` $base `]` attr-dict `:` type($value) `,` type($buffer)";
}

def Kernel_StoreLanesOp : Kernel_Op<"store_lanes", [ElementMatches<"value", "buffer">]> {
  let summary = "`buffer[base + lane] = value[lane]` where `mask[lane]`";
  let arguments = (ins LaneValue:$value, Arg<Kernel_BufferType, "", [MemWrite]>:$buffer, Index:$base,
                       Optional<LaneMask>:$mask);
  let assemblyFormat =
      "$value `,` $buffer `[` $base `]` (`mask` $mask^)? attr-dict `:` type($value) `,` type($buffer)";
}

def Kernel_ScatterOp : Kernel_Op<"scatter", [ElementMatches<"value", "buffer">]> {
  let summary = "`buffer[base + offsets[lane]] = value[lane]` where `mask[lane]`; offsets of active lanes are distinct";
  let arguments = (ins LaneValue:$value, Arg<Kernel_BufferType, "", [MemWrite]>:$buffer, Index:$base, LaneI32:$offsets,
                       Optional<LaneMask>:$mask);
  let assemblyFormat =
      "$value `,` $buffer `[` $base `]` `[` $offsets `]` (`mask` $mask^)? attr-dict `:` type($value) `,` type($buffer)";
}

def Kernel_LocalOp : Kernel_Op<"local", [MemoryEffects<[MemAlloc]>]> {
  let summary = "`elements` of the program's own local memory, undefined at first: L1 on a CPU, shared memory on a GPU";
  let description = [{
    Constraints:
    * (C1) stands in the entry block of its `kernel.func`, so that a program's local memory is a sum of constants.
  }];
  let arguments = (ins ConfinedAttr<I64Attr, [IntPositive]>:$elements);
  let results = (outs Kernel_BufferType:$buffer);
  let assemblyFormat = "$elements attr-dict `:` type($buffer)";
  let hasVerifier = 1;
}

def Kernel_StageOp : Kernel_Op<"stage", []> {
  let summary = "makes 32 rows of a slice resident in local memory, transposed and widened to f32";
  let description = [{
    `target[column * 32 + row] = f32(source[base + row * pitch + column])` for row in 0..31 and column in 0..columns-1.
    Constraints:
    * (C1) `target` is a `kernel.local` of at least `32 * columns` elements.
  }];
  let arguments = (ins Arg<Kernel_BufferType, "", [MemRead]>:$source, Index:$base,
                       Arg<Kernel_BufferType, "", [MemWrite]>:$target,
                       ConfinedAttr<I64Attr, [IntPositive]>:$columns, ConfinedAttr<I64Attr, [IntPositive]>:$pitch);
  let assemblyFormat = [{
    $source `[` $base `]` `pitch` $pitch `to` $target `columns` $columns attr-dict `:` type($source) `to` type($target)
  }];
  let hasVerifier = 1;
}

def Kernel_StoreGroupOp : Kernel_Op<"store_group", [AttrSizedOperandSegments]> {
  let summary = "writes one group of 32 activations of a token";
  let description = [{
    For `activations<i8>`: `value` holds the quantised bytes, `scale` their scale, `sum` the sum of the bytes.
    For `activations<f32>`: `value` holds the floats; `scale` and `sum` are absent.
    Constraints:
    * (C1) `value`'s element type is the activations' element type.
    * (C2) `scale` and `sum` are present exactly for `i8`.
  }];
  let arguments = (ins LaneValue:$value, Optional<F32>:$scale, Optional<I32>:$sum,
                       Arg<Kernel_ActivationsType, "", [MemWrite]>:$activations, Index:$token, Index:$group);
  let assemblyFormat = [{
    $value (`scale` $scale^)? (`sum` $sum^)? `,` $activations `[` $token `,` $group `]` attr-dict
    `:` type($value) `,` type($activations)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Lanes
//===----------------------------------------------------------------------===//

def ReduceKind : I32EnumAttr<"ReduceKind", "what a reduction combines lanes with", [
    I32EnumAttrCase<"add", 0>, I32EnumAttrCase<"max", 1>, I32EnumAttrCase<"min", 2>]> {
  let cppNamespace = "::freeport::kernel";
  let genSpecializedAttr = 0;
}
def ReduceKindAttr : EnumAttr<Kernel_Dialect, ReduceKind, "reduce_kind">;

def Kernel_ReduceOp : Kernel_Op<"reduce", [Pure]> {
  let summary = "combines the 32 lanes by a fixed tree";
  let description = [{
    For distance in 16, 8, 4, 2, 1: `value[lane] = combine(value[lane], value[lane xor distance])`; the result is lane 0's.
    `max` is `a > b ? a : b` and `min` is `a < b ? a : b`, signed for i32.
  }];
  let arguments = (ins ReduceKindAttr:$kind, LaneNumber:$value);
  let results = (outs ScalarNumber:$result);
  let assemblyFormat = "$kind $value attr-dict `:` type($value) `->` type($result)";
}

def Kernel_ArgmaxOp : Kernel_Op<"argmax", [Pure]> {
  let summary = "the greatest value of the 32 lanes and its index; ties go to the lower index";
  let description = [{
    By the tree of `kernel.reduce`; `(a, i)` wins over `(b, j)` if `a > b`, or `a == b` and `i < j`.
  }];
  let arguments = (ins LaneF32:$value, LaneI32:$indices);
  let results = (outs F32:$maximum, I32:$index);
  let assemblyFormat = "$value `,` $indices attr-dict";
}

def Kernel_ScanOp : Kernel_Op<"scan", [Pure]> {
  let summary = "`result[lane] = value[0] + … + value[lane]`, exact";
  let arguments = (ins LaneI32:$value);
  let results = (outs LaneI32:$result);
  let assemblyFormat = "$value attr-dict";
}

def Kernel_BroadcastOp : Kernel_Op<"broadcast", [Pure]> {
  let summary = "`result = value[lane]`, uniform; lane in 0..31";
  let arguments = (ins LaneNumber:$value, Index:$lane);
  let results = (outs ScalarNumber:$result);
  let assemblyFormat = "$value `[` $lane `]` attr-dict `:` type($value) `->` type($result)";
}

def Kernel_SqrtOp : Kernel_Op<"sqrt", [Pure, SameOperandsAndResultType]> {
  let summary = "the correctly rounded square root of a nonnegative number";
  let arguments = (ins AnyTypeOf<[F32, LaneF32]>:$value);
  let results = (outs AnyTypeOf<[F32, LaneF32]>:$result);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

//===----------------------------------------------------------------------===//
// Blocks
//===----------------------------------------------------------------------===//

def Kernel_SpanDotOp : Kernel_Op<"span_dot", [AttrSizedOperandSegments]> {
  let summary = "packed weights of R row blocks x T tokens of activations over one span";
  let description = [{
    `result[r, t, lane]` is the value of row `32 * rowBlocks[r] + lane` (of `entry`, for a bank) for the activations of token
    `tokens[t]`, over groups `32 * span .. min(32 * span + 31, groups - 1)`, from +0, in order:
    * `q4`, `q5`, `q8`: per group `sum = sum + f32(dot) * (scale_row * scale_token)`, `dot` the exact integer dot product of
      the 32 values and the 32 bytes; the product of the scales rounds first.
    * `q4_k`: per group `sum = sum + (f32(scale * dot) * (step * scale_token) - f32(minimum * sum_token) * (minimum_step *
      scale_token))`, with exact integers and each other operation rounding.
    * `q6_k`: as `q8` with `dot = scale_0 * dot_0 + scale_1 * dot_1` of the two 16 inputs, and the step for the scale.
    * `f32`, `f16`, `bf16`: per input, ascending, `sum = sum + f32(weight) * activation`, two roundings.
    The hot op: the backend owns its inner loop.
    Constraints:
    * (C1) quantised weights take `activations<i8>`, float weights `activations<f32>`.
    * (C2) the activations' width is the weights' inputs.
    * (C3) `entry` is present exactly for a bank.
    * (C4) the result is `vector<RxTx32xf32>` for R row blocks and T tokens.
  }];
  let arguments = (ins Arg<Kernel_WeightsType, "", [MemRead]>:$weights, Optional<Index>:$entry,
                       Variadic<Index>:$rowBlocks, Index:$span,
                       Arg<Kernel_ActivationsType, "", [MemRead]>:$activations, Variadic<Index>:$tokens);
  let results = (outs AnyVectorOfAnyRank:$result);
  let assemblyFormat = [{
    $weights (`entry` $entry^)? `rows` `[` $rowBlocks `]` `span` $span `,` $activations `tokens` `[` $tokens `]` attr-dict
    `:` type($weights) `,` type($activations) `->` type($result)
  }];
  let hasVerifier = 1;
}

def Kernel_UnpackOp : Kernel_Op<"unpack", []> {
  let summary = "one group of a row of weights as floats: `result[lane] = weight[row, 32 * group + lane]`";
  let description = [{
    `q4`, `q5`, `q8`: `scale_row * f32(value)`; `q4_k`: `(step * f32(scale)) * f32(code) - minimum_step * f32(minimum)`;
    `q6_k`: `(step * f32(scale)) * f32(value)`; floats are widened. Inputs past the matrix's last are zero.
    Constraints:
    * (C1) the weights are a matrix, not a bank.
  }];
  let arguments = (ins Arg<Kernel_WeightsType, "", [MemRead]>:$weights, Index:$row, Index:$group);
  let results = (outs LaneF32:$result);
  let assemblyFormat = "$weights `[` $row `,` $group `]` attr-dict `:` type($weights)";
  let hasVerifier = 1;
}

#endif // FREEPORT_DIALECTS_KERNEL_KERNELOPS_TD
