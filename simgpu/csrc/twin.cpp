#include "twin.h"

#include "block.h"
#include "card.h"
#include "engine.h"
#include "ledger.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>

#include <utility>

namespace simgpu {
namespace {

c10::intrusive_ptr<c10::StorageImpl> cpu_storage(c10::DataPtr pointer, size_t bytes) {
  return c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(),
      static_cast<int64_t>(bytes),
      std::move(pointer),
      c10::GetCPUAllocator(),
      /*resizable=*/true);
}

c10::Storage device_storage(c10::DataPtr pointer, size_t bytes) {
  return c10::Storage(
      c10::Storage::use_byte_size_t(), static_cast<int64_t>(bytes), std::move(pointer), allocator(), /*resizable=*/true);
}

// The CPU storage over the same bytes. Device memory that someone else made has no block, and gets one for this once.
c10::intrusive_ptr<c10::StorageImpl> twin_storage(const c10::Storage& storage) {
  if (Block* block = block_of(storage.data_ptr())) {
    return block->twin;
  }
  void* data = storage.mutable_data();
  return cpu_storage(c10::DataPtr(data, c10::Device(c10::kCPU)), storage.nbytes());
}

// The dispatch keys of an ordinary CPU tensor, and of one made in inference mode.
c10::DispatchKeySet cpu_keys(bool inference) {
  const auto keys_of_new = [](bool in_inference_mode) {
    c10::InferenceMode mode(in_inference_mode);
    return at::detail::empty_cpu({0}, at::kByte).key_set();
  };
  static const c10::DispatchKeySet ordinary = keys_of_new(false);
  static const c10::DispatchKeySet inferring = keys_of_new(true);
  return inference ? inferring : ordinary;
}

// A storage of `meta`: so many bytes that are nowhere.
c10::intrusive_ptr<c10::StorageImpl> no_storage(size_t bytes) {
  return c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(),
      static_cast<int64_t>(bytes),
      c10::DataPtr(nullptr, c10::Device(c10::kMeta)),
      c10::GetAllocator(c10::kMeta),
      /*resizable=*/true);
}

c10::DispatchKeySet keys_for(const c10::Storage& storage, const at::Tensor& device) {
  const c10::DispatchKeySet keys = cpu_keys(device.is_inference());
  return storage.device_type() == c10::kMeta ? keys.remove_backend(c10::BackendComponent::CPUBit) | c10::DispatchKeySet(c10::DispatchKey::Meta)
                                             : keys;
}

at::Tensor over(c10::Storage storage, const at::Tensor& device) {
  const c10::TensorImpl* from = device.unsafeGetTensorImpl();
  const c10::DispatchKeySet keys = keys_for(storage, device);
  at::Tensor cpu =
      at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage), keys, from->dtype());
  c10::TensorImpl* to = cpu.unsafeGetTensorImpl();
  to->set_sizes_and_strides(from->sizes(), from->strides(), from->storage_offset());
  if (C10_UNLIKELY(device.is_conj())) {
    to->_set_conj(true);
  }
  if (C10_UNLIKELY(device.is_neg())) {
    to->_set_neg(true);
  }
  if (C10_UNLIKELY(from->is_wrapped_number())) {
    to->set_wrapped_number(true);
  }
  // No gradient is ever kept, but composites choose their way by it (matmul folds or not).
  if (device.requires_grad()) {
    c10::InferenceMode mode(device.is_inference()); // only there may an inference tensor be told so
    to->set_requires_grad(true);
  }
  return cpu;
}

