// Which pages of the states are free, and how many sequences share each of the others. A page number means the same
// page in every state.
#pragma once

#include <cassert>
#include <cstdint>
#include <vector>

namespace freeport {

class PagePool {
public:
  explicit PagePool(uint32_t pages) : shares_(pages, 0) {
    free_.reserve(pages);
    for (uint32_t page = pages; page > 0; --page)
      free_.push_back(page - 1);
  }
  size_t size() const { return shares_.size(); }
  size_t available() const { return free_.size(); }

  /// A free page, held once. One must be available.
  uint32_t take() {
    assert(!free_.empty());
    const uint32_t page = free_.back();
    free_.pop_back();
    shares_[page] = 1;
    return page;
  }
  void share(uint32_t page) { ++shares_[page]; }
  bool is_shared(uint32_t page) const { return shares_[page] > 1; }
  void release(uint32_t page) {
    if (--shares_[page] == 0)
      free_.push_back(page);
  }

private:
  std::vector<uint32_t> shares_, free_;
};

} // namespace freeport
