// From outside bytes to programs: the border behind which the interpreter trusts every number.
#pragma once

#include "backends/reference/runtime/program.h"
#include "runtime/status.h"

#include <span>

namespace freeport::reference {

/// Checks `content` against the schema and the rules of bytecode.fbs and turns it into programs, which do not refer to
/// it. kUnsupported for another version, kCorrupt with the function and instruction for anything that breaks a rule.
Result<std::vector<Program>> decode(std::span<const std::byte> content, uint32_t version);

} // namespace freeport::reference
