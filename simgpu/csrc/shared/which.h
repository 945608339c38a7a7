// Which card a process means, where it does not say so itself: SIMGPU_CARD and SIMGPU_PROFILE.
#pragma once

#include <string>

namespace simgpu::shared {

// What SIMGPU_PROFILE says, or "rtx3060": a built-in profile's name, or the path of a profile's file.
std::string profile_asked();
// The name of a profile: itself, or a file's name without ".json".
std::string profile_name(const std::string& profile);
bool is_path(const std::string& profile); // it ends in ".json"
// What SIMGPU_CARD says, or the profile's name.
std::string card_asked(const std::string& profile);

} // namespace simgpu::shared
