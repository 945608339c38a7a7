// The profiles that are built in, and the card that a process means.
#pragma once

#include "shared/state.h"

#include <optional>
#include <string>
#include <vector>

namespace simgpu::nvml {

// As in src/simgpu/profiles/*.json, from which the build makes the table.
struct Profile {
  const char* key; // "rtx3060"
  const char* name; // "NVIDIA GeForce RTX 3060"
  uint64_t memory; // bytes
  uint32_t link_generation, link_width, power_limit_mw, compute_major, compute_minor;
};

const std::vector<Profile>& profiles();

struct Asked {
  std::string card; // its name
  std::string profile;
  std::optional<shared::Model> model; // none where the profile is a file, which only programs with torch read
};

// Null or empty: what the environment says, with SIMGPU_CAPACITY and SIMGPU_LINK. shared::BadInput where it is wrong.
Asked asked(const char* card, const char* profile);

} // namespace simgpu::nvml
