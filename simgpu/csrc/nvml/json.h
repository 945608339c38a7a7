// Just enough JSON to tell another program what a card looks like.
#pragma once

#include "shared/state.h"

#include <string>

namespace simgpu::nvml {

std::string json_of(const std::string& card, const shared::Snapshot& now);
std::string json_of_profiles();

} // namespace simgpu::nvml
