// Which operations go to the fallback although torch has a device-independent version of them.
#pragma once

#include <string>
#include <vector>

namespace simgpu {

// Lets operations without a derivative through on torch versions that would refuse them; once.
void register_autograd_fallback();

// Registers them; once, after torch has loaded its operations. Returns their names.
std::vector<std::string> register_forced_operations();

} // namespace simgpu
