// This machine's cores, and what they and its memory can do at most: the roofs that measured speeds are shares of.
#pragma once

#include "runtime/status.h"

#include <string>

namespace freeport {

/// GB/s (10^9 bytes) at which memory is read: the best of 1, 2, 4 and 8 threads that each read four streams of 1 GiB.
/// Takes about a second. kOutOfMemory where 1 GiB is not to be had.
Result<double> measure_read_bandwidth();

/// 10^9 float multiply-adds a second of one core, with the widest vectors that it has. Takes about a tenth of a second.
double measure_multiply_add_peak();

/// Physical cores among the processors that this process may use, at least 1: processors that share a core, as `folder`
/// tells (Linux' cpuN/topology/thread_siblings_list), count once.
int physical_cores(const std::string &folder = "/sys/devices/system/cpu");

} // namespace freeport
