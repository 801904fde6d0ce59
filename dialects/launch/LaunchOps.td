// The launch dialect: when. A program is a list of dispatches over planned memory with a few symbolic sizes; the runtime
// replays it. A program first holds `launch.allocate`s (as freeport-graph-lower leaves it); freeport-launch-plan-arena gives
// them places in one arena, and freeport-launch-insert-barriers orders what must not overlap.
#ifndef FREEPORT_DIALECTS_LAUNCH_LAUNCHOPS_TD
#define FREEPORT_DIALECTS_LAUNCH_LAUNCHOPS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/OpBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Launch_Dialect : Dialect {
  let name = "launch";
  let cppNamespace = "::freeport::launch";
  let summary = "buffers, states, dispatches, barriers: what the runtime replays";
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
}

class Launch_Op<string mnemonic, list<Trait> traits = []> : Op<Launch_Dialect, mnemonic, traits>;

def Launch_BufferType : TypeDef<Launch_Dialect, "Buffer">,
    BuildableType<"::freeport::launch::BufferType::get($_builder.getContext())"> {
  let mnemonic = "buffer";
  let summary = "a run of memory";
}

def Launch_SizeAttr : AttrDef<Launch_Dialect, "Size"> {
  let mnemonic = "size";
  let summary = "a polynomial with ceiling division in a step's symbols: `tokens`, `logit_rows`, `sequences`, `table_pages`";
  let parameters = (ins "::mlir::AffineExpr":$expression);
  let hasCustomAssemblyFormat = 1;
}
def Launch_SizeArrayAttr : TypedArrayAttrBase<Launch_SizeAttr, "sizes">;

def Launch_StateOp : Launch_Op<"state", [Symbol]> {
  let summary = "paged memory that outlives a step; page p lies at `p * page_bytes`";
  let arguments = (ins SymbolNameAttr:$sym_name, I64Attr:$page_bytes);
  let assemblyFormat = "$sym_name `page_bytes` $page_bytes attr-dict";
}

def Launch_ProgramOp : Launch_Op<"program", [Symbol, NoTerminator, SingleBlock]> {
  let summary = "a step: one variant per class of token counts; `arena` is known once it is planned";
  let arguments = (ins SymbolNameAttr:$sym_name, OptionalAttr<Launch_SizeAttr>:$arena);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name (`arena` $arena^)? attr-dict-with-keyword $body";
}

def Launch_VariantOp : Launch_Op<"variant", [HasParent<"ProgramOp">, NoTerminator, SingleBlock]> {
  let summary = "what a step of `minimum` to `maximum` tokens replays";
  let description = [{
    Constraints:
    * (C1) 1 <= minimum <= maximum.
  }];
  let arguments = (ins I64Attr:$minimum, I64Attr:$maximum);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "`tokens` $minimum `to` $maximum attr-dict-with-keyword $body";
  let hasVerifier = 1;
}

def Launch_AllocateOp : Launch_Op<"allocate"> {
  let summary = "scratch memory, not placed yet";
  let arguments = (ins Launch_SizeAttr:$bytes);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$bytes attr-dict";
}

def Launch_ArenaOp : Launch_Op<"arena", [Pure]> {
  let summary = "`bytes` of scratch memory from `offset` in the arena on";
  let arguments = (ins Launch_SizeAttr:$offset, Launch_SizeAttr:$bytes);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$offset `bytes` $bytes attr-dict";
}

def Launch_WeightsOp : Launch_Op<"weights", [Pure]> {
  let summary = "a parameter's place in the weights";
  let arguments = (ins FlatSymbolRefAttr:$parameter);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$parameter attr-dict";
}

def Launch_StateMemoryOp : Launch_Op<"state_memory", [Pure]> {
  let summary = "a state's pages";
  let arguments = (ins FlatSymbolRefAttr:$state);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$state attr-dict";
}

def Launch_InputOp : Launch_Op<"input", [Pure]> {
  let summary = "memory that the runtime fills before a step";
  let arguments = (ins StrAttr:$name, Launch_SizeAttr:$bytes);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$name `bytes` $bytes attr-dict";
}

def Launch_OutputOp : Launch_Op<"output", [Pure]> {
  let summary = "memory that the runtime reads after a step";
  let arguments = (ins StrAttr:$name, Launch_SizeAttr:$bytes);
  let results = (outs Launch_BufferType:$buffer);
  let assemblyFormat = "$name `bytes` $bytes attr-dict";
}

def Launch_DispatchOp : Launch_Op<"dispatch", [DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "runs a kernel over a grid";
  let description = [{
    `implements` describes the named op that this is part of, for tools and plug-ins.
    Constraints:
    * (C1) `kernel` names a kernel.func of the module.
    * (C2) there are as many buffers as it has memory arguments, and as many scalars as it has index arguments.
    * (C3) the grid has one to three dimensions.
    * (C4) `writes` are numbers of buffers, those that the kernel writes.
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, Launch_SizeArrayAttr:$grid, Variadic<Launch_BufferType>:$buffers,
                       DenseI64ArrayAttr:$writes, Launch_SizeArrayAttr:$scalars, StrAttr:$implements);
  let assemblyFormat = [{
    $kernel `grid` $grid `(` $buffers `)` `writes` $writes `scalars` $scalars `implements` $implements attr-dict
  }];
}

def Launch_BarrierOp : Launch_Op<"barrier"> {
  let summary = "waits for all dispatches before it";
  let assemblyFormat = "attr-dict";
}

#endif // FREEPORT_DIALECTS_LAUNCH_LAUNCHOPS_TD
