#include "engine.h"

#include <atomic>

namespace simgpu {
namespace {

using Count = std::atomic<int64_t>;

struct Meters {
  Count bytes[3] = {}; // by Direction
  Count copies[3] = {};
  Count kernels{0};
  Count host_blocking_calls{0};
};

Meters meters;

void add(Count& count, int64_t amount) {
  count.fetch_add(amount, std::memory_order_relaxed);
}

} // namespace

void launch(const KernelJob& /*job*/, c10::function_ref<void()> body) {
  add(meters.kernels, 1);
  body();
}

void copy(const CopyJob& job, c10::function_ref<void()> body) {
  const auto way = static_cast<size_t>(job.direction);
  add(meters.copies[way], 1);
  add(meters.bytes[way], job.bytes);
  if (job.host_blocking) {
    add(meters.host_blocking_calls, 1);
  }
  body();
}

void host_waits(Wait /*reason*/) {
  add(meters.host_blocking_calls, 1);
}

Counters counters() {
  const auto bytes = [](Direction way) { return meters.bytes[static_cast<size_t>(way)].load(); };
  const auto copies = [](Direction way) { return meters.copies[static_cast<size_t>(way)].load(); };
  return {
      bytes(Direction::HostToDevice),
      bytes(Direction::DeviceToHost),
      bytes(Direction::DeviceToDevice),
      copies(Direction::HostToDevice),
      copies(Direction::DeviceToHost),
      copies(Direction::DeviceToDevice),
      meters.kernels.load(),
      meters.host_blocking_calls.load()};
}

void reset_counters() {
  for (size_t way = 0; way < 3; ++way) {
    meters.bytes[way] = 0;
    meters.copies[way] = 0;
  }
  meters.kernels = 0;
  meters.host_blocking_calls = 0;
}

} // namespace simgpu
