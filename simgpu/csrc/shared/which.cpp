#include "which.h"

#include <cstdlib>

namespace simgpu::shared {
namespace {

std::string variable(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == 0 ? otherwise : value;
}

const std::string kSuffix = ".json";

bool has_suffix(const std::string& text) {
  return text.size() > kSuffix.size() && text.compare(text.size() - kSuffix.size(), kSuffix.size(), kSuffix) == 0;
}

} // namespace

std::string profile_asked() {
  return variable("SIMGPU_PROFILE", "rtx3060");
}

bool is_path(const std::string& profile) {
  return has_suffix(profile);
}

std::string profile_name(const std::string& profile) {
  const std::string file = profile.substr(profile.find_last_of('/') + 1);
  return has_suffix(file) ? file.substr(0, file.size() - kSuffix.size()) : file;
}

std::string card_asked(const std::string& profile) {
  return variable("SIMGPU_CARD", profile_name(profile));
}

} // namespace simgpu::shared
