// What processes that use one simulated card know of each other: a file in memory, mapped by each of them.
//
// Everything in it is a word of its own that is right at any moment, and all changes to what a card has in common are
// made under a lock that the kernel takes back when its holder dies (flock). So a process may be killed anywhere and
// the state is still true: what a dead process had taken is simply no longer counted. Nothing here knows of torch.
// Linux only; the processes must see each other's PIDs, so containers with PIDs of their own must not share /dev/shm.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace simgpu::shared {

// What a card is, besides its speed. Texts are cut to fit.
struct Model {
  std::string name; // "Simulated NVIDIA GeForce RTX 3060"
  std::string uuid; // without the prefix GPU-
  std::string profile; // "rtx3060"
  uint64_t capacity = 0; // bytes
  uint32_t link_generation = 0, link_width = 0; // the most that the card can
  uint32_t power_limit_mw = 0;
  uint32_t compute_major = 0, compute_minor = 0; // compute capability; zeros where not known
};

struct Link {
  uint32_t generation = 0, width = 0;
};

// One process that holds memory, or did work, on the card.
struct Process {
  int32_t pid = 0;
  uint64_t reserved = 0; // bytes
  uint64_t busy_ns = 0; // of its compute engine
  uint64_t copy_ns = 0; // of its copy engines
  uint64_t now_ns = 0; // its virtual clock
};

// What the card looks like at one moment.
struct Snapshot {
  Model model;
  Link link; // now
  uint64_t squeezed = 0; // bytes that a stranger holds
  uint64_t used = 0; // bytes: of all live processes and of the stranger
  std::vector<Process> processes; // live ones, by pid
  bool idle = false; // nobody has a place, and no stranger changed the card: the next to open it makes it anew

  uint64_t free() const {
    return used < model.capacity ? model.capacity - used : 0;
  }
};

// What a person asked for that a card cannot do; the text says what it can.
struct BadInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The UUID of the card of that name: the same in every process, on every machine.
std::string uuid_of(const std::string& card);

struct Page; // the file's layout, in page.h
struct Place;

// A card's state, opened. Every call is safe from several threads. Errors are std::runtime_error or std::system_error.
//
// After a fork the child is a process of its own: it begins with nothing reserved, and never touches its parent's part.
// What it inherited and gives back is not counted as long as it has reserved nothing itself.
class Card {
 public:
  // Opens the card of that name (letters, digits, '.', '_' and '-') and takes a place on it, and makes it as `model`
  // says where it is not there or nobody uses it; what a stranger squeezed or did to its link stays. A card that others
  // use keeps its capacity; it is an error if they use it with another profile.
  static Card open(const std::string& name, const Model& model);
  // Opens the card to look at it, only if it is there and in use (or changed by a stranger); an empty Card otherwise.
  static Card find(const std::string& name);
  // Where the state lies: /dev/shm/simgpu-<uid>-<name>, of this user alone.
  static std::string path(const std::string& name);

  Card() = default;
  Card(Card&& other) noexcept;
  Card& operator=(Card&& other) noexcept;
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;
  ~Card(); // leaves the card
  // Gives back all that is reserved, and the place. The last one out removes the file unless a stranger has squeezed
  // the card or changed its link. For a card that is never destroyed this belongs into atexit: what is called after it
  // does no harm, and a reservation takes a new place.
  void leave() noexcept;

  explicit operator bool() const {
    return page_ != nullptr;
  }

  Snapshot look() const;

  // This process's part. There are kPlaces, and each open Card takes one.
  bool reserve(uint64_t bytes); // false where the card has not that much left; nothing is taken then
  void reserve_anyway(uint64_t bytes);
  void give_back(uint64_t bytes) noexcept; // at most what is reserved; takes no lock
  void report(uint64_t busy_ns, uint64_t copy_ns, uint64_t now_ns); // cheap, takes no lock
  uint64_t reserved() const;
  uint64_t free() const; // bytes that anybody may still take

  // The world's part.
  void set_capacity(uint64_t bytes);
  uint64_t capacity() const; // cheap, takes no lock
  void squeeze(uint64_t bytes); // a stranger takes so many bytes more, even where that is more than is free
  void release(); // the stranger leaves
  void set_link(Link link); // zeros: back to the most that the card can; BadInput where that is more than it can
  Link link() const; // cheap, takes no lock

  static constexpr size_t kPlaces = 256;

 private:
  Card(int file, Page* page, std::string name);
  static Card open_in_turn(const std::string& name, const Model& model);
  bool forked() const;
  void follow() const;
  void join();
  void give_up_place(Page& page);
  void close() noexcept;
  Place* mine() const;

  mutable int file_ = -1; // under the process's turn
  std::atomic<Page*> page_{nullptr};
  std::string name_;
  mutable std::atomic<int> place_{-1};
  mutable std::atomic<uint64_t> forks_{0}; // when file_ and place_ were taken
};

} // namespace simgpu::shared
