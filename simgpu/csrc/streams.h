// Streams and events of the card: when their work is done in virtual time, and what their work is sure to come after.
#pragma once

#include "timeline.h"
#include "vector_clock.h"

#include <c10/core/Stream.h>

#include <cstdint>

namespace simgpu {

// Guarded by the engine's lock (engine.h).
struct StreamState {
  c10::StreamId id = 0; // 0 is the default stream
  int priority = 0; // lower is more urgent, as on CUDA
  Nanoseconds ready = 0; // all its work has ended by then
  VectorClock known;
};

struct EventState {
  bool timed = false;
  Nanoseconds time = 0;
  VectorClock known;
};

// The stream that this thread's work goes to.
c10::Stream current_stream();
// Makes `stream` this thread's stream and returns the one before.
c10::Stream exchange_stream(const c10::Stream& stream);
c10::Stream default_stream();
// The next stream of the pool: as on CUDA, 32 for each of two priorities, handed out in turn.
c10::Stream pooled_stream(int priority);
// The object behind a stream; throws on an id that the card never gave out.
StreamState& state_of(const c10::Stream& stream);
// All of them, by id.
StreamState* all_streams();

} // namespace simgpu
