#include "engine.h"

#include "block.h"
#include "flights.h"
#include "ledger.h"
#include "pinned.h"
#include "plan.h"
#include "races.h"
#include "region.h"
#include "twin.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

namespace simgpu {
namespace {

// Everything that all threads share. A kernel's body runs outside of the lock.
struct World {
  std::recursive_mutex mutex; // recursive, since letting go of a tensor under it frees a block
  Timeline timeline;
  VectorClock host; // the work that the host knows to have ended
  Speeds speeds;
  Counters counts{}; // without the engines'
  EngineTotals totals_at_reset[kEngines];
  std::map<std::string, int64_t> blocking_lines;
};

World& world() {
  static World* all = new World(); // never destroyed: blocks may outlive every static
  return *all;
}

using Lock = std::unique_lock<std::recursive_mutex>;

std::atomic<bool> dry_run{false};
// Whether a body runs on this thread, the work that it belongs to if races are looked for, and the bytes of the results that
// it has made so far.
thread_local bool computing = false;
thread_local const Work* running = nullptr;
thread_local double result_bytes = 0;

size_t index_of(Direction direction) {
  return static_cast<size_t>(direction);
}

// The host's clock goes on by what this call costs.
void spend(World& w, CardsWork& work, Nanoseconds cost) {
  const Nanoseconds measured = work.spent_before();
  w.timeline.spend(host_clock() == HostClock::Model ? cost : measured + std::min(cost, w.speeds.driver));
}

// Work put on a stream comes after whatever the host knows to have ended.
Work enqueue(World& w, StreamState& stream, const char* operation) {
  stream.known.join(w.host);
  const auto id = static_cast<uint32_t>(stream.id);
  return {stream, {id, stream.known.tick(id)}, operation};
}

void share_totals(World& w) {
  const auto busy = [&](EngineKind kind) { return w.timeline.engine(kind).totals().busy; };
  Ledger::instance().report(
      busy(EngineKind::Compute), busy(EngineKind::HostToDevice) + busy(EngineKind::DeviceToHost), w.timeline.now());
}

// Every so many pieces of work, other processes see what this one did.
void share_totals_sometimes(World& w) {
  constexpr int64_t kEvery = 64;
  if (w.counts.kernels % kEvery == 0) {
    share_totals(w);
  }
}

void run_on(World& w, EngineKind engine, StreamState& stream, Nanoseconds duration) {
  stream.ready = w.timeline.run(engine, stream.ready, duration);
}

void host_reaches(World& w, Nanoseconds time, const VectorClock& known) {
  w.timeline.wait_until(time);
  w.host.join(known);
}

// The end of every call that makes the host wait: notes the Python line, and ends the flights that are over.
void host_waited(Lock& lock, World& w) {
  ++w.counts.host_blocking_calls;
  share_totals(w);
  const VectorClock known = w.host;
  lock.unlock();
  const std::string line = python_line();
  {
    const std::lock_guard<std::recursive_mutex> again(w.mutex);
    ++w.blocking_lines[line];
  }
  if (detecting_races()) {
    const std::string wrong = land(known);
    if (!wrong.empty()) {
      raise_race(wrong);
    }
  }
}

void raise_if(Lock& lock, const std::string& wrong) {
  if (C10_UNLIKELY(!wrong.empty())) {
    lock.unlock();
    raise_race(wrong);
  }
}

Shadow* shadow_of(const at::Tensor& device) {
  Block* block = device.has_storage() ? block_of(device.storage().data_ptr()) : nullptr;
  return block != nullptr ? block->shadow.get() : nullptr;
}

std::string note_device_use(const at::Tensor& tensor, AccessKind kind, const Work& work) {
  Shadow* shadow = shadow_of(tensor);
  return shadow != nullptr ? note_use(*shadow, Place::Device, region_of(tensor), kind, work, world().host) : std::string();
}

std::string note_pinned_use(const at::Tensor& tensor, AccessKind kind, const Work& work) {
  const auto shadow = pinned_shadow(tensor.const_data_ptr());
  return shadow ? note_use(*shadow, Place::Pinned, region_of(tensor), kind, work, world().host) : std::string();
}

// The work did not happen.
void forget_use(const at::Tensor& tensor, const Work& work) {
  if (tensor.defined() && on_card(tensor) && shadow_of(tensor) != nullptr) {
    shadow_of(tensor)->forget(region_of(tensor), work.epoch);
  } else if (tensor.defined() && !on_card(tensor)) {
    if (const auto shadow = pinned_shadow(tensor.const_data_ptr())) {
      shadow->forget(region_of(tensor), work.epoch);
    }
  }
}

std::string note_arguments(const KernelJob& job, const Work& work) {
  std::string wrong;
  for (const Twin& twin : job.arguments) {
    if (wrong.empty()) {
      wrong = note_device_use(twin.device, twin.written ? AccessKind::Write : AccessKind::Read, work);
    }
  }
  return wrong;
}

const char* name_of(const CopyJob& job) {
  static const char* const names[] = {
      "a copy from host to device", "a copy from device to host", "a copy on the device"};
  return names[index_of(job.direction)];
}

std::string note_copy(const CopyJob& job, const Work& work) {
  const auto note = [&](const at::Tensor& tensor, AccessKind kind) {
    if (!tensor.defined()) {
      return std::string();
    }
    if (on_card(tensor)) {
      return note_device_use(tensor, kind, work);
    }
    return job.pinned ? note_pinned_use(tensor, kind, work) : std::string();
  };
  std::string wrong = note(job.from, AccessKind::Read);
  return wrong.empty() ? note(job.to, AccessKind::Write) : wrong;
}

int64_t link_rate(const World& w, bool pinned) {
  const shared::Link link = Ledger::instance().link();
  const int64_t per_lane = w.speeds.pinned_per_lane[std::min<size_t>(link.generation, Speeds::kGenerations - 1)];
  const int64_t rate = std::max<int64_t>(1, per_lane * std::max<int64_t>(1, link.width));
  return pinned ? rate : std::min(rate, std::max<int64_t>(1, w.speeds.pageable));
}

// A copy that converts or gathers does so on the host, before or after it crosses the link.
Nanoseconds preparation(const World& w, const CopyJob& job) {
  return job.staged ? duration(w.speeds.cpu, Number::Single, 0, bytes_in(job.from) + bytes_in(job.to)) : 0;
}

void schedule(World& w, const CopyJob& job, StreamState& stream) {
  const Direction way = job.direction;
  ++w.counts.copies[index_of(way)];
  w.counts.bytes[index_of(way)] += job.bytes;
  if (way == Direction::DeviceToDevice) {
    run_on(w, EngineKind::Compute, stream, duration(w.speeds.card, Number::Single, 0, bytes_in(job.from) + job.bytes));
    return;
  }
  const auto engine = way == Direction::HostToDevice ? EngineKind::HostToDevice : EngineKind::DeviceToHost;
  run_on(w, engine, stream, transfer(w.speeds.latency, job.bytes, link_rate(w, job.pinned)));
}

// Runs a body, and lets the results that it makes know whose they are; null while nobody looks for races. Returns the bytes
// of the results.
double run_body(const Work* work, c10::function_ref<void()> body) {
  struct Now {
    explicit Now(const Work* work) : before(std::exchange(running, work)), inside(std::exchange(computing, true)) {}
    ~Now() {
      running = before;
      computing = inside;
    }
    const Work* before;
    bool inside;
  } const now(work);
  result_bytes = 0;
  body();
  return result_bytes;
}

const at::Tensor& host_side(const CopyJob& job) {
  return job.direction == Direction::HostToDevice ? job.from : job.to;
}

// Whether a copy uses host memory that the program could use at the same time.
bool flies(const CopyJob& job) {
  return detecting_races() && !dry() && job.pinned && job.direction != Direction::DeviceToDevice;
}

// What has to be right before the bytes may move.
void before_copy(const CopyJob& job) {
  if (!flies(job)) {
    return;
  }
  const std::string wrong = land_before_use_of(region_of(host_side(job)), job.direction == Direction::DeviceToHost);
  if (!wrong.empty()) {
    raise_race(wrong);
  }
}

std::optional<Flight> after_copy(const CopyJob& job, const Work& work) {
  if (!flies(job) || job.host_blocking) {
    return std::nullopt;
  }
  return job.direction == Direction::HostToDevice ? take_off_up(job.from, work.epoch)
                                                  : take_off_down(job.to, work.epoch);
}

void move_bytes(const CopyJob& job, const Work& work, c10::function_ref<void()> body) {
  if (dry()) {
    return;
  }
  try {
    (void)run_body(&work, body);
  } catch (...) {
    const Lock lock(world().mutex);
    forget_use(job.from, work);
    forget_use(job.to, work);
    throw;
  }
}

} // namespace

void launch(const KernelJob& job, c10::function_ref<void()> body) {
  CardsWork cards_work;
  World& w = world();
  StreamState& stream = state_of(current_stream());
  double made = 0;
  if (C10_UNLIKELY(detecting_races())) {
    Lock lock(w.mutex);
    const Work work = enqueue(w, stream, job.plan.label);
    raise_if(lock, note_arguments(job, work));
    lock.unlock();
    try {
      made = run_body(&work, body);
    } catch (...) {
      lock.lock();
      for (const Twin& twin : job.arguments) {
        forget_use(twin.device, work);
      }
      throw;
    }
  } else {
    made = run_body(nullptr, body);
  }
  Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.operation);
  ++w.counts.kernels;
  const Cost& cost = job.cost;
  run_on(w, EngineKind::Compute, stream,
         duration(w.speeds.card, cost.kind, cost.flops, cost.bytes + cost.per_result_byte * made));
  share_totals_sometimes(w);
  if (job.host_waits) {
    host_reaches(w, stream.ready, stream.known);
    host_waited(lock, w);
  }
}

