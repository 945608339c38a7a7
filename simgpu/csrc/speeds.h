// How fast the card, its link and the host are. The figures come from a profile (src/simgpu/profile.py).
#pragma once

#include "timeline.h"

#include <c10/core/ScalarType.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace simgpu {

// The kinds of numbers that a card multiplies at different rates.
enum class Number : size_t { Double, Single, Half, Bfloat, Eight, Integer };
constexpr size_t kNumbers = 6;

// The rates that one piece of work meets: flop/s of every kind of number, bytes/s of the memory, and what each piece costs
// beside its work.
struct Processor {
  std::array<double, kNumbers> flops{};
  double bytes = 0;
  Nanoseconds launch = 0;
};

struct Speeds {
  Processor card;
  Processor cpu; // what the host computes itself

  // A copy of n bytes takes latency + n / rate; the pinned rate is per lane of a PCIe generation, times lanes.
  static constexpr size_t kGenerations = 8;
  std::array<int64_t, kGenerations> pinned_per_lane{};
  int64_t pageable = 0; // bytes/s, never more than the pinned rate
  Nanoseconds latency = 0;

  // Host time that a call takes: python, dispatcher and driver. `driver` alone where the rest is measured.
  Nanoseconds operation = 0, view = 0, copy = 0, event = 0, driver = 0;
};

Number kind_of(c10::ScalarType type);

// max(flops / F, bytes / M) + launch, rounded up to ns.
Nanoseconds duration(const Processor& processor, Number kind, double flops, double bytes);

// latency + bytes / rate, rounded up to ns.
Nanoseconds transfer(Nanoseconds latency, int64_t bytes, int64_t rate);

} // namespace simgpu
