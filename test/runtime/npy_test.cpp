// .npy files as NumPy lays them out, then hostile ones, each with the message that it earns.
#include "runtime/npy.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <unistd.h>

namespace freeport {
namespace {

template <typename T> std::string bytes_of(const std::vector<T> &values) {
  return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

/// A file of version `major`.0 with this dictionary, unpadded.
std::string npy(const std::string &dictionary, const std::string &data, int major = 1) {
  std::string file = "\x93NUMPY";
  file += static_cast<char>(major);
  file += '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i)
    file += static_cast<char>(dictionary.size() >> (8 * i));
  return file + dictionary + data;
}

std::string dictionary(const std::string &dtype, const std::string &shape) {
  return "{'descr': '" + dtype + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

Result<std::vector<int64_t>> parse(const std::string &file) {
  return parse_npy_integers(std::as_bytes(std::span(file)), "ids.npy");
}

void expect_ids(const std::string &file, const std::vector<int64_t> &expected) {
  auto ids = parse(file);
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, expected);
}

void expect_refused(const std::string &file, Code code, const std::string &message) {
  auto ids = parse(file);
  ASSERT_FALSE(ids.ok()) << message;
  EXPECT_EQ(ids.status().code(), code) << ids.status().message();
  EXPECT_EQ(ids.status().message(), "ids.npy: " + message);
}

TEST(NpyReader, EveryType) {
  expect_ids(npy(dictionary("<i4", "(3,)"), bytes_of<int32_t>({1, -2, 2147483647})), {1, -2, 2147483647});
  expect_ids(npy(dictionary("<i8", "(2,)"), bytes_of<int64_t>({-1, INT64_MAX})), {-1, INT64_MAX});
  expect_ids(npy(dictionary("<i2", "(1,)"), bytes_of<int16_t>({-3})), {-3});
  expect_ids(npy(dictionary("<u4", "(1,)"), bytes_of<uint32_t>({4294967295u})), {4294967295});
  expect_ids(npy(dictionary("<u2", "(2,)"), bytes_of<uint16_t>({65535, 1})), {65535, 1});
  expect_ids(npy(dictionary("<i4", "(0,)"), ""), {});
}

TEST(NpyReader, EverySpelling) {
  std::string data = bytes_of<int32_t>({7});
  for (int major : {1, 2, 3})
    expect_ids(npy(dictionary("<i4", "(1,)"), data, major), {7});
  expect_ids(npy("{\"shape\":(1,),\"descr\":\"<i4\",\"fortran_order\":False}", data), {7});
  expect_ids(npy("  { 'shape' : ( 1 , ) ,'fortran_order':False,'descr':'<i4'}" + std::string(70, ' ') + "\n", data),
             {7});
}

TEST(NpyReader, RefusesOtherArrays) {
  std::string data(16, '\0');
  expect_refused(npy(dictionary("<f4", "(4,)"), data), Code::kUnsupported,
                 "expects dtype <i4, <i8, <i2, <u4 or <u2, got <f4");
  expect_refused(npy(dictionary(">i4", "(4,)"), data), Code::kUnsupported,
                 "expects dtype <i4, <i8, <i2, <u4 or <u2, got >i4");
  expect_refused(npy(dictionary("\xFF\n", "(4,)"), data), Code::kUnsupported,
                 "expects dtype <i4, <i8, <i2, <u4 or <u2, got ??");
  expect_refused(npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (4,)}", data), Code::kUnsupported,
                 "expects integers, got records");
  expect_refused(npy(dictionary("<i4", "(2, 2)"), data), Code::kUnsupported,
                 "expects an array of rank 1, got shape (2, 2)");
  expect_refused(npy(dictionary("<i4", "()"), data), Code::kUnsupported, "expects an array of rank 1, got shape ()");
  expect_refused(npy("{'descr': '<i4', 'fortran_order': True, 'shape': (4,)}", data), Code::kUnsupported,
                 "expects C order, got Fortran order");
  expect_refused(npy(dictionary("<i4", "(67108865,)"), data), Code::kUnsupported,
                 "expects at most 67108864 entries, got 67108865");
  expect_refused(npy(dictionary("<i4", "(4,)"), data, 4), Code::kUnsupported,
                 "expects .npy version 1.0, 2.0 or 3.0, got 4.0");
}

TEST(NpyReader, RefusesDamage) {
  std::string data(16, '\0');
  expect_refused("", Code::kCorrupt, "expects a .npy file, got 0 bytes that do not begin like one");
  expect_refused("PK\x03\x04 a .npz file", Code::kCorrupt,
                 "expects a .npy file, got 16 bytes that do not begin like one");
  expect_refused(std::string("\x93NUMPY\x02\x00\x01\x00\x00", 11), Code::kCorrupt,
                 "expects 12 bytes before the .npy header, got 11");
  expect_refused(std::string("\x93NUMPY\x01\x00\x05\x00{}", 12), Code::kCorrupt,
                 "expects a .npy header of at most 2 bytes, got 5");
  expect_refused(npy(dictionary("<i4", "(5,)"), data), Code::kCorrupt,
                 "expects 20 bytes behind the header for 5 entries of <i4, got 16");
  expect_refused(npy(dictionary("<i4", "(3,)"), data), Code::kCorrupt,
                 "expects 12 bytes behind the header for 3 entries of <i4, got 16");
  auto header = [&](const std::string &text, const std::string &expected, const std::string &found, int at) {
    expect_refused(npy(text, data), Code::kCorrupt,
                   "expects " + expected + " in the .npy header, got '" + found + "' at byte " + std::to_string(at) +
                       " of it");
  };
  header("", "'{'", "", 0);
  header("{'descr': '<i4'", "'}'", "", 15);
  header("{'descr': '<i4", "a string", "<i4", 11);
  header("{'descr': '<i4'}", "the keys descr, fortran_order and shape", "", 16);
  header("{'descr': '<i4', 'descr': '<i4'}", "the keys descr, fortran_order and shape, once each", " '<i4'}", 25);
  header("{'more': 1}", "the keys descr, fortran_order and shape, once each", " 1}", 8);
  header("{'fortran_order': 0}", "True or False", "0}", 18);
  header("{'shape': (4)}", "','", ")}", 12);
  header("{'shape': (-4,)}", "a dimension that fits 64 bits", "-4,)}", 11);
  header("{'shape': (18446744073709551616,)}", "a dimension that fits 64 bits", "18446744073709551616", 11);
  header(dictionary("<i4", "(4,)") + "x", "the header to end with its dictionary", "x",
         static_cast<int>(dictionary("<i4", "(4,)").size()));
}

TEST(NpyReader, EveryPrefixIsRefused) {
  std::string file = npy(dictionary("<i4", "(4,)"), std::string(16, '\1'));
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_FALSE(parse(file.substr(0, size)).ok()) << size;
}

TEST(NpyReader, ReadsFiles) {
  std::string path = testing::TempDir() + "freeport-npy-" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << npy(dictionary("<i8", "(2,)"), bytes_of<int64_t>({4, 5}));
  auto ids = read_npy_integers(path);
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, (std::vector<int64_t>{4, 5}));
  std::vector<int64_t> many(100000, 3);
  std::ofstream(path, std::ios::binary) << npy(dictionary("<i8", "(100000,)"), bytes_of(many));
  EXPECT_EQ(read_npy_integers(path).value(), many);
  std::remove(path.c_str());
  auto absent = read_npy_integers(path);
  EXPECT_EQ(absent.status().code(), Code::kNotFound);
  EXPECT_EQ(absent.status().message(), path + ": cannot open the file: No such file or directory");
  auto directory = read_npy_integers("/");
  EXPECT_EQ(directory.status().code(), Code::kIo);
  EXPECT_EQ(directory.status().message(), "/: cannot read the file: Is a directory");
  auto empty = read_npy_integers("/dev/null");
  EXPECT_EQ(empty.status().message(), "/dev/null: expects a .npy file, got 0 bytes that do not begin like one");
}

} // namespace
} // namespace freeport