void copy(const CopyJob& job, c10::function_ref<void()> body) {
  CardsWork cards_work;
  World& w = world();
  Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.copy);
  const Nanoseconds own = host_clock() == HostClock::Model ? preparation(w, job) : 0;
  w.timeline.spend(job.direction == Direction::HostToDevice ? own : 0);
  StreamState& stream = state_of(current_stream());
  const Work work = enqueue(w, stream, name_of(job));
  if (detecting_races()) {
    raise_if(lock, note_copy(job, work));
  }
  lock.unlock();
  before_copy(job);
  move_bytes(job, work, body);
  std::optional<Flight> flight = after_copy(job, work);
  lock.lock();
  schedule(w, job, stream);
  if (job.host_blocking) {
    host_reaches(w, stream.ready, stream.known);
    w.timeline.spend(job.direction == Direction::DeviceToHost ? own : 0);
    host_waited(lock, w);
  } else if (flight) {
    const Nanoseconds end = stream.ready, time = w.timeline.now();
    lock.unlock();
    const std::string wrong = follow(std::move(*flight), end, time);
    if (!wrong.empty()) {
      raise_race(wrong);
    }
  }
}

void sleep_for(Nanoseconds duration) {
  CardsWork cards_work;
  World& w = world();
  const Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.operation);
  StreamState& stream = state_of(current_stream());
  (void)enqueue(w, stream, "sleep");
  ++w.counts.kernels;
  run_on(w, EngineKind::Compute, stream, duration);
}

