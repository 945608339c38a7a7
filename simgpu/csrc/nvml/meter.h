// How busy a card was between two asks.
#pragma once

#include "shared/state.h"

#include <map>

namespace simgpu::nvml {

struct Rates {
  unsigned compute = 0, copy = 0; // per cent of the time
};

// Each question has a meter of its own, so that asking for the power leaves what the next ask for the load sees.
class Meter {
 public:
  // The growth of busy time over the growth of virtual time, over all live processes, since this meter was last asked;
  // the first ask counts from the processes' start. 0 where no clock moved.
  Rates ask(const shared::Snapshot& now);

 private:
  std::map<int32_t, shared::Process> before_; // by PID
};

} // namespace simgpu::nvml