const c10::StorageImpl* storage_of(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

// A device tensor with the geometry of `cpu`.
at::Tensor shaped_like(const at::Tensor& cpu, at::Tensor device) {
  c10::TensorImpl* to = device.unsafeGetTensorImpl();
  to->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
  to->_set_conj(cpu.is_conj());
  to->_set_neg(cpu.is_neg());
  return device;
}

// The CPU kernel replaced the bytes under a written tensor (out= that grew): the device storage takes the new ones.
void take_over(c10::StorageImpl& device, c10::StorageImpl& cpu) {
  const size_t bytes = cpu.nbytes();
  if (cpu.device_type() == c10::kMeta) {
    device.set_data_ptr_noswap(new_block(bytes));
    device.set_nbytes(bytes);
    return;
  }
  auto moved = cpu_storage(cpu.set_data_ptr(c10::DataPtr(nullptr, c10::Device(c10::kCPU))), bytes);
  cpu.set_nbytes(0);
  device.set_nbytes(bytes);
  try {
    device.set_data_ptr_noswap(adopt(moved, IfFull::Refuse));
  } catch (const c10::OutOfMemoryError&) { // the bytes exist: the tensor stays whole, and the error is told
    device.set_data_ptr_noswap(adopt(std::move(moved), IfFull::TakeAnyway));
    throw;
  }
}

void settle_one(const Twin& twin) {
  c10::TensorImpl* to = twin.device.unsafeGetTensorImpl();
  const c10::TensorImpl* from = twin.cpu.unsafeGetTensorImpl();
  if (to->storage_offset() != from->storage_offset() || to->sizes() != from->sizes() ||
      to->strides() != from->strides()) {
    to->set_sizes_and_strides(from->sizes(), from->strides(), from->storage_offset());
  }
  c10::StorageImpl* device = to->unsafe_storage().unsafeGetStorageImpl();
  c10::StorageImpl* cpu = from->unsafe_storage().unsafeGetStorageImpl();
  if (device->nbytes() < cpu->nbytes()) {
    take_over(*device, *cpu);
  }
}

} // namespace

at::Tensor cpu_view(const at::Tensor& device) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      device.has_storage(), "simgpu holds dense tensors only; there are no bytes behind this one");
  return over(c10::Storage(twin_storage(device.storage())), device);
}

const at::Tensor& Twins::add(at::Tensor device, bool written) {
  for (Twin& twin : twins_) {
    // One tensor given twice must be one tensor to the kernel too: some take another way when query is key.
    if (twin.device.is_same(device)) {
      twin.written |= written;
      return twin.cpu;
    }
  }
  at::Tensor cpu = twin_of(device);
  twins_.push_back(Twin{std::move(device), std::move(cpu), written});
  return twins_.back().cpu;
}

at::Tensor Twins::twin_of(const at::Tensor& device) {
  if (device.has_storage() && (dry() || block_of(device.storage().data_ptr()) == nullptr)) {
    // Two tensors over the same memory must share their twin's storage as well, which only a block remembers.
    for (const Twin& twin : twins_) {
      if (storage_of(twin.device) == storage_of(device)) {
        return over(twin.cpu.storage(), device);
      }
    }
  }
  if (dry() && device.has_storage()) {
    return over(c10::Storage(no_storage(device.storage().nbytes())), device);
  }
  return cpu_view(device);
}

void Twins::settle() {
  for (const Twin& twin : twins_) {
    if (twin.written) {
      settle_one(twin);
    }
  }
}

at::Tensor Twins::to_device(const at::Tensor& cpu, const char* op) {
  if (!cpu.defined()) {
    return cpu;
  }
  for (const Twin& twin : twins_) {
    if (twin.cpu.is_same(cpu)) {
      return twin.device;
    }
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      cpu.layout() == c10::kStrided && cpu.has_storage() && !cpu.is_quantized() && !cpu.is_nested() && (cpu.is_cpu() || cpu.is_meta()),
      "simgpu holds dense tensors only; ",
      op,
      " gave ",
      cpu.toString());
  c10::StorageImpl* storage = cpu.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  for (const Twin& twin : twins_) {
    if (storage_of(twin.cpu) == storage) {
      return shaped_like(
          cpu,
          at::detail::make_tensor<c10::TensorImpl>(
              c10::TensorImpl::VIEW, c10::Storage(twin.device.storage()), twin.device.key_set(), cpu.dtype()));
    }
  }
  const auto fresh = [&](const c10::Storage& bytes) {
    return shaped_like(
        cpu,
        at::detail::make_tensor<c10::TensorImpl>(
            c10::Storage(bytes), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), cpu.dtype()));
  };
  for (const Adopted& earlier : adopted_) {
    if (earlier.cpu == storage) {
      return fresh(earlier.device);
    }
  }
  adopted_.push_back(Adopted{storage, new_storage(storage)});
  return fresh(adopted_.back().device);
}

// The device side of a storage that the kernel made.
c10::Storage Twins::new_storage(c10::StorageImpl* cpu) {
  const size_t bytes = cpu->nbytes();
  if (cpu->device_type() == c10::kMeta) {
    return device_storage(new_block(bytes), bytes);
  }
  return device_storage(adopt(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(cpu), IfFull::Refuse), bytes);
}

} // namespace simgpu
