#include "pinned.h"

#include "card.h"
#include "engine.h"
#include "flights.h"
#include "races.h"

#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>

namespace simgpu {
namespace {

using c10::CachingAllocator::Stat;

size_t rounded(size_t bytes) {
  size_t power = 1;
  while (power < bytes) {
    power *= 2;
  }
  return power;
}

// Every pinned allocation, by address.
class Pinned {
 public:
  // As torch's allocator for CUDA: a power of two, all of it in RAM at once. (In a dry run nothing is ever written.)
  void* get(size_t asked) {
    const size_t bytes = rounded(asked);
    const int commit = dry() ? MAP_NORESERVE : MAP_POPULATE;
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | commit, -1, 0);
    TORCH_CHECK_WITH(
        OutOfMemoryError, data != MAP_FAILED, "simgpu: the host has no ", bytes, " bytes to pin (asked for: ", asked, ")");
    add(data, bytes, /*registered=*/false);
    return data;
  }

  void put(void* data) {
    munmap(data, remove(data, /*registered=*/false));
  }

  // False where some of it is pinned already.
  bool add(void* data, size_t bytes, bool registered) {
    const auto begin = reinterpret_cast<uintptr_t>(data);
    std::unique_lock lock(mutex_);
    const auto next = ranges_.lower_bound(begin);
    const bool reaches_next = next != ranges_.end() && next->first < begin + bytes;
    const bool within_before = next != ranges_.begin() && begin - std::prev(next)->first < std::prev(next)->second.bytes;
    if (reaches_next || within_before) {
      return false;
    }
    ranges_[begin] = Range{bytes, registered, std::make_shared<Shadow>()};
    requests_.increase(1);
    bytes_.increase(bytes);
    return true;
  }

  // Returns its bytes, 0 where nothing of that kind starts there.
  size_t remove(void* data, bool registered) {
    std::unique_lock lock(mutex_);
    const auto entry = ranges_.find(reinterpret_cast<uintptr_t>(data));
    if (entry == ranges_.end() || entry->second.registered != registered) {
      return 0;
    }
    const size_t bytes = entry->second.bytes;
    ranges_.erase(entry);
    requests_.decrease(1);
    bytes_.decrease(bytes);
    return bytes;
  }

  // Null where the address is not pinned.
  std::shared_ptr<Shadow> shadow_at(const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    std::shared_lock lock(mutex_);
    const auto next = ranges_.upper_bound(at);
    if (next == ranges_.begin()) {
      return nullptr;
    }
    const auto& [start, range] = *std::prev(next);
    return at - start < range.bytes ? range.shadow : nullptr;
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
  struct Range {
    size_t bytes;
    bool registered; // by host_register; else the allocator's own
    std::shared_ptr<Shadow> shadow;
  };

  std::shared_mutex mutex_; // guards everything below
  std::map<uintptr_t, Range> ranges_;
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

  // The bytes are read and written when a copy is asked for, and copies hold what they use while races are looked for, so
  // a pinned block never has to wait for a stream.
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
  return pinned().shadow_at(address) != nullptr;
}

std::shared_ptr<Shadow> pinned_shadow(const void* address) {
  return pinned().shadow_at(address);
}

void host_register(void* data, size_t bytes) {
  TORCH_CHECK(bytes > 0, "simgpu: there is nothing to pin: 0 bytes");
  TORCH_CHECK(
      pinned().add(data, bytes, /*registered=*/true), "simgpu: some of the memory is pinned already; unregister it first");
}

void host_unregister(void* data) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const size_t bytes = pinned().remove(data, /*registered=*/true);
  TORCH_CHECK(bytes > 0, "simgpu: no memory was registered at this address; pass what host_register was given");
  const std::string user = detecting_races() ? in_flight(Region{begin, begin + bytes, nullptr}) : std::string();
  if (!user.empty()) {
    raise_race(
        "race on pinned host memory: " + std::to_string(bytes) + " bytes were unregistered while " + user +
        " may still use them. Missing: wait on the host for the copy (event.synchronize()) before the memory is freed.");
  }
}

} // namespace simgpu
