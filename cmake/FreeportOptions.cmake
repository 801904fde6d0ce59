# Compiler options that every target of ours shares, and the two families of targets:
# runtime targets (no exceptions, no RTTI, no LLVM) and compiler targets (MLIR's own settings).

option(FREEPORT_COMPILER "Build the compiler, which needs MLIR; without it, packages still run" ON)
option(FREEPORT_SANITIZE "Build with the address and undefined-behaviour sanitizers, and the fuzz targets" OFF)

add_library(freeport_options INTERFACE)
target_include_directories(freeport_options INTERFACE ${CMAKE_SOURCE_DIR})
# Generated sources are not held to our warnings.
target_include_directories(freeport_options SYSTEM INTERFACE ${CMAKE_BINARY_DIR})
# Portable numerics forbid contraction: a*b+c stays two roundings, on the host as in kernels.
target_compile_options(freeport_options INTERFACE -Wall -Wextra -Wno-unused-parameter -Werror -ffp-contract=off
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-Xclang -fno-pch-timestamp>")
# Assertions stay on in every build: LLVM's debug output needs them.
string(REPLACE "-DNDEBUG" "" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")
if(FREEPORT_SANITIZE)
  target_compile_options(freeport_options INTERFACE -fsanitize=address,undefined,fuzzer-no-link -fno-omit-frame-pointer
    -fno-sanitize=vptr,function)
  target_link_options(freeport_options INTERFACE -fsanitize=address,undefined)
endif()
target_link_options(freeport_options INTERFACE -fuse-ld=lld-19)

# Runtime code: Status and Result instead of exceptions.
add_library(freeport_runtime_options INTERFACE)
target_link_libraries(freeport_runtime_options INTERFACE freeport_options)
target_compile_options(freeport_runtime_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions> $<$<COMPILE_LANGUAGE:CXX>:-fno-rtti>)
target_compile_definitions(freeport_runtime_options INTERFACE TBB_USE_EXCEPTIONS=0 JSON_NOEXCEPTION)

# Compiler code: links MLIR and LLVM as shared libraries. Debian's 19.1.7 is built with RTTI, without exceptions.
if(FREEPORT_COMPILER)
  find_package(MLIR 19.1 REQUIRED CONFIG HINTS /usr/lib/llvm-19/lib/cmake/mlir)
  find_package(LLD REQUIRED CONFIG HINTS /usr/lib/llvm-19/lib/cmake/lld)
  list(APPEND CMAKE_MODULE_PATH ${MLIR_CMAKE_DIR} ${LLVM_CMAKE_DIR})
  include(TableGen)
  include(AddLLVM)
  include(AddMLIR)
  add_library(freeport_compiler_options INTERFACE)
  target_link_libraries(freeport_compiler_options INTERFACE freeport_options)
  target_include_directories(freeport_compiler_options SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
  target_compile_options(freeport_compiler_options INTERFACE -fno-exceptions)
  separate_arguments(FREEPORT_LLVM_DEFINITIONS NATIVE_COMMAND "${LLVM_DEFINITIONS}")
  target_compile_options(freeport_compiler_options INTERFACE ${FREEPORT_LLVM_DEFINITIONS})
endif()

# Libraries of Debian that both sides use.
find_package(TBB REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

# freeport_resolve_symbols(LIBRARY): a shared library that lacks a definition fails when it is linked, not when it is loaded.
function(freeport_resolve_symbols library)
  if(NOT FREEPORT_SANITIZE)
    target_link_options(${library} PRIVATE -Wl,--no-undefined)
  endif()
endfunction()
