// The list of families. Architecture names decide, as in Hugging Face's configurations; model_type does not.
#include "compiler/frontend/GraphBuilder.h"

namespace freeport::frontend {

llvm::Expected<ImportedModel> importCheckpoint(mlir::MLIRContext &context, checkpoint::Checkpoint &checkpoint,
                                               const ImportOptions &options) {
  static constexpr std::pair<llvm::StringLiteral, Family> families[] = {
      {"LlamaForCausalLM", importLlama},           {"Qwen3ForCausalLM", importQwen3},
      {"Qwen3MoeForCausalLM", importQwen3Moe},     {"DeepseekV2ForCausalLM", importDeepseekV2},
      {"DeepseekV3ForCausalLM", importDeepseekV3},
  };
  context.loadDialect<graph::GraphDialect, kernel::KernelDialect, mlir::func::FuncDialect>();
  std::string architecture = checkpoint.config().firstString("architectures");
  if (llvm::Error error = checkpoint.config().takeError())
    return std::move(error);
  std::string known;
  for (auto &[name, family] : families) {
    if (name == architecture) {
      GraphBuilder builder(context, checkpoint, options);
      return family(builder);
    }
    known += (known.empty() ? "" : ", ") + name.str();
  }
  return llvm::createStringError(checkpoint.path() + ": expects architectures[0] among " + known + ", got '" +
                                 architecture + "'");
}

} // namespace freeport::frontend
