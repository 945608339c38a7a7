// The card on its bus: where it sits, and how wide and fast the way to it is.
#include "face.h"

#include <cstring>

namespace simgpu::nvml {
namespace {

// A place that a first card often has; device and subsystem numbers belong to real cards and stay 0.
const char* const kLegacyBusId = "0000:01:00.0";
const char* const kBusId = "00000000:01:00.0";
constexpr unsigned kBus = 1;

template <size_t size>
void write(char (&to)[size], const char* text) {
  std::strncpy(to, text, size - 1);
}

PciInfo1 place1() {
  PciInfo1 info{};
  write(info.bus_id, kLegacyBusId);
  info.bus = kBus;
  return info;
}

PciInfo3 place3() {
  PciInfo3 info{};
  write(info.legacy_bus_id, kLegacyBusId);
  write(info.bus_id, kBusId);
  info.bus = kBus;
  return info;
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

NVML_CALL nvmlDeviceGetPciInfo(Device device, PciInfo1* info) {
  return give(device, info, [](const Snapshot&) { return place1(); });
}

NVML_CALL nvmlDeviceGetPciInfo_v2(Device device, PciInfo2* info) {
  return give(device, info, [](const Snapshot&) { return PciInfo2{place1(), 0, {}}; });
}

NVML_CALL nvmlDeviceGetPciInfo_v3(Device device, PciInfo3* info) {
  return give(device, info, [](const Snapshot&) { return place3(); });
}

NVML_CALL nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned* generation) {
  return give(device, generation, [](const Snapshot& now) { return now.link.generation; });
}

NVML_CALL nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned* width) {
  return give(device, width, [](const Snapshot& now) { return now.link.width; });
}

NVML_CALL nvmlDeviceGetMaxPcieLinkGeneration(Device device, unsigned* generation) {
  return give(device, generation, [](const Snapshot& now) { return now.model.link_generation; });
}

NVML_CALL nvmlDeviceGetMaxPcieLinkWidth(Device device, unsigned* width) {
  return give(device, width, [](const Snapshot& now) { return now.model.link_width; });
}

NVML_CALL nvmlDeviceGetGpuMaxPcieLinkGeneration(Device device, unsigned* generation) {
  return nvmlDeviceGetMaxPcieLinkGeneration(device, generation);
}

NVML_CALL nvmlDeviceGetBusType(Device device, unsigned* type) {
  constexpr unsigned pcie = 2;
  return give(device, type, [](const Snapshot&) { return pcie; });
}
