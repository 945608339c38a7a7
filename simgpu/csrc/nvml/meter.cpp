#include "meter.h"

#include <algorithm>

namespace simgpu::nvml {
namespace {

using shared::Process;

// What a process did since; all of it where its clock went back, for then it is another one with the same PID.
Process since(const Process& before, const Process& now) {
  if (before.now_ns > now.now_ns || before.busy_ns > now.busy_ns || before.copy_ns > now.copy_ns) {
    return now;
  }
  Process grown = now;
  grown.busy_ns -= before.busy_ns;
  grown.copy_ns -= before.copy_ns;
  grown.now_ns -= before.now_ns;
  return grown;
}

unsigned percent(double part, double whole) {
  return whole <= 0 ? 0 : static_cast<unsigned>(std::min(100.0, 100 * part / whole + 0.5));
}

} // namespace

Rates Meter::ask(const shared::Snapshot& now) {
  double busy = 0, copy = 0, time = 0;
  std::map<int32_t, Process> after;
  for (const Process& process : now.processes) {
    const Process grown = since(before_[process.pid], process);
    busy += static_cast<double>(grown.busy_ns);
    copy += static_cast<double>(grown.copy_ns);
    time += static_cast<double>(grown.now_ns);
    after[process.pid] = process;
  }
  before_ = std::move(after);
  return Rates{percent(busy, time), percent(copy, time)};
}

} // namespace simgpu::nvml
