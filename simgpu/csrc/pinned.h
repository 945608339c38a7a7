// Pinned host memory: an at::HostAllocator that remembers which addresses are page-locked. As torch's for CUDA it rounds up
// to powers of two and takes the RAM at once; nothing is cached. (The pages are not really locked: on a simulated card only
// the question "is it pinned?" counts.) Memory that is registered keeps its size.
#pragma once

#include "shadow.h"

#include <ATen/core/CachingHostAllocator.h>

#include <memory>

namespace simgpu {

at::HostAllocator* pinned_allocator();

// Whether `address` lies within a pinned allocation.
bool is_pinned(const void* address);

// Pins host memory that someone else made, as cudaHostRegister does, and undoes it. Throws on memory that is pinned already,
// respectively not registered; host_unregister while a copy may use it is a race (races.h).
void host_register(void* data, size_t bytes);
void host_unregister(void* data);

// What is known of the uses of the pinned block that `address` lies in; null outside of pinned memory.
std::shared_ptr<Shadow> pinned_shadow(const void* address);

} // namespace simgpu
