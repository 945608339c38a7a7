// Which process this is, which ones are dead, and what happens at a fork.
#pragma once

#include <cstdint>
#include <mutex>

namespace simgpu::shared {

// A number is used again after its process's death, so a process is told by its start too (in clock ticks since boot).
// The image is another after an exec, which keeps the process and loses its memory.
struct Identity {
  uint64_t pid = 0, born = 0, image = 0;
};

Identity myself();

// Whether no process has that number and start any more. A zombie is dead: its memory is gone. In doubt it is not.
bool dead(uint64_t pid, uint64_t born);

// Taken around every lock of a file, since all threads of a process count as one holder for the kernel. It is free in a
// forked child, whatever the other threads of the parent did.
std::mutex& turn();

// How many forks lie between this process and the one that loaded this code.
uint64_t forks();

} // namespace simgpu::shared
