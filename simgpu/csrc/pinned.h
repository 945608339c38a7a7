// Pinned host memory: an at::HostAllocator that remembers which addresses are page-locked. Sizes are exact; nothing is
// rounded up or cached. (The pages are not really locked: on a simulated card only the question "is it pinned?" counts.)
#pragma once

#include <ATen/core/CachingHostAllocator.h>

namespace simgpu {

at::HostAllocator* pinned_allocator();

// Whether `address` lies within a pinned allocation.
bool is_pinned(const void* address);

} // namespace simgpu
