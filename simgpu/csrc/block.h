// A block of device memory and its CPU twin.
//
// Device memory is host memory. Every block owns a CPU StorageImpl over the very same bytes, its twin; the CPU kernels
// read and write the block through it, so nothing is copied to run an operation. A block is either made here (bytes
// from the system, the twin only points at them) or adopted (the twin came out of a CPU kernel and owns the bytes).
#pragma once

#include "ledger.h"
#include "shadow.h"

#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace simgpu {

struct Block {
  enum class Origin { Nothing, Heap, Mapped, Adopted };

  void* data = nullptr;
  size_t bytes = 0; // as requested; the ledger rounds
  Origin origin = Origin::Nothing;
  c10::intrusive_ptr<c10::StorageImpl> twin;
  Ledger::Seat seat;
  uint32_t owner = 0; // the stream that it was made for
  std::vector<uint32_t> recorded; // other streams that use it, by record_stream
  std::unique_ptr<Shadow> shadow; // only while races are looked for
};

// The card's c10::DeviceAllocator.
c10::Allocator* allocator();

// A pointer to fresh device memory; throws c10::OutOfMemoryError. Untouched large blocks cost no RAM.
c10::DataPtr new_block(size_t bytes);

// Makes a CPU storage device memory, counted as such; the bytes stay where they are. With IfFull::Refuse it throws
// c10::OutOfMemoryError where they do not fit.
c10::DataPtr adopt(c10::intrusive_ptr<c10::StorageImpl> storage, IfFull if_full);

// The block behind a device pointer, or null for device memory that someone else made.
Block* block_of(const c10::DataPtr& pointer);

// Whether freed bytes, and new ones, are filled with 0xFF: NaN in every floating type.
void set_fill_freed(bool on);
bool fill_freed();

} // namespace simgpu
