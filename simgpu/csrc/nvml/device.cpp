// Finding the card, and what it is.
#include "face.h"

#include <strings.h>

#include <cstdio>

namespace simgpu::nvml {
namespace {

// NVML's numbers for what is behind a name or a compute capability.
constexpr unsigned kGeForce = 5, kNvidia = 14;
constexpr unsigned kPascal = 4, kVolta = 5, kTuring = 6, kAmpere = 7, kAda = 8, kHopper = 9, kBlackwell = 10;
constexpr unsigned kNoArchitecture = 0xffffffff;

unsigned architecture(const shared::Model& model) {
  switch (model.compute_major) {
    case 6:
      return kPascal;
    case 7:
      return model.compute_minor >= 5 ? kTuring : kVolta;
    case 8:
      return model.compute_minor == 9 ? kAda : kAmpere;
    case 9:
      return kHopper;
    case 10:
    case 12:
      return kBlackwell;
    default:
      return kNoArchitecture;
  }
}

std::string uuid(const shared::Snapshot& now) {
  return "GPU-" + now.model.uuid;
}

// The card's place on the bus, in any of the ways to write it: its domain may have four or eight digits.
bool is_bus_id(const char* text) {
  unsigned domain = 1, bus = 0, device = 1, function = 1;
  char rest = 0;
  return std::sscanf(text, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &rest) == 4 && domain == 0 &&
      bus == 1 && device == 0 && function == 0;
}

// Gives the handle where the card is the one that was asked for.
template <typename Matches>
Return find(Device* to, Return otherwise, Matches matches) noexcept {
  return answer([&] {
    if (to == nullptr) {
      return kInvalidArgument;
    }
    const auto now = look();
    if (!now || !matches(*now)) {
      return otherwise;
    }
    *to = card();
    return kSuccess;
  });
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

NVML_CALL nvmlDeviceGetCount_v2(unsigned* count) {
  return answer([&] { return count == nullptr ? kInvalidArgument : (*count = look() ? 1 : 0, kSuccess); });
}

NVML_CALL nvmlDeviceGetCount(unsigned* count) {
  return nvmlDeviceGetCount_v2(count);
}

NVML_CALL nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  return find(device, kInvalidArgument, [&](const Snapshot&) { return index == 0; });
}

NVML_CALL nvmlDeviceGetHandleByIndex(unsigned index, Device* device) {
  return nvmlDeviceGetHandleByIndex_v2(index, device);
}

NVML_CALL nvmlDeviceGetHandleByUUID(const char* text, Device* device) {
  return text == nullptr ? answer([] { return kInvalidArgument; })
                         : find(device, kNotFound, [&](const Snapshot& now) { return uuid(now) == text; });
}

NVML_CALL nvmlDeviceGetHandleByPciBusId_v2(const char* text, Device* device) {
  return text == nullptr ? answer([] { return kInvalidArgument; })
                         : find(device, kNotFound, [&](const Snapshot&) { return is_bus_id(text); });
}

NVML_CALL nvmlDeviceGetHandleByPciBusId(const char* text, Device* device) {
  return nvmlDeviceGetHandleByPciBusId_v2(text, device);
}

NVML_CALL nvmlDeviceGetIndex(Device device, unsigned* index) {
  return give(device, index, [](const Snapshot&) { return 0; });
}

NVML_CALL nvmlDeviceGetMinorNumber(Device device, unsigned* number) {
  return give(device, number, [](const Snapshot&) { return 0; });
}

NVML_CALL nvmlDeviceGetName(Device device, char* name, unsigned length) {
  return of_card(device, [&](const Snapshot& now) { return give_text(name, length, now.model.name); });
}

NVML_CALL nvmlDeviceGetUUID(Device device, char* text, unsigned length) {
  return of_card(device, [&](const Snapshot& now) { return give_text(text, length, uuid(now)); });
}

NVML_CALL nvmlDeviceGetBrand(Device device, unsigned* brand) {
  return give(device, brand, [](const Snapshot& now) {
    return now.model.name.find("GeForce") == std::string::npos ? kNvidia : kGeForce;
  });
}

NVML_CALL nvmlDeviceGetArchitecture(Device device, unsigned* to) {
  return give(device, to, [](const Snapshot& now) { return architecture(now.model); });
}

NVML_CALL nvmlDeviceGetCudaComputeCapability(Device device, int* major, int* minor) {
  return of_card(device, [&](const Snapshot& now) {
    if (major == nullptr || minor == nullptr) {
      return kInvalidArgument;
    }
    *major = static_cast<int>(now.model.compute_major);
    *minor = static_cast<int>(now.model.compute_minor);
    return *major == 0 ? kNotSupported : kSuccess;
  });
}
