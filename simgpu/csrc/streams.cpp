#include "streams.h"

#include "card.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>

namespace simgpu {
namespace {

constexpr int kPoolSize = (kStreams - 1) / 2;

// Ids: 0 the default stream, 1..32 ordinary ones, 33..64 urgent ones.
struct Pool {
  std::array<StreamState, kStreams> streams;
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

StreamState* all_streams() {
  return pool().streams.data();
}

} // namespace simgpu
