// Coming to a card and leaving it: who makes its file, who takes a place in it, who removes it.
#include "file.h"
#include "page.h"
#include "process.h"
#include "state.h"

#include <unistd.h>

#include <mutex>
#include <utility>

namespace simgpu::shared {
namespace {

using Turn = std::lock_guard<std::mutex>;

constexpr size_t kLongestName = 64;
const char* const kNameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

// A card that is in use stays as it is; another is made as asked, on top of what a stranger did to it.
void settle(Page& page, Content content, const std::string& name, const Model& model) {
  if (content == Content::kCard) {
    bury(page);
  }
  if (content == Content::kNothing || !lived_on(page)) {
    fill(page, model);
    return;
  }
  const Model there = model_of(page);
  if (there.profile != model.profile) {
    throw BadInput(
        "simgpu: the card \"" + name + "\" is in use as " + there.profile + ", and " + model.profile +
        " was asked for; choose another name with SIMGPU_CARD, or end the processes on it (simgpu status)");
  }
}

// What an exec left behind: the same process, without the memory.
void bury_former_images(Page& page, const Identity& me) {
  for (Place& place : page.places) {
    if (place.pid == me.pid && place.born == me.born && place.image != me.image) {
      place.pid = 0;
    }
  }
}

int take_place(Page& page, const std::string& name) {
  const Identity me = myself();
  bury_former_images(page, me);
  for (size_t i = 0; i < Card::kPlaces; ++i) {
    Place& place = page.places[i];
    if (place.pid != 0) {
      continue;
    }
    for (auto* word : {&place.reserved, &place.busy_ns, &place.copy_ns, &place.now_ns}) {
      *word = 0;
    }
    place.born = me.born;
    place.image = me.image;
    place.pid = me.pid;
    return static_cast<int>(i);
  }
  throw std::runtime_error(
      "simgpu: the card \"" + name + "\" has " + std::to_string(Card::kPlaces) +
      " processes, and that is all that it can have; end some of them, or choose another name with SIMGPU_CARD");
}

} // namespace

std::string Card::path(const std::string& name) {
  if (name.empty() || name.size() > kLongestName || name.find_first_not_of(kNameCharacters) != std::string::npos) {
    throw BadInput(
        "simgpu: \"" + name + "\" cannot be a card's name; give SIMGPU_CARD 1 to " + std::to_string(kLongestName) +
        " letters, digits, '.', '_' or '-'");
  }
  return "/dev/shm/simgpu-" + std::to_string(::geteuid()) + "-" + name;
}

Card Card::open(const std::string& name, const Model& model) {
  const Turn in_turn(turn());
  return open_in_turn(name, model);
}

Card Card::open_in_turn(const std::string& name, const Model& model) {
  const std::string where = path(name);
  for (;;) {
    File file = make_or_open(where);
    const Locked locked(file.number());
    if (!lies_at(file.number(), where)) {
      continue; // the last one out removed it meanwhile
    }
    const Content content = inspect(file.number(), where);
    if (content == Content::kOutdated) {
      ::unlink(where.c_str());
      continue;
    }
    grow(file.number(), where);
    Mapping page = map(file.number());
    settle(*page, content, name, model);
    const int place = take_place(*page, name);
    Card card(file.take(), page.release(), name);
    card.place_ = place;
    return card;
  }
}

Card Card::find(const std::string& name) {
  const std::string where = path(name);
  const Turn in_turn(turn());
  File file = open_existing(where);
  if (file.number() < 0) {
    return Card();
  }
  const Locked locked(file.number());
  if (!lies_at(file.number(), where) || inspect(file.number(), where) != Content::kCard) {
    return Card();
  }
  Mapping page = map(file.number());
  bury(*page);
  if (!lived_on(*page) && !changed(*page)) {
    ::unlink(where.c_str()); // its last process was killed and could not
    return Card();
  }
  return Card(file.take(), page.release(), name);
}

Card::Card(int file, Page* page, std::string name)
    : file_(file), page_(page), name_(std::move(name)), forks_(shared::forks()) {}

Card::Card(Card&& other) noexcept {
  *this = std::move(other);
}

Card& Card::operator=(Card&& other) noexcept {
  if (this != &other) {
    close();
    file_ = std::exchange(other.file_, -1);
    page_ = other.page_.exchange(nullptr);
    name_ = std::move(other.name_);
    place_ = other.place_.exchange(-1);
    forks_ = other.forks_.load();
  }
  return *this;
}

Card::~Card() {
  close();
}

void Card::close() noexcept {
  leave();
  if (Page* page = page_.exchange(nullptr)) {
    Unmap()(page);
    ::close(std::exchange(file_, -1));
  }
}

void Card::leave() noexcept {
  Page* page = page_;
  if (page == nullptr) {
    return;
  }
  try {
    const Turn in_turn(turn());
    give_up_place(*page);
  } catch (const std::exception&) {
    // The place is then a dead process's, soon.
  }
}

void Card::give_up_place(Page& page) {
  if (forked()) {
    return; // the place is the parent's
  }
  const Locked locked(file_);
  const int place = place_.exchange(-1);
  if (place >= 0) {
    page.places[place].pid = 0;
  }
  bury(page);
  const std::string where = path(name_);
  if (!lived_on(page) && !changed(page) && lies_at(file_, where)) {
    ::unlink(where.c_str());
  }
}

bool Card::forked() const {
  return forks_ != shared::forks();
}

// In a forked child: a file of its own, since locks belong to what both have open, and no place yet.
void Card::follow() const {
  if (forked()) {
    File own = again(file_);
    ::close(std::exchange(file_, own.take()));
    place_ = -1;
    forks_ = shared::forks();
  }
}

// Takes a place where this process has none: on a new file where the old one was removed, which is so in a child whose
// parent has left the card.
void Card::join() {
  follow();
  if (place_ >= 0) {
    return;
  }
  {
    const Locked locked(file_);
    if (lies_at(file_, path(name_))) {
      place_ = take_place(*page_, name_);
      return;
    }
  }
  Card fresh = open_in_turn(name_, model_of(*page_));
  ::close(std::exchange(file_, std::exchange(fresh.file_, -1)));
  page_ = fresh.page_.exchange(nullptr); // the old page stays mapped: another thread may be reading it
  place_ = fresh.place_.exchange(-1);
}

} // namespace simgpu::shared
