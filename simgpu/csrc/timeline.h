// Virtual time: when each piece of work starts and ends. Pure arithmetic on nanoseconds; knows no torch and no memory.
//
//   start = the first moment, not before the host asked for it and its stream is ready, at which the engine is free
//   end   = start + duration
//
// Work of one stream runs in order. Work of several streams meets on the engine in the order in which it was asked for,
// except that a piece whose stream is ready early may use a time at which the engine would stand still anyway.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simgpu {

using Nanoseconds = int64_t;

enum class EngineKind : size_t { Compute, HostToDevice, DeviceToHost };
constexpr size_t kEngines = 3;

// What an engine did, summed up. While it stood still, it was `starved` if the host had not asked for the work that came
// next, and it `stalled` if that work had to wait for something else, a copy say.
struct EngineTotals {
  Nanoseconds busy = 0, stalled = 0, starved = 0;

  EngineTotals since(const EngineTotals& before) const {
    return {busy - before.busy, stalled - before.stalled, starved - before.starved};
  }
};

class Engine {
 public:
  // Reserves the engine and returns the start.
  Nanoseconds book(Nanoseconds asked, Nanoseconds ready, Nanoseconds duration);

  const EngineTotals& totals() const {
    return totals_;
  }

 private:
  struct Gap {
    Nanoseconds from, to;
  };

  bool book_in_a_gap(Nanoseconds earliest, Nanoseconds duration, Nanoseconds* start);
  void forget_gaps_before(Nanoseconds now);

  Nanoseconds free_at_ = 0;
  std::vector<Gap> gaps_; // of the future as the host sees it, in order
  EngineTotals totals_;
};

// The host's clock and the engines. What the streams know is theirs (streams.h).
class Timeline {
 public:
  Nanoseconds now() const {
    return now_;
  }
  // The host works for so long.
  void spend(Nanoseconds duration) {
    now_ += duration;
  }
  // The host waits until then.
  void wait_until(Nanoseconds time) {
    now_ = time > now_ ? time : now_;
  }
  // Puts work on an engine for a stream that is ready at `ready`; returns its end.
  Nanoseconds run(EngineKind engine, Nanoseconds ready, Nanoseconds duration) {
    return engines_[static_cast<size_t>(engine)].book(now_, ready, duration) + duration;
  }
  Engine& engine(EngineKind kind) {
    return engines_[static_cast<size_t>(kind)];
  }

 private:
  Nanoseconds now_ = 0;
  std::array<Engine, kEngines> engines_;
};

} // namespace simgpu
