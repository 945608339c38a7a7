// Counts what the host computes itself, in the model clock.
#pragma once

namespace simgpu {

// On at first. Costs every operation on the CPU about a microsecond of real time.
void watch_host(bool on);

} // namespace simgpu
