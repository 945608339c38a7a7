// What every NVML function goes through: is NVML started, is this the card, what does the card look like now.
#pragma once

#include "nvml.h"
#include "shared/state.h"

#include <mutex>
#include <optional>
#include <string>

namespace simgpu::nvml {

// Starts are counted; each wants one stop.
Return start() noexcept;
Return stop() noexcept;
bool started();

// The card as it is now: as its processes made it, or idle as its profile says. None where only a program that is not
// there knows the profile. Takes no place on the card and makes no file.
std::optional<shared::Snapshot> look();

// The one card's handle, and whether a caller has it.
Device card();

// Guards what is kept between calls.
std::mutex& guard();

// Says on stderr, once, why NVML can only answer "unknown error".
Return complain(const std::exception& error) noexcept;

// Runs a function's body, if NVML is started. No exception leaves.
template <typename Body>
Return answer(Body body) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(guard());
    return started() ? body() : kUninitialized;
  } catch (const std::exception& error) {
    return complain(error);
  }
}

// The same for a function of the card: the body takes what it looks like.
template <typename Body>
Return of_card(Device device, Body body) noexcept {
  return answer([&] {
    if (device != card()) {
      return kInvalidArgument;
    }
    const std::optional<shared::Snapshot> now = look();
    return now ? body(*now) : kGpuIsLost;
  });
}

// One value of the card.
template <typename Value, typename Reading>
Return give(Device device, Value* to, Reading reading) noexcept {
  return of_card(device, [&](const shared::Snapshot& now) {
    if (to == nullptr) {
      return kInvalidArgument;
    }
    *to = reading(now);
    return kSuccess;
  });
}

// A text, with its end, in a buffer of `length` bytes.
Return give_text(char* to, unsigned length, const std::string& text);

} // namespace simgpu::nvml
