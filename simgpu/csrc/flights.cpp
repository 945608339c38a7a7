#include "flights.h"

#include "region.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstring>
#include <list>
#include <mutex>
#include <utility>

namespace simgpu {
namespace {

constexpr size_t kMany = 64;

// Guards the list only: flights are ended, and let go of, outside of it.
std::mutex mutex;
std::list<Flight>& flights() {
  static auto* all = new std::list<Flight>();
  return *all;
}

// Host tensors are worked on below everything that could record, count or redirect it.
class Quietly {
 private:
  at::AutoDispatchBelowADInplaceOrView below_;
  c10::impl::ExcludeDispatchKeyGuard unseen_{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
  at::DisableRecordFunctionGuard unrecorded_;
};

// The program may do to its own tensor what it likes (resize_, set_, .data =); this one stays.
at::Tensor alias_of(const at::Tensor& host) {
  at::Tensor alias = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(host.storage()), host.key_set().remove(c10::DispatchKey::Python), host.dtype());
  alias.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
  return alias;
}

// Not for secrets: four independent sums of products, as fast as memory.
uint64_t hash_of(const void* data, size_t bytes) {
  constexpr uint64_t kPrime = 0x9E3779B97F4A7C15;
  uint64_t sums[4] = {1, 2, 3, 4};
  const auto* at = static_cast<const unsigned char*>(data);
  for (; bytes >= 32; bytes -= 32, at += 32) {
    uint64_t words[4];
    std::memcpy(words, at, 32);
    for (size_t i = 0; i < 4; ++i) {
      sums[i] = (sums[i] ^ words[i]) * kPrime;
      sums[i] ^= sums[i] >> 29;
    }
  }
  for (; bytes > 0; --bytes, ++at) {
    sums[bytes % 4] = (sums[bytes % 4] ^ *at) * kPrime;
  }
  return ((sums[0] * kPrime ^ sums[1]) * kPrime ^ sums[2]) * kPrime ^ sums[3];
}

at::Tensor dense(const at::Tensor& host) {
  return host.is_non_overlapping_and_dense() ? host : at::clone(host, at::MemoryFormat::Contiguous);
}

size_t size_of(const at::Tensor& host) {
  return static_cast<size_t>(host.numel()) * host.element_size();
}

uint64_t hash_of(const at::Tensor& host) {
  return host.numel() == 0 ? 0 : hash_of(dense(host).const_data_ptr(), size_of(host));
}

bool is_poison(const at::Tensor& host) {
  const at::Tensor bytes = dense(host);
  const auto* begin = static_cast<const unsigned char*>(bytes.const_data_ptr());
  const size_t size = size_of(host);
  return size == 0 || (begin[0] == 0xFF && std::memcmp(begin, begin + 1, size - 1) == 0);
}

std::string changed(const Flight& flight) {
  const bool down = flight.brought.defined();
  const std::string stream = std::to_string(flight.epoch.stream);
  return std::string("race on pinned host memory: the ") + (down ? "target of a copy from" : "source of a copy to") +
      " the card (work " + std::to_string(flight.epoch.count) + " of stream " + stream + ", " +
      std::to_string(flight.region.end - flight.region.begin) +
      " bytes) was changed by the host before the host knew that the copy had ended. Missing: wait on the host for an "
      "event recorded on stream " +
      stream + " after the copy (event.synchronize()) before the memory is written to.";
}

// Whether the host left the memory alone; brings what was kept back.
bool arrive(const Flight& flight) {
  const Quietly quietly;
  if (!flight.brought.defined()) {
    return hash_of(flight.host) == flight.hash;
  }
  const bool untouched = is_poison(flight.host);
  flight.host.copy_(flight.brought);
  return untouched;
}

// Ends all flights that `over` says are over.
template <typename Over>
std::string land_if(Over over) {
  std::list<Flight> landing;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto flight = flights().begin(); flight != flights().end();) {
      const auto next = std::next(flight);
      if (over(*flight)) {
        landing.splice(landing.end(), flights(), flight);
      }
      flight = next;
    }
  }
  std::string wrong;
  for (const Flight& flight : landing) {
    if (!arrive(flight) && wrong.empty()) {
      wrong = changed(flight);
    }
  }
  return wrong;
}

// The same bytes again, unchanged, in one stream: one flight stands for both.
bool stands_for(const Flight& earlier, const Flight& later) {
  return !earlier.brought.defined() && !later.brought.defined() && earlier.epoch.stream == later.epoch.stream &&
      same(earlier.region, later.region) && earlier.hash == later.hash;
}

} // namespace

std::string land_before_use_of(const Region& host, bool writes) {
  return land_if([&](const Flight& flight) {
    return (writes || flight.brought.defined()) && overlap(flight.region, host);
  });
}

Flight take_off_up(const at::Tensor& host, Epoch epoch) {
  const Quietly quietly;
  return Flight{epoch, 0, alias_of(host), region_of(host), {}, hash_of(host)};
}

Flight take_off_down(const at::Tensor& host, Epoch epoch) {
  const Quietly quietly;
  const at::Tensor target = alias_of(host), brought = at::clone(target), poison = at::empty_like(brought);
  std::memset(poison.mutable_data_ptr(), 0xFF, poison.storage().nbytes());
  target.copy_(poison);
  return Flight{epoch, 0, target, region_of(host), brought, 0};
}

std::string follow(Flight flight, Nanoseconds end, Nanoseconds now) {
  flight.end = end;
  bool many = false;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (Flight& earlier : flights()) {
      if (stands_for(earlier, flight)) {
        earlier.epoch = flight.epoch;
        earlier.end = end;
        return {};
      }
    }
    flights().push_back(std::move(flight));
    many = flights().size() > kMany;
  }
  if (!many) {
    return {};
  }
  // What came back shows only to a host that has waited, unless nobody else is left who could look.
  return land_if([&](const Flight& each) {
    return each.end <= now && (!each.brought.defined() || each.host.storage().use_count() == 1);
  });
}

std::string land(const VectorClock& host_knows) {
  return land_if([&](const Flight& flight) { return host_knows.knows(flight.epoch); });
}

std::string in_flight(const Region& host) {
  const std::lock_guard<std::mutex> lock(mutex);
  for (const Flight& flight : flights()) {
    if (overlap(flight.region, host)) {
      return std::string("a copy ") + (flight.brought.defined() ? "from" : "to") + " the card, work " +
          std::to_string(flight.epoch.count) + " of stream " + std::to_string(flight.epoch.stream) + ",";
    }
  }
  return {};
}

void forget_flights() {
  (void)land_if([](const Flight&) { return true; });
}

} // namespace simgpu
