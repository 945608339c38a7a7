// Sizes and links as people write them.
#pragma once

#include "state.h"

#include <cstdint>
#include <string>

namespace simgpu::shared {

// Bytes of "4096", "3GiB", "1.5 GB"; BadInput names `what` and says what is accepted.
uint64_t parse_size(const std::string& text, const std::string& what);

// "x4", "gen3", "pcie3x8": a part that is not said is as it is now. "reset": zeros.
Link parse_link(const std::string& text, Link now);

} // namespace simgpu::shared
