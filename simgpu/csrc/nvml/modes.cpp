// What can be switched on a real card, and is as it is here: all off, compute by anybody, never unloaded.
#include "face.h"

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

namespace {

constexpr unsigned kOff = 0, kOn = 1;

Return off(Device device, unsigned* to) {
  return give(device, to, [](const Snapshot&) { return kOff; });
}

} // namespace

NVML_CALL nvmlDeviceGetMigMode(Device device, unsigned* now, unsigned* pending) {
  const Return answer = off(device, now);
  return answer == kSuccess ? off(device, pending) : answer;
}

NVML_CALL nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned* count) {
  return off(device, count);
}

NVML_CALL nvmlDeviceIsMigDeviceHandle(Device device, unsigned* is) {
  return off(device, is);
}

NVML_CALL nvmlDeviceGetComputeMode(Device device, unsigned* mode) {
  return off(device, mode);
}

NVML_CALL nvmlDeviceGetPersistenceMode(Device device, unsigned* mode) {
  return give(device, mode, [](const Snapshot&) { return kOn; });
}

NVML_CALL nvmlDeviceGetDisplayMode(Device device, unsigned* mode) {
  return off(device, mode);
}

NVML_CALL nvmlDeviceGetDisplayActive(Device device, unsigned* active) {
  return off(device, active);
}

NVML_CALL nvmlDeviceGetAccountingMode(Device device, unsigned* mode) {
  return off(device, mode);
}
