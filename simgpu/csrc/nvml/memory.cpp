// How much memory there is, and which process holds how much.
#include "face.h"

#include <algorithm>

namespace simgpu::nvml {
namespace {

constexpr unsigned long long kBar1 = 256ull << 20; // bytes: what a card without a resizable BAR shows, and nothing uses

unsigned long long taken(const shared::Snapshot& now) {
  return std::min(now.used, now.model.capacity); // a stranger may have squeezed more than there is
}

void write(ProcessInfo1& to, const shared::Process& process) {
  to = {static_cast<unsigned>(process.pid), process.reserved};
}

void write(ProcessInfo2& to, const shared::Process& process) {
  to = {static_cast<unsigned>(process.pid), process.reserved, kNoInstance, kNoInstance};
}

// NVML's way with lists: the caller gives room for *count entries, and is told how many there are.
template <typename Info>
Return list(Device device, unsigned* count, Info* to) noexcept {
  return of_card(device, [&](const shared::Snapshot& now) {
    if (count == nullptr || (*count != 0 && to == nullptr)) {
      return kInvalidArgument;
    }
    const unsigned room = *count;
    *count = static_cast<unsigned>(now.processes.size());
    if (room < *count) {
      return kInsufficientSize;
    }
    for (const shared::Process& process : now.processes) {
      write(*to++, process);
    }
    return kSuccess;
  });
}

Return empty(Device device, unsigned* count) noexcept {
  return give(device, count, [](const shared::Snapshot&) { return 0; });
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

NVML_CALL nvmlDeviceGetMemoryInfo(Device device, Memory* memory) {
  return give(device, memory, [](const Snapshot& now) { return Memory{now.model.capacity, now.free(), taken(now)}; });
}

NVML_CALL nvmlDeviceGetMemoryInfo_v2(Device device, Memory2* memory) {
  return of_card(device, [&](const Snapshot& now) {
    if (memory == nullptr) {
      return kInvalidArgument;
    }
    if (memory->version != version<Memory2>(2)) {
      return kVersionMismatch;
    }
    *memory = Memory2{memory->version, now.model.capacity, 0, now.free(), taken(now)};
    return kSuccess;
  });
}

NVML_CALL nvmlDeviceGetBAR1MemoryInfo(Device device, Bar1Memory* memory) {
  return give(device, memory, [](const Snapshot&) { return Bar1Memory{kBar1, kBar1, 0}; });
}

NVML_CALL nvmlDeviceGetComputeRunningProcesses(Device device, unsigned* count, ProcessInfo1* infos) {
  return list(device, count, infos);
}

NVML_CALL nvmlDeviceGetComputeRunningProcesses_v2(Device device, unsigned* count, ProcessInfo2* infos) {
  return list(device, count, infos);
}

NVML_CALL nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count, ProcessInfo2* infos) {
  return list(device, count, infos);
}

#define NVML_NO_PROCESSES(name)                                              \
  NVML_CALL name(Device device, unsigned* count, const void* /*infos*/) {    \
    return empty(device, count);                                             \
  }

NVML_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses)
NVML_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
NVML_NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
NVML_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses)
NVML_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2)
NVML_NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)
