// The ledger of device memory: how many bytes the card has, how many are taken, and what torch's statistics say of it.
// It owns no memory itself; blocks (block.h) take bytes from it before they exist and give them back when they go.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>
#include <mutex>

namespace simgpu {

class Ledger {
 public:
  static Ledger& instance();

  // Takes `bytes` (rounded up to kGranule), or throws c10::OutOfMemoryError and takes nothing.
  void take(size_t bytes);
  // Takes `bytes` even where the card is full: for memory that exists already.
  void take_anyway(size_t bytes);
  // Whether more is taken than the card has.
  bool overdrawn();
  void give_back(size_t bytes) noexcept;
  // Throws the out-of-memory error that `take(bytes)` throws on a full card.
  [[noreturn]] void refuse(size_t bytes);

  void set_capacity(size_t bytes);
  size_t capacity();
  size_t free();

  c10::CachingDeviceAllocator::DeviceStats statistics();
  void reset_accumulated();
  void reset_peak();

  // Sizes are counted in multiples of this, and blocks are aligned to it, as on CUDA.
  static constexpr size_t kGranule = 512;
  static size_t rounded(size_t bytes) {
    return (bytes + kGranule - 1) / kGranule * kGranule;
  }

 private:
  void enter(size_t bytes);

  std::mutex mutex_; // guards everything below
  size_t capacity_ = size_t{12} << 30;
  c10::CachingAllocator::Stat blocks_;
  c10::CachingAllocator::Stat bytes_;
  c10::CachingAllocator::Stat requested_;
  int64_t refusals_ = 0;
};

} // namespace simgpu
