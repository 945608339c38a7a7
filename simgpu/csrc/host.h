// The host's own time, and where in the program it is.
#pragma once

#include "timeline.h"

#include <string>
#include <vector>

namespace simgpu {

enum class HostClock {
  Model, // every call costs what the profile says; the same on every machine and in every run
  Measured, // the CPU time that this process's threads spend outside of the card's work
};

void set_host_clock(HostClock clock);
HostClock host_clock();

// From its construction to its end the calling thread does the card's work, which costs the host nothing. Scopes nest.
class CardsWork {
 public:
  CardsWork();
  ~CardsWork();
  CardsWork(const CardsWork&) = delete;
  CardsWork& operator=(const CardsWork&) = delete;

  // CPU time since the last scope ended, once; 0 for a scope inside another and in the model clock.
  Nanoseconds spent_before() {
    const Nanoseconds spent = spent_;
    spent_ = 0;
    return spent;
  }
  // Whether the thread is inside such a scope.
  static bool inside();

 private:
  Nanoseconds spent_ = 0;
};

// "model.py:12 in forward": the innermost line of the calling thread's Python program that is not the machinery's. Takes
// the GIL, so no lock may be held.
std::string python_line();
// The folders of torch and of this package.
void set_machinery(std::vector<std::string> folders);

} // namespace simgpu
