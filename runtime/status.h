// Error handling of the runtime: a Status says what went wrong in words that a user can act on, a Result carries a
// value or a Status. Nothing in the runtime throws; both types must be looked at.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>

namespace freeport {

/// Numbered as fp_code (runtime/freeport.h).
enum class Code {
  kOk = 0,
  kInvalidArgument, ///< the caller asked for something that makes no sense
  kNotFound,        ///< a file, tensor, device or sequence of that name does not exist
  kCorrupt,         ///< outside bytes do not follow their format
  kUnsupported,     ///< well-formed, but not something this build can do
  kOutOfMemory,     ///< host or device memory is exhausted
  kOutOfRange,      ///< a context, page pool or index is exceeded
  kIo,              ///< the operating system refused a read or write
  kCancelled,       ///< the user interrupted
  kInternal,        ///< our bug
};

/// Success, or a code and a message ("expects …, got …"). Cheap to move; not thread-safe for concurrent writes.
class [[nodiscard]] Status {
public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string &message() const { return message_; }

private:
  Code code_ = Code::kOk;
  std::string message_;
};

/// A value of type T, or the Status that says why there is none.
template <typename T> class [[nodiscard]] Result {
public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }
  bool ok() const { return value_.has_value(); }
  const Status &status() const { return status_; }
  T &value() & { return assert(ok()), *value_; }
  const T &value() const & { return assert(ok()), *value_; }
  T &&value() && { return assert(ok()), *std::move(value_); }
  T *operator->() { return &value(); }
  const T *operator->() const { return &value(); }
  T &operator*() & { return value(); }
  T &&operator*() && { return std::move(*this).value(); }

private:
  std::optional<T> value_;
  Status status_;
};

#define FP_CONCAT_INNER(a, b) a##b
#define FP_CONCAT(a, b) FP_CONCAT_INNER(a, b)

/// Returns from the calling function with the Status of `expression` unless it is ok.
#define FP_RETURN_IF_ERROR(expression)                                                                                 \
  do {                                                                                                                 \
    if (::freeport::Status fp_status = (expression); !fp_status.ok())                                                  \
      return fp_status;                                                                                                \
  } while (false)

/// Declares `declaration` from the value of a Result, or returns its Status from the calling function.
#define FP_ASSIGN_OR_RETURN(declaration, expression)                                                                   \
  FP_ASSIGN_OR_RETURN_INNER(FP_CONCAT(fp_result_, __LINE__), declaration, expression)
#define FP_ASSIGN_OR_RETURN_INNER(result, declaration, expression)                                                     \
  auto result = (expression);                                                                                          \
  if (!result.ok())                                                                                                    \
    return result.status();                                                                                            \
  declaration = std::move(result).value()

} // namespace freeport
