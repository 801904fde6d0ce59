// Status and Result: what a caller sees of an error, and that the macros pass it on untouched.
#include "runtime/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace freeport {
namespace {

Result<int> half(int value) {
  if (value % 2)
    return Status(Code::kInvalidArgument, "expects an even number, got " + std::to_string(value));
  return value / 2;
}

Result<int> quarter(int value) {
  FP_ASSIGN_OR_RETURN(int first, half(value));
  FP_ASSIGN_OR_RETURN(int second, half(first));
  return second;
}

Status check(int value) {
  FP_RETURN_IF_ERROR(quarter(value).status());
  return Status();
}

TEST(Status, DefaultIsOk) {
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(Status().code(), Code::kOk);
}

TEST(Status, ErrorsPassThroughTheMacros) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_TRUE(check(12).ok());
  Status status = check(6);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), "expects an even number, got 3");
}

TEST(Result, MovesItsValue) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 7);
}

} // namespace
} // namespace freeport
