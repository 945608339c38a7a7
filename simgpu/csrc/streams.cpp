#include "streams.h"

#include "card.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <chrono>

namespace simgpu {
namespace {

constexpr int kPoolSize = 32;

// Ids: 0 the default stream, 1..32 ordinary ones, 33..64 urgent ones.
struct Pool {
  std::array<StreamState, 1 + 2 * kPoolSize> streams;
  std::atomic<unsigned> next_ordinary{0};
  std::atomic<unsigned> next_urgent{0};

  Pool() {
    for (size_t i = 0; i < streams.size(); ++i) {
      streams[i].id = static_cast<c10::StreamId>(i);
      streams[i].priority = i > kPoolSize ? -1 : 0;
    }
  }
};

Pool& pool() {
  static Pool* streams = new Pool();
  return *streams;
}

thread_local c10::StreamId current_id = 0;

c10::Stream stream_of(c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, card(), id);
}

int64_t now_ns() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

} // namespace

c10::Stream current_stream() {
  return stream_of(current_id);
}

c10::Stream exchange_stream(const c10::Stream& stream) {
  const c10::StreamId before = current_id;
  current_id = state_of(stream).id;
  return stream_of(before);
}

c10::Stream default_stream() {
  return stream_of(0);
}

c10::Stream pooled_stream(int priority) {
  Pool& all = pool();
  if (priority < 0) {
    return stream_of(1 + kPoolSize + static_cast<c10::StreamId>(all.next_urgent++ % kPoolSize));
  }
  return stream_of(1 + static_cast<c10::StreamId>(all.next_ordinary++ % kPoolSize));
}

StreamState& state_of(const c10::Stream& stream) {
  auto& streams = pool().streams;
  TORCH_CHECK(
      stream.device_type() == kCard && stream.id() >= 0 && stream.id() < static_cast<c10::StreamId>(streams.size()),
      "simgpu: ",
      stream,
      " is not a stream of the simulated card");
  return streams[static_cast<size_t>(stream.id())];
}

void record(EventState& event, const c10::Stream& stream) {
  event.stream = state_of(stream).id;
  event.time_ns = now_ns();
}

void wait(const c10::Stream& stream, const EventState& /*event*/) {
  state_of(stream); // what the event stands for has run already; only the stream must exist
}

bool done(const EventState& /*event*/) {
  return true;
}

bool done(const c10::Stream& stream) {
  state_of(stream);
  return true;
}

double elapsed_ms(const EventState& from, const EventState& to) {
  TORCH_CHECK(
      from.timed && to.timed, "simgpu: both events need enable_timing=True to tell the time that elapsed between them");
  return static_cast<double>(to.time_ns - from.time_ns) * 1e-6;
}

} // namespace simgpu