void look() {
  CardsWork cards_work;
  World& w = world();
  const Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.view);
}

void compute_on_host(const Cost& cost, double made) {
  World& w = world();
  const Lock lock(w.mutex);
  w.timeline.spend(duration(w.speeds.cpu, cost.kind, cost.flops, cost.bytes + cost.per_result_byte * made));
}

void block_made(Block& block) {
  block.owner = static_cast<uint32_t>(current_stream().id());
  if (computing) {
    result_bytes += static_cast<double>(block.bytes);
  }
  if (!detecting_races() || block.bytes == 0) {
    return;
  }
  World& w = world();
  Lock lock(w.mutex);
  const auto begin = reinterpret_cast<uintptr_t>(block.data);
  block.shadow = std::make_unique<Shadow>();
  block.shadow->inherit(begin, begin + block.bytes, tenants_before(block.owner, Ledger::rounded(block.bytes)));
  if (running != nullptr) {
    const Region whole{begin, begin + block.bytes, nullptr};
    raise_if(lock, note_use(*block.shadow, Place::Device, whole, AccessKind::Write, *running, w.host));
  }
}

void block_freed(Block& block) {
  if (block.shadow == nullptr || !detecting_races()) {
    return;
  }
  World& w = world();
  const Lock lock(w.mutex);
  std::vector<Access> uses = block.shadow->latest();
  const auto over = [&](const Access& use) { // its memory is not given out before that stream has ended
    return std::find(block.recorded.begin(), block.recorded.end(), use.epoch.stream) != block.recorded.end();
  };
  uses.erase(std::remove_if(uses.begin(), uses.end(), over), uses.end());
  leave_behind(block.owner, Ledger::rounded(block.bytes), std::move(uses), w.host);
}

void forget_earlier_owners() {
  const Lock lock(world().mutex);
  forget_tenants();
}

void record_use(Block& block, const c10::Stream& stream) {
  World& w = world();
  const Lock lock(w.mutex);
  const auto id = static_cast<uint32_t>(state_of(stream).id);
  if (id != block.owner && std::find(block.recorded.begin(), block.recorded.end(), id) == block.recorded.end()) {
    block.recorded.push_back(id);
  }
}

