// Events: sets can be made and waited for, and since a simulated card never breaks, every wait runs to its end.
#include "face.h"

#include <chrono>
#include <set>
#include <thread>

namespace simgpu::nvml {
namespace {

// Those that were made and not freed. Under guard().
std::set<EventSet>& sets() {
  static auto* all = new std::set<EventSet>();
  return *all;
}

Return known(EventSet set) {
  return sets().count(set) != 0 ? kSuccess : kInvalidArgument;
}

Return wait(EventSet set, const EventData* data, unsigned milliseconds) {
  const Return checked = answer([&] { return data == nullptr ? kInvalidArgument : known(set); });
  if (checked != kSuccess) {
    return checked;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return kTimeout;
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

NVML_CALL nvmlEventSetCreate(EventSet* set) {
  return answer([&] {
    if (set == nullptr) {
      return kInvalidArgument;
    }
    *set = new EventSetHandle();
    sets().insert(*set);
    return kSuccess;
  });
}

NVML_CALL nvmlEventSetFree(EventSet set) {
  return answer([&] {
    if (sets().erase(set) == 0) {
      return kInvalidArgument;
    }
    delete set;
    return kSuccess;
  });
}

NVML_CALL nvmlEventSetWait_v2(EventSet set, EventData* data, unsigned milliseconds) {
  return wait(set, data, milliseconds);
}

NVML_CALL nvmlEventSetWait(EventSet set, EventData* data, unsigned milliseconds) {
  return wait(set, data, milliseconds);
}

NVML_CALL nvmlDeviceGetSupportedEventTypes(Device device, unsigned long long* types) {
  return give(device, types, [](const Snapshot&) { return 0; });
}

NVML_CALL nvmlDeviceRegisterEvents(Device device, unsigned long long types, EventSet set) {
  return of_card(device, [&](const Snapshot&) {
    const Return checked = known(set);
    return checked == kSuccess && types != 0 ? kNotSupported : checked;
  });
}
