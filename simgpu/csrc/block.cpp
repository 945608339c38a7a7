#include "block.h"

#include "card.h"
#include "engine.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/CPUAllocator.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace simgpu {
namespace {

// From this size on a block is a mapping of its own: no RAM before the first touch, none after the release.
constexpr size_t kMappedFrom = size_t{1} << 20;

std::atomic<bool> filling{false};

void obtain(Block& block) {
  const size_t size = Ledger::rounded(block.bytes);
  if (size >= kMappedFrom) {
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK_WITH(
        OutOfMemoryError, data != MAP_FAILED, "simgpu: the host has no ", size, " bytes to play device memory with");
    block.data = data;
    block.origin = Block::Origin::Mapped;
  } else {
    block.data = std::aligned_alloc(Ledger::kGranule, size);
    TORCH_CHECK_WITH(
        OutOfMemoryError, block.data != nullptr, "simgpu: the host has no ", size, " bytes to play device memory with");
    block.origin = Block::Origin::Heap;
  }
}

void dispose(Block& block) noexcept {
  // An adopted storage that someone else still holds keeps its values.
  const bool ours = block.origin != Block::Origin::Adopted || block.twin.use_count() == 1;
  if (block.data != nullptr && ours && fill_freed()) {
    std::memset(block.data, 0xFF, block.bytes);
  }
  switch (block.origin) {
    case Block::Origin::Mapped:
      munmap(block.data, Ledger::rounded(block.bytes));
      break;
    case Block::Origin::Heap:
      std::free(block.data);
      break;
    case Block::Origin::Adopted:
    case Block::Origin::Nothing:
      break;
  }
}

// Other streams that were recorded may use the bytes until they have ended what they have been given so far.
Nanoseconds in_use_until(const Block& block) {
  Nanoseconds until = 0;
  for (const uint32_t stream : block.recorded) {
    until = std::max(until, ready_time(stream));
  }
  return until;
}

void release(void* context) {
  const CardsWork cards_work;
  std::unique_ptr<Block> block(static_cast<Block*>(context));
  block_freed(*block);
  dispose(*block);
  Ledger::instance().give_back(block->seat, in_use_until(*block));
}

uint32_t stream_id() {
  return static_cast<uint32_t>(current_stream().id());
}

c10::DataPtr pointer_to(std::unique_ptr<Block> block) {
  Block* made = block.get();
  c10::DataPtr pointer(made->data, block.release(), &release, card());
  block_made(*made);
  return pointer;
}

struct CardAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    return new_block(bytes);
  }

  // A device pointer is not its own context, so there is no raw interface.
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

  bool initialized() override {
    return true;
  }

  // As on CUDA, memory goes back to the card only after the card has done all its work.
  void emptyCache(c10::MempoolId_t /*pool*/) override {
    synchronize();
    forget_earlier_owners();
    Ledger::instance().empty_cache();
  }

  void recordStream(const c10::DataPtr& pointer, c10::Stream stream) override {
    if (Block* block = block_of(pointer)) {
      record_use(*block, stream);
    }
  }

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    check_index(index);
    return Ledger::instance().statistics();
  }

  void resetAccumulatedStats(c10::DeviceIndex index) override {
    check_index(index);
    Ledger::instance().reset_accumulated();
  }

  void resetPeakStats(c10::DeviceIndex index) override {
    check_index(index);
    Ledger::instance().reset_peak();
  }

  // Not marked `override`: torch 2.9 has no such virtual.
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex index) {
    check_index(index);
    return {Ledger::instance().free(), Ledger::instance().capacity()};
  }
};

CardAllocator& card_allocator() {
  static CardAllocator* allocator = new CardAllocator(); // never destroyed: storages point at it until the end
  return *allocator;
}

const bool registered = [] {
  c10::SetAllocator(kCard, &card_allocator());
  return true;
}();

} // namespace

c10::Allocator* allocator() {
  return &card_allocator();
}

c10::DataPtr new_block(size_t bytes) {
  const CardsWork cards_work;
  auto block = std::make_unique<Block>();
  block->seat = Ledger::instance().take(bytes, stream_id());
  try {
    if (bytes > 0) {
      block->bytes = bytes;
      obtain(*block);
    }
    block->twin = c10::make_intrusive<c10::StorageImpl>(
        c10::StorageImpl::use_byte_size_t(),
        static_cast<int64_t>(bytes),
        c10::DataPtr(block->data, c10::Device(c10::kCPU)),
        c10::GetCPUAllocator(),
        /*resizable=*/true);
  } catch (...) {
    Ledger::instance().give_back(block->seat, 0);
    throw;
  }
  if (bytes > 0 && fill_freed()) {
    std::memset(block->data, 0xFF, bytes);
  }
  return pointer_to(std::move(block));
}

c10::DataPtr adopt(c10::intrusive_ptr<c10::StorageImpl> storage, IfFull if_full) {
  const size_t bytes = storage->nbytes();
  auto block = std::make_unique<Block>();
  block->seat = if_full == IfFull::Refuse ? Ledger::instance().take(bytes, stream_id())
                                          : Ledger::instance().take_anyway(bytes, stream_id());
  block->bytes = bytes;
  block->data = storage->_mutable_data_ptr_no_checks().get();
  block->origin = Block::Origin::Adopted;
  block->twin = std::move(storage);
  return pointer_to(std::move(block));
}

Block* block_of(const c10::DataPtr& pointer) {
  return pointer.get_deleter() == &release ? static_cast<Block*>(pointer.get_context()) : nullptr;
}

void set_fill_freed(bool on) {
  filling.store(on, std::memory_order_relaxed);
}

bool fill_freed() {
  return filling.load(std::memory_order_relaxed);
}

} // namespace simgpu
