#include "races.h"

#include "cache.h"
#include "host.h"

#include <torch/csrc/Exceptions.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <sstream>
#include <utility>

namespace simgpu {
namespace {

std::atomic<bool> detecting{false};
PyObject* race_error_class = nullptr;

struct RaceError final : torch::PyTorchError {
  using PyTorchError::PyTorchError;
  PyObject* python_type() override {
    return race_error_class != nullptr ? race_error_class : PyExc_RuntimeError;
  }
};

// Freed bytes that nobody has taken again, by owner and pool, smallest first.
using Pool = std::pair<uint32_t, bool>;
std::map<Pool, std::multimap<size_t, std::vector<Access>>> vacancies;

size_t vacant = 0; // how many there are
size_t sweep_at = 256;

Pool pool_of(uint32_t owner, size_t bytes) {
  return {owner, Cache::is_small(bytes)};
}

// Forgets, now and then, what the host knows to be over.
void sweep_at_times(const VectorClock& host) {
  if (vacant < sweep_at) {
    return;
  }
  for (auto& [pool, places] : vacancies) {
    for (auto place = places.begin(); place != places.end();) {
      const auto& uses = place->second;
      const bool over = std::all_of(uses.begin(), uses.end(), [&](const Access& use) { return host.knows(use.epoch); });
      vacant -= over ? 1 : 0;
      place = over ? places.erase(place) : std::next(place);
    }
  }
  sweep_at = std::max<size_t>(256, 2 * vacant);
}

const char* deed(AccessKind kind) {
  return kind == AccessKind::Write ? "writes" : "reads";
}

std::string stream_name(uint32_t id) {
  return id == 0 ? "stream 0 (the default stream)" : "stream " + std::to_string(id);
}

std::string span(const Region& region) {
  std::ostringstream text;
  text << region.end - region.begin << " bytes from 0x" << std::hex << region.begin << std::dec;
  if (region.strided) {
    text << " (with gaps)";
  }
  return text.str();
}

void describe_missing_edge(std::ostream& text, const Access& earlier, const Work& work) {
  text << "Missing: " << stream_name(work.epoch.stream) << " does not wait for " << earlier.operation << " (work "
       << earlier.epoch.count << " of " << stream_name(earlier.epoch.stream) << "). Record an event on stream "
       << earlier.epoch.stream << " after it and let stream " << work.epoch.stream << " wait_event() it before "
       << work.operation;
}

std::string describe(
    const Access& earlier, Place place, const Region& region, AccessKind kind, const Work& work) {
  std::ostringstream text;
  text << "race on " << (place == Place::Device ? "device" : "pinned host") << " memory, " << span(region) << ": "
       << work.operation << " on " << stream_name(work.epoch.stream) << " (its work " << work.epoch.count << ") "
       << deed(kind);
  if (earlier.kind == AccessKind::Freed) {
    text << " bytes that were freed while " << earlier.operation << " on " << stream_name(earlier.epoch.stream)
         << " (its work " << earlier.epoch.count << ") may still use them. ";
    describe_missing_edge(text, earlier, work);
    text << ", or call tensor.record_stream() with stream " << earlier.epoch.stream << " before the tensor is freed.";
  } else {
    text << " what " << earlier.operation << " on " << stream_name(earlier.epoch.stream) << " (its work "
         << earlier.epoch.count << ") " << deed(earlier.kind) << ", and nothing orders the two. ";
    describe_missing_edge(text, earlier, work);
    text << '.';
  }
  return text.str();
}

} // namespace

void set_race_detection(bool on) {
  if (on && !detecting) {
    // What came before was not watched: take it as ordered.
    VectorClock all;
    for (size_t i = 0; i < kStreams; ++i) {
      all.join(all_streams()[i].known);
    }
    for (size_t i = 0; i < kStreams; ++i) {
      all_streams()[i].known.join(all);
    }
  }
  if (!on) {
    forget_tenants();
  }
  detecting = on;
}

bool detecting_races() {
  return detecting.load(std::memory_order_relaxed);
}

std::string note_use(
    Shadow& shadow, Place place, const Region& region, AccessKind kind, const Work& work, const VectorClock& host) {
  const Access access{work.epoch, kind, work.operation, nullptr};
  const auto earlier = shadow.use(region, access, work.stream.known, host);
  return earlier ? describe(*earlier, place, region, kind, work) : std::string();
}

void leave_behind(uint32_t owner, size_t bytes, std::vector<Access> uses, const VectorClock& host) {
  uses.erase(std::remove_if(uses.begin(), uses.end(), [&](const Access& use) { return host.knows(use.epoch); }), uses.end());
  if (!uses.empty()) {
    sweep_at_times(host);
    vacancies[pool_of(owner, bytes)].emplace(bytes, std::move(uses));
    ++vacant;
  }
}

std::vector<Access> tenants_before(uint32_t owner, size_t bytes) {
  const auto pool = vacancies.find(pool_of(owner, bytes));
  if (pool == vacancies.end()) {
    return {};
  }
  auto fit = pool->second.lower_bound(bytes);
  if (fit == pool->second.end()) {
    return {};
  }
  fit = std::prev(pool->second.upper_bound(fit->first)); // of several the last one that was freed
  const size_t left = fit->first - bytes;
  std::vector<Access> tenants = std::move(fit->second);
  pool->second.erase(fit);
  --vacant;
  if (left > 0) {
    pool->second.emplace(left, tenants);
    ++vacant;
  }
  return tenants;
}

void forget_tenants() {
  vacancies.clear();
  vacant = 0;
}

void raise_race(const std::string& what) {
  throw RaceError("simgpu: " + what + " Asked for at " + python_line() + ".");
}

void set_race_error(void* python_class) {
  race_error_class = static_cast<PyObject*>(python_class);
}

} // namespace simgpu
