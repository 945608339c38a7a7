#include "face.h"

#include "builtin.h"

#include <cstdio>
#include <cstring>
#include <set>

namespace simgpu::nvml {
namespace {

int starts = 0; // under guard()
shared::Card* open_card = nullptr; // under guard(); a pointer, for it must not be left by a static's end

void forget_card() {
  delete open_card;
  open_card = nullptr;
}

// What others made of the card; none where nobody uses it. The file that is open may have been removed, and the card be
// in use again in another.
std::optional<shared::Snapshot> shared_state(const std::string& name) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (open_card == nullptr) {
      shared::Card found = shared::Card::find(name);
      if (!found) {
        return std::nullopt;
      }
      open_card = new shared::Card(std::move(found));
    }
    shared::Snapshot now = open_card->look();
    if (!now.idle) {
      return now;
    }
    forget_card();
  }
  return std::nullopt;
}

shared::Snapshot idle(const shared::Model& model) {
  shared::Snapshot now;
  now.model = model;
  now.link = {model.link_generation, model.link_width};
  now.idle = true;
  return now;
}

} // namespace

std::mutex& guard() {
  static auto* all = new std::mutex();
  return *all;
}

bool started() {
  return starts > 0;
}

Return start() noexcept {
  try {
    const std::lock_guard<std::mutex> lock(guard());
    look(); // what is wrong with the card's state is said here, once
    ++starts;
    return kSuccess;
  } catch (const std::exception& error) {
    return complain(error);
  }
}

Return stop() noexcept {
  return answer([] {
    if (--starts == 0) {
      forget_card();
    }
    return kSuccess;
  });
}

std::optional<shared::Snapshot> look() {
  const Asked which = asked(nullptr, nullptr);
  if (auto now = shared_state(which.card)) {
    return now;
  }
  return which.model ? std::optional(idle(*which.model)) : std::nullopt;
}

Device card() {
  static DeviceHandle handle;
  return &handle;
}

Return complain(const std::exception& error) noexcept {
  try {
    static auto* said = new std::set<std::string>();
    if (said->insert(error.what()).second) {
      std::fprintf(stderr, "simulated NVML: %s\n", error.what());
    }
  } catch (const std::exception&) {
    // Nothing to say it with.
  }
  return kUnknown;
}

Return give_text(char* to, unsigned length, const std::string& text) {
  if (to == nullptr) {
    return kInvalidArgument;
  }
  if (text.size() >= length) {
    return kInsufficientSize;
  }
  std::memcpy(to, text.c_str(), text.size() + 1);
  return kSuccess;
}

} // namespace simgpu::nvml
