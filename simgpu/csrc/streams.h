// Streams and events of the card.
//
// In this version work runs at once on the calling thread, so a stream is always empty and an event is the wall clock at
// the moment it was recorded. A stream and an event are objects all the same: virtual clocks and the race detector's
// vector clocks will live in them.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>

namespace simgpu {

struct StreamState {
  c10::StreamId id = 0; // 0 is the default stream
  int priority = 0; // lower is more urgent, as on CUDA
};

struct EventState {
  bool timed = false;
  c10::StreamId stream = 0; // where it was last recorded
  int64_t time_ns = 0; // steady clock
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

void record(EventState& event, const c10::Stream& stream);
// Work put on `stream` from now on starts after `event`.
void wait(const c10::Stream& stream, const EventState& event);
bool done(const EventState& event);
bool done(const c10::Stream& stream);
double elapsed_ms(const EventState& from, const EventState& to);

} // namespace simgpu
