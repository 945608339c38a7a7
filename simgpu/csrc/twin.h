// Twins: how a device tensor is shown to a CPU kernel, and how what the kernel made becomes a device tensor again.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

namespace simgpu {

// A device tensor and the CPU tensor over the same bytes that stands for it during one operation.
struct Twin {
  at::Tensor device;
  at::Tensor cpu;
  bool written = false;
};

inline bool on_card(const at::Tensor& tensor) {
  return tensor.device().type() == c10::DeviceType::PrivateUse1;
}

// A CPU tensor over the bytes of `device`; conjugate and negative bits survive.
at::Tensor cpu_view(const at::Tensor& device);

// In a dry run (engine.h) the twins are tensors of the device `meta`, which have shapes and no bytes.

// All the twins of one operation.
class Twins {
 public:
  // The CPU side of `device`, which the operation is going to read or write.
  const at::Tensor& add(at::Tensor device, bool written);

  // Brings what the CPU kernel did to written tensors (new sizes, a storage that grew) to their device sides. Throws
  // c10::OutOfMemoryError when a grown storage does not fit the card; the tensors are consistent even then.
  void settle();

  // The device side of a tensor that the kernel returned: the argument itself, a view of one, or new device memory.
  // Throws c10::OutOfMemoryError when new memory does not fit the card.
  at::Tensor to_device(const at::Tensor& cpu, const char* op);

  c10::ArrayRef<Twin> all() const {
    return twins_;
  }

 private:
  struct Adopted {
    const c10::StorageImpl* cpu;
    c10::Storage device;
  };

  at::Tensor twin_of(const at::Tensor& device);
  c10::Storage new_storage(c10::StorageImpl* cpu);

  c10::SmallVector<Twin, 8> twins_;
  c10::SmallVector<Adopted, 2> adopted_;
};

} // namespace simgpu