void record(EventState& event, const c10::Stream& stream) {
  CardsWork cards_work;
  World& w = world();
  const Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.event);
  const StreamState& state = state_of(stream);
  event.time = std::max(state.ready, w.timeline.now()); // an event of an idle stream passes when it is recorded
  event.known = state.known;
}

void wait(const c10::Stream& stream, const EventState& event) {
  CardsWork cards_work;
  World& w = world();
  const Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.event);
  StreamState& state = state_of(stream);
  state.ready = std::max(state.ready, event.time);
  state.known.join(event.known);
}

namespace {

// Asking costs time, so that a loop that asks until the answer is yes ends.
template <typename State>
bool ask(const State& state, Nanoseconds State::*moment, CardsWork& cards_work) {
  World& w = world();
  Lock lock(w.mutex);
  const Nanoseconds time = state.*moment;
  spend(w, cards_work, std::max<Nanoseconds>(1, w.speeds.event));
  if (host_clock() == HostClock::Measured) {
    w.timeline.spend(1);
  }
  if (time > w.timeline.now()) {
    return false;
  }
  w.host.join(state.known);
  const VectorClock host = w.host;
  lock.unlock();
  const std::string wrong = detecting_races() ? land(host) : std::string();
  if (!wrong.empty()) {
    raise_race(wrong);
  }
  return true;
}

// `reach` is told under the lock to let the host reach what it waits for.
void wait_for(CardsWork& cards_work, c10::function_ref<void(World&)> reach) {
  World& w = world();
  Lock lock(w.mutex);
  spend(w, cards_work, w.speeds.event);
  reach(w);
  host_waited(lock, w);
}

} // namespace

bool done(const EventState& event) {
  CardsWork cards_work;
  return ask(event, &EventState::time, cards_work);
}

bool done(const c10::Stream& stream) {
  CardsWork cards_work;
  return ask(state_of(stream), &StreamState::ready, cards_work);
}

double elapsed_ms(const EventState& from, const EventState& to) {
  const Nanoseconds time = now();
  const Lock lock(world().mutex);
  TORCH_CHECK(
      from.timed && to.timed, "simgpu: both events need enable_timing=True to tell the time that elapsed between them");
  TORCH_CHECK(
      std::max(from.time, to.time) <= time,
      "simgpu: both events must have passed before the time between them is known; call synchronize() on the later one");
  return static_cast<double>(to.time - from.time) * 1e-6;
}

void synchronize() {
  CardsWork cards_work;
  wait_for(cards_work, [](World& w) {
    for (size_t i = 0; i < kStreams; ++i) {
      host_reaches(w, all_streams()[i].ready, all_streams()[i].known);
    }
  });
}

void synchronize(const c10::Stream& stream) {
  CardsWork cards_work;
  const StreamState& state = state_of(stream);
  wait_for(cards_work, [&](World& w) { host_reaches(w, state.ready, state.known); });
}

void synchronize(const EventState& event) {
  CardsWork cards_work;
  wait_for(cards_work, [&](World& w) { host_reaches(w, event.time, event.known); });
}

Nanoseconds now() {
  CardsWork cards_work;
  World& w = world();
  const Lock lock(w.mutex);
  w.timeline.spend(cards_work.spent_before());
  return w.timeline.now();
}

Nanoseconds ready_time(uint32_t stream) {
  const Lock lock(world().mutex);
  return all_streams()[stream].ready;
}

void set_speeds(const Speeds& speeds) {
  const Lock lock(world().mutex);
  world().speeds = speeds;
}

void switch_race_detection(bool on) {
  if (!on) {
    forget_flights();
  }
  const Lock lock(world().mutex);
  set_race_detection(on);
}

void set_dry(bool on) {
  dry_run = on;
}

bool dry() {
  return dry_run.load(std::memory_order_relaxed);
}

Counters counters() {
  World& w = world();
  const Lock lock(w.mutex);
  Counters all = w.counts;
  for (size_t i = 0; i < kEngines; ++i) {
    all.engines[i] = w.timeline.engine(static_cast<EngineKind>(i)).totals().since(w.totals_at_reset[i]);
  }
  return all;
}

std::map<std::string, int64_t> blocking_lines() {
  const Lock lock(world().mutex);
  return world().blocking_lines;
}

void reset_counters() {
  World& w = world();
  const Lock lock(w.mutex);
  w.counts = {};
  w.blocking_lines.clear();
  for (size_t i = 0; i < kEngines; ++i) {
    w.totals_at_reset[i] = w.timeline.engine(static_cast<EngineKind>(i)).totals();
  }
}

} // namespace simgpu
