#include "flights.h"

#include "region.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>

#include <cstring>
#include <list>
#include <mutex>
#include <utility>

namespace simgpu {
namespace {

struct Flight {
  Epoch epoch;
  Nanoseconds end = 0;
  at::Tensor host; // held, as torch's own pinned allocator holds a block until its copies have ended
  Region region;
  at::Tensor brought; // of a copy from the card: what the target will hold
  uint64_t hash = 0; // of a copy to the card: of the source as it was
};

constexpr size_t kMany = 64;

std::recursive_mutex mutex;
std::list<Flight>& flights() {
  static auto* all = new std::list<Flight>();
  return *all;
}

// Host tensors are worked on below everything that could record or count it.
class Quietly {
 private:
  at::AutoDispatchBelowADInplaceOrView below_;
  at::DisableRecordFunctionGuard unrecorded_;
};

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

uint64_t hash_of(const at::Tensor& host) {
  if (host.numel() == 0) {
    return 0;
  }
  const at::Tensor dense = host.is_non_overlapping_and_dense() ? host : at::clone(host, at::MemoryFormat::Contiguous);
  return hash_of(dense.const_data_ptr(), static_cast<size_t>(dense.numel()) * dense.element_size());
}

bool overlap(const Region& a, const Region& b) {
  return a.begin < b.end && b.begin < a.end;
}

bool same(const Region& a, const Region& b) {
  return a.begin == b.begin && a.end == b.end && !a.strided == !b.strided;
}

std::string changed(const Flight& flight) {
  return "race on pinned host memory: the source of a copy to the card (work " + std::to_string(flight.epoch.count) +
      " of stream " + std::to_string(flight.epoch.stream) + ", " +
      std::to_string(flight.region.end - flight.region.begin) +
      " bytes) was changed by the host before the host knew that the copy had ended. Missing: wait on the host for an "
      "event recorded on stream " +
      std::to_string(flight.epoch.stream) + " after the copy (event.synchronize()) before the memory is written to.";
}

// Ends one flight.
std::string finish(const Flight& flight) {
  const Quietly quietly;
  if (flight.brought.defined()) {
    const c10::InferenceMode as_made(flight.host.is_inference());
    flight.host.copy_(flight.brought);
    return {};
  }
  return hash_of(flight.host) == flight.hash ? std::string() : changed(flight);
}

// Ends all flights that `over` says are over.
template <typename Over>
std::string finish_if(Over over) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  std::string wrong;
  for (auto flight = flights().begin(); flight != flights().end();) {
    if (!over(*flight)) {
      ++flight;
      continue;
    }
    const Flight done = std::move(*flight);
    flight = flights().erase(flight);
    std::string found = finish(done);
    wrong = wrong.empty() ? std::move(found) : wrong;
  }
  return wrong;
}

} // namespace

void land_before_use_of(const Region& host) {
  (void)finish_if([&](const Flight& flight) { return flight.brought.defined() && overlap(flight.region, host); });
}

void note_source_in_flight(const at::Tensor& host, Epoch epoch, Nanoseconds end) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const Quietly quietly;
  const Region region = region_of(host);
  const uint64_t hash = hash_of(host);
  for (Flight& flight : flights()) {
    // The same bytes again, unchanged: one flight stands for both.
    if (!flight.brought.defined() && flight.epoch.stream == epoch.stream && same(flight.region, region) &&
        flight.hash == hash) {
      flight.epoch = epoch;
      flight.end = end;
      return;
    }
  }
  flights().push_back(Flight{epoch, end, host, region, {}, hash});
}

void hold_back(const at::Tensor& host, Epoch epoch) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const Quietly quietly;
  const c10::InferenceMode as_made(host.is_inference());
  const at::Tensor brought = at::clone(host);
  const at::Tensor poison = at::empty_like(brought);
  std::memset(poison.mutable_data_ptr(), 0xFF, poison.storage().nbytes());
  host.copy_(poison);
  flights().push_back(Flight{epoch, 0, host, region_of(host), brought, 0});
}

std::string land(const VectorClock& host_knows) {
  return finish_if([&](const Flight& flight) { return host_knows.knows(flight.epoch); });
}

std::string land_old(Nanoseconds now) {
  {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (flights().size() < kMany) {
      return {};
    }
  }
  return finish_if([&](const Flight& flight) { return !flight.brought.defined() && flight.end <= now; });
}

std::string in_flight(const Region& host) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  for (const Flight& flight : flights()) {
    if (overlap(flight.region, host)) {
      return std::string("a copy ") + (flight.brought.defined() ? "from" : "to") + " the card, work " +
          std::to_string(flight.epoch.count) + " of stream " + std::to_string(flight.epoch.stream);
    }
  }
  return {};
}

void forget_flights() {
  (void)finish_if([](const Flight& flight) { return flight.brought.defined(); });
  std::lock_guard<std::recursive_mutex> lock(mutex);
  flights().clear();
}

} // namespace simgpu
