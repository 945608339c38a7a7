// The one card there is: its device, and the words every other file uses for it.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>

namespace simgpu {

constexpr c10::DeviceType kCard = c10::DeviceType::PrivateUse1;

inline c10::Device card() {
  return c10::Device(kCard, 0);
}

// Throws when a caller names a card that does not exist.
inline void check_index(c10::DeviceIndex index) {
  TORCH_CHECK(
      index <= 0, "simgpu: invalid device ordinal ", static_cast<int>(index), ": there is one simulated card, index 0");
}

} // namespace simgpu
