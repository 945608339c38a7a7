#include "ledger.h"

#include <c10/util/Exception.h>

#include <cstdio>
#include <string>

namespace simgpu {
namespace {

std::string spelled(size_t bytes) {
  static const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) {
    value /= 1024;
  }
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
  return text;
}

} // namespace

Ledger& Ledger::instance() {
  static Ledger* ledger = new Ledger(); // never destroyed: blocks may outlive every static
  return *ledger;
}

void Ledger::enter(size_t bytes) {
  if (bytes == 0) {
    return;
  }
  blocks_.increase(1);
  bytes_.increase(rounded(bytes));
  requested_.increase(bytes);
}

void Ledger::take(size_t bytes) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t used = static_cast<size_t>(bytes_.current);
    if (used <= capacity_ && rounded(bytes) <= capacity_ - used) {
      enter(bytes);
      return;
    }
  }
  refuse(bytes);
}

void Ledger::take_anyway(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  enter(bytes);
}

bool Ledger::overdrawn() {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<size_t>(bytes_.current) > capacity_;
}

void Ledger::give_back(size_t bytes) noexcept {
  if (bytes == 0) {
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  blocks_.decrease(1);
  bytes_.decrease(rounded(bytes));
  requested_.decrease(bytes);
}

void Ledger::refuse(size_t bytes) {
  size_t used = 0;
  size_t capacity = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++refusals_;
    used = static_cast<size_t>(bytes_.current);
    capacity = capacity_;
  }
  const size_t left = used < capacity ? capacity - used : 0;
  TORCH_CHECK_WITH(
      OutOfMemoryError,
      false,
      "simgpu out of memory. Tried to allocate ",
      spelled(bytes),
      " (",
      bytes,
      " bytes). The card has a capacity of ",
      spelled(capacity),
      " (",
      capacity,
      " bytes) of which ",
      spelled(left),
      " (",
      left,
      " bytes) is free; ",
      spelled(used),
      " (",
      used,
      " bytes) is allocated.");
}

void Ledger::set_capacity(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  capacity_ = bytes;
}

size_t Ledger::capacity() {
  std::lock_guard<std::mutex> lock(mutex_);
  return capacity_;
}

size_t Ledger::free() {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t used = static_cast<size_t>(bytes_.current);
  return used < capacity_ ? capacity_ - used : 0;
}

c10::CachingDeviceAllocator::DeviceStats Ledger::statistics() {
  std::lock_guard<std::mutex> lock(mutex_);
  // Nothing is cached, so a block is a segment and what is allocated is what is reserved.
  constexpr size_t all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  c10::CachingDeviceAllocator::DeviceStats stats;
  stats.allocation[all] = blocks_;
  stats.segment[all] = blocks_;
  stats.active[all] = blocks_;
  stats.allocated_bytes[all] = bytes_;
  stats.reserved_bytes[all] = bytes_;
  stats.active_bytes[all] = bytes_;
  stats.requested_bytes[all] = requested_;
  stats.num_ooms = refusals_;
  stats.num_device_alloc = blocks_.allocated;
  stats.num_device_free = blocks_.freed;
  return stats;
}

void Ledger::reset_accumulated() {
  std::lock_guard<std::mutex> lock(mutex_);
  blocks_.reset_accumulated();
  bytes_.reset_accumulated();
  requested_.reset_accumulated();
  refusals_ = 0;
}

void Ledger::reset_peak() {
  std::lock_guard<std::mutex> lock(mutex_);
  blocks_.reset_peak();
  bytes_.reset_peak();
  requested_.reset_peak();
}

} // namespace simgpu
