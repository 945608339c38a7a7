// The seam through which the card does anything: every kernel passes `launch`, every copy passes `copy`, every moment
// the host has to wait for the card passes `host_waits`. In this version they run the work at once and count it; virtual
// clocks and the race detector belong here, and nothing else has to change for them.
#pragma once

#include <c10/core/Stream.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace c10 {
class OperatorHandle;
}

namespace simgpu {

struct Twin;

struct KernelJob {
  const c10::OperatorHandle& op;
  c10::Stream stream;
  c10::ArrayRef<Twin> arguments; // the device tensors it reads, and those it writes
};

enum class Direction { HostToDevice, DeviceToHost, DeviceToDevice };

struct CopyJob {
  Direction direction;
  int64_t bytes; // that cross the link
  c10::Stream stream;
  const void* from;
  void* to;
  bool pinned; // the host side is page-locked; of no meaning between device and device
  bool host_blocking; // the caller may not go on before it is done
};

enum class Wait { Device, Stream, Event, Result };

struct Counters {
  int64_t h2d_bytes, d2h_bytes, d2d_bytes;
  int64_t h2d_copies, d2h_copies, d2d_copies;
  int64_t kernels;
  int64_t host_blocking_calls;
};

void launch(const KernelJob& job, c10::function_ref<void()> body);
void copy(const CopyJob& job, c10::function_ref<void()> body);
void host_waits(Wait reason);

Counters counters();
void reset_counters();

} // namespace simgpu
