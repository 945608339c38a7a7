// Vector clocks: who knows of which work. A stream's own entry counts the pieces of work put on it; the other entries say
// up to which of them work put on it from now on is sure to start after the other streams' work has ended.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace simgpu {

constexpr size_t kStreams = 65; // the default stream, 32 ordinary and 32 urgent ones

// One piece of work: the `count`-th on its stream.
struct Epoch {
  uint32_t stream = 0;
  uint64_t count = 0;
};

class VectorClock {
 public:
  bool knows(Epoch epoch) const {
    return epoch.count <= counts_[epoch.stream];
  }
  void join(const VectorClock& other) {
    for (size_t i = 0; i < kStreams; ++i) {
      counts_[i] = std::max(counts_[i], other.counts_[i]);
    }
  }
  uint64_t tick(size_t stream) {
    return ++counts_[stream];
  }

 private:
  std::array<uint64_t, kStreams> counts_{};
};

} // namespace simgpu
