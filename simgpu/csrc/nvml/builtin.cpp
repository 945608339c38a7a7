#include "builtin.h"

#include "shared/which.h"
#include "shared/words.h"

#include <cstdlib>

namespace simgpu::nvml {
namespace {

const char* const kPrefix = "Simulated ";

std::string known() {
  std::string names;
  for (const Profile& profile : profiles()) {
    names += (names.empty() ? "" : ", ") + std::string(profile.key);
  }
  return names;
}

const Profile& find(const std::string& key) {
  for (const Profile& profile : profiles()) {
    if (key == profile.key) {
      return profile;
    }
  }
  throw shared::BadInput(
      "simgpu: no profile \"" + key + "\"; known are " + known() + ", or give the path of a .json file");
}

uint64_t capacity_of(const Profile& profile) {
  const char* said = std::getenv("SIMGPU_CAPACITY");
  return said == nullptr || *said == 0 ? profile.memory : shared::parse_size(said, "SIMGPU_CAPACITY");
}

shared::Link link_of(const Profile& profile) {
  const shared::Link most{profile.link_generation, profile.link_width};
  const char* said = std::getenv("SIMGPU_LINK");
  if (said == nullptr || *said == 0) {
    return most;
  }
  const shared::Link link = shared::parse_link(said, most);
  if (link.generation == 0 || link.generation > most.generation || link.width > most.width) {
    throw shared::BadInput(
        "simgpu: SIMGPU_LINK=\"" + std::string(said) + "\" is more than the card " + profile.key + " can: up to pcie" +
        std::to_string(most.generation) + "x" + std::to_string(most.width));
  }
  return link;
}

shared::Model model_of(const Profile& profile, const std::string& card) {
  shared::Model model;
  model.name = kPrefix + std::string(profile.name);
  model.uuid = shared::uuid_of(card);
  model.profile = profile.key;
  model.capacity = capacity_of(profile);
  const shared::Link link = link_of(profile);
  model.link_generation = link.generation;
  model.link_width = link.width;
  model.power_limit_mw = profile.power_limit_mw;
  model.compute_major = profile.compute_major;
  model.compute_minor = profile.compute_minor;
  return model;
}

bool given(const char* text) {
  return text != nullptr && *text != 0;
}

} // namespace

const std::vector<Profile>& profiles() {
  static const auto* all = new std::vector<Profile>{
#include "profiles.inc"
  };
  return *all;
}

Asked asked(const char* card, const char* profile) {
  const std::string which = given(profile) ? profile : shared::profile_asked();
  Asked asked{given(card) ? card : shared::card_asked(which), shared::profile_name(which), std::nullopt};
  if (!shared::is_path(which)) {
    asked.model = model_of(find(which), asked.card);
  }
  return asked;
}

} // namespace simgpu::nvml
