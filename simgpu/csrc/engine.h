// The seam through which the card does anything: every kernel passes `launch`, every copy passes `copy`, every view
// `look`, and whatever orders work or makes the host wait has its function here too. The work itself runs at once, on the
// calling thread; what is simulated is when it happens (timeline.h), and whether it was ordered (races.h).
#pragma once

#include "cost.h"
#include "host.h"
#include "speeds.h"
#include "streams.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>
#include <map>
#include <string>

namespace simgpu {

struct Block;
struct OpPlan;
struct Twin;

struct KernelJob {
  const OpPlan& plan;
  const Cost& cost;
  c10::ArrayRef<Twin> arguments; // the device tensors it reads, and those it writes
  bool host_waits; // for the shape or the value of the result
};

enum class Direction { HostToDevice, DeviceToHost, DeviceToDevice };

struct CopyJob {
  Direction direction;
  const at::Tensor& from;
  const at::Tensor& to;
  int64_t bytes; // that cross the link
  bool staged; // the host converts or gathers, in pageable memory of its own
  bool pinned; // the link meets page-locked memory; of no meaning between device and device
  bool host_blocking; // the caller may not go on before it is done
};

// Runs `body`, which computes and makes the results, as one piece of work of the current stream.
void launch(const KernelJob& job, c10::function_ref<void()> body);
void copy(const CopyJob& job, c10::function_ref<void()> body);
// The current stream computes nothing for so long; for tests, like torch.cuda._sleep.
void sleep_for(Nanoseconds duration);
// A new look at old bytes, or whatever else costs the host a call and the card nothing.
void look();
// The host computes an operation itself.
void compute_on_host(const Cost& cost, double result_bytes);

// Tells of a block that has come to be, as the result of the work that runs if there is any, and of one that goes.
void block_made(Block& block);
void block_freed(Block& block);
void record_use(Block& block, const c10::Stream& stream);
void forget_earlier_owners();

void record(EventState& event, const c10::Stream& stream);
// Work put on `stream` from now on starts after `event`.
void wait(const c10::Stream& stream, const EventState& event);
bool done(const EventState& event);
bool done(const c10::Stream& stream);
double elapsed_ms(const EventState& from, const EventState& to);
void synchronize();
void synchronize(const c10::Stream& stream);
void synchronize(const EventState& event);

Nanoseconds now();
Nanoseconds ready_time(uint32_t stream);
void set_speeds(const Speeds& speeds);
// Looks for races from now on, or no longer. What was in flight lands.
void switch_race_detection(bool on);
// In a dry run nothing is computed or copied; results have their shapes and no values.
void set_dry(bool on);
bool dry();

struct Counters {
  int64_t bytes[3], copies[3]; // by Direction
  int64_t kernels;
  int64_t host_blocking_calls;
  EngineTotals engines[kEngines];
};
Counters counters();
// Host-blocking calls by the Python line that made them.
std::map<std::string, int64_t> blocking_lines();
void reset_counters();

} // namespace simgpu
