#include "pinned.h"

#include "card.h"

#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <shared_mutex>

namespace simgpu {
namespace {

using c10::CachingAllocator::Stat;

// Every pinned allocation, by address.
class Pinned {
 public:
  void* get(size_t bytes) {
    void* data =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK_WITH(OutOfMemoryError, data != MAP_FAILED, "simgpu: the host has no ", bytes, " bytes to pin");
    std::unique_lock lock(mutex_);
    sizes_[reinterpret_cast<uintptr_t>(data)] = bytes;
    requests_.increase(1);
    bytes_.increase(bytes);
    return data;
  }

  void put(void* data) {
    size_t bytes = 0;
    {
      std::unique_lock lock(mutex_);
      const auto entry = sizes_.find(reinterpret_cast<uintptr_t>(data));
      bytes = entry->second;
      sizes_.erase(entry);
      requests_.decrease(1);
      bytes_.decrease(bytes);
    }
    munmap(data, bytes);
  }

  bool holds(const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    std::shared_lock lock(mutex_);
    const auto next = sizes_.upper_bound(at);
    if (next == sizes_.begin()) {
      return false;
    }
    const auto& [start, bytes] = *std::prev(next);
    return at - start < bytes;
  }

  at::HostStats statistics() {
    std::shared_lock lock(mutex_);
    at::HostStats stats;
    stats.allocated_bytes = bytes_;
    stats.num_host_alloc = requests_.allocated;
    stats.num_host_free = requests_.freed;
    return stats;
  }

  void reset_accumulated() {
    std::unique_lock lock(mutex_);
    requests_.reset_accumulated();
    bytes_.reset_accumulated();
  }

  void reset_peak() {
    std::unique_lock lock(mutex_);
    requests_.reset_peak();
    bytes_.reset_peak();
  }

 private:
  std::shared_mutex mutex_; // guards everything below
  std::map<uintptr_t, size_t> sizes_;
  Stat requests_;
  Stat bytes_;
};

Pinned& pinned() {
  static Pinned* all = new Pinned(); // never destroyed: tensors may outlive every static
  return *all;
}

void release(void* data) {
  pinned().put(data);
}

struct PinnedAllocator final : at::HostAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device host(c10::kCPU);
    if (bytes == 0) {
      return c10::DataPtr(nullptr, host);
    }
    void* data = pinned().get(bytes);
    return c10::DataPtr(data, data, &release, host);
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  // Copies are over when they return, so a pinned block never has to wait for a stream.
  bool record_event(void* /*data*/, void* /*context*/, c10::Stream /*stream*/) override {
    return true;
  }

  void empty_cache() override {}

  at::HostStats get_stats() override {
    return pinned().statistics();
  }

  void reset_accumulated_stats() override {
    pinned().reset_accumulated();
  }

  void reset_peak_stats() override {
    pinned().reset_peak();
  }
};

PinnedAllocator& host_allocator() {
  static PinnedAllocator* allocator = new PinnedAllocator();
  return *allocator;
}

const bool registered = [] {
  at::setHostAllocator(kCard, &host_allocator());
  return true;
}();

} // namespace

at::HostAllocator* pinned_allocator() {
  return &host_allocator();
}

bool is_pinned(const void* address) {
  return pinned().holds(address);
}

} // namespace simgpu
