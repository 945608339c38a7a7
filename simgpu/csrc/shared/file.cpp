#include "file.h"

#include "process.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace simgpu::shared {
namespace {

struct stat about(int file) {
  struct stat now;
  if (::fstat(file, &now) != 0) {
    fail("simgpu: cannot look at a card's file");
  }
  return now;
}

[[noreturn]] void refuse(const std::string& path, const std::string& why, const std::string& next) {
  throw std::runtime_error("simgpu: " + path + " " + why + "; " + next);
}

const char* const kRemove = "remove it, or choose another card's name with SIMGPU_CARD";

// Nobody but this user may be able to write what we map, for a mapped file that shrinks is a crash.
void check_owner(int file, const std::string& path) {
  const struct stat now = about(file);
  if (!S_ISREG(now.st_mode)) {
    refuse(path, "is no regular file", kRemove);
  }
  if (now.st_uid != ::geteuid()) {
    refuse(path, "belongs to user " + std::to_string(now.st_uid) + ", not to " + std::to_string(::geteuid()), kRemove);
  }
  if ((now.st_mode & 077) != 0) {
    refuse(path, "may be opened by other users", "chmod 600 it, or remove it, or choose another name with SIMGPU_CARD");
  }
}

File open_with(const std::string& path, int flags) {
  File file(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | flags, 0600));
  if (file.number() >= 0) {
    check_owner(file.number(), path);
    return file;
  }
  if (errno == ENOENT && (flags & O_CREAT) == 0) {
    return file;
  }
  if (errno == ELOOP) {
    refuse(path, "is a symbolic link", kRemove);
  }
  fail("simgpu: cannot open " + path + " (" + kRemove + ")");
}

template <typename Value>
Value value_at(int file, uint64_t offset) {
  Value value{};
  if (::pread(file, &value, sizeof value, static_cast<off_t>(offset)) != static_cast<ssize_t>(sizeof value)) {
    fail("simgpu: cannot read a card's file");
  }
  return value;
}

struct PlainHead {
  uint64_t magic;
  uint32_t version, places, first, stride;
};
static_assert(sizeof(PlainHead) == sizeof(Head), "the same words, without atomics");

// The number of a live process on a card of another version, or 0.
uint64_t user_of(int file, const PlainHead& head) {
  for (uint64_t i = 0; i < head.places; ++i) {
    const uint64_t at = head.first + i * head.stride;
    const auto pid = value_at<uint64_t>(file, at);
    if (pid != 0 && !dead(pid, value_at<uint64_t>(file, at + sizeof pid))) {
      return pid;
    }
  }
  return 0;
}

bool makes_sense(const PlainHead& head, uint64_t size) {
  return head.stride >= 2 * sizeof(uint64_t) && head.places <= 1 << 16 &&
      head.first + uint64_t{head.places} * head.stride <= size;
}

} // namespace

void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

File::~File() {
  if (number_ >= 0) {
    ::close(number_);
  }
}

File make_or_open(const std::string& path) {
  return open_with(path, O_CREAT);
}

File open_existing(const std::string& path) {
  return open_with(path, 0);
}

File again(int number) {
  File file(::open(("/proc/self/fd/" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC));
  if (file.number() < 0) {
    fail("simgpu: cannot open a card's file again after a fork");
  }
  return file;
}

Locked::Locked(int file) : file_(file) {
  while (::flock(file, LOCK_EX) != 0) {
    if (errno != EINTR) {
      fail("simgpu: cannot lock a card's file");
    }
  }
}

Locked::~Locked() {
  ::flock(file_, LOCK_UN);
}

bool lies_at(int file, const std::string& path) {
  const struct stat ours = about(file);
  struct stat there;
  return ours.st_nlink > 0 && ::lstat(path.c_str(), &there) == 0 && there.st_dev == ours.st_dev &&
      there.st_ino == ours.st_ino;
}

Content inspect(int file, const std::string& path) {
  const auto size = static_cast<uint64_t>(about(file).st_size);
  if (size == 0) {
    return Content::kNothing;
  }
  const char* const foreign = "holds no simulated card's state";
  if (size < sizeof(PlainHead)) {
    refuse(path, foreign, kRemove);
  }
  const auto head = value_at<PlainHead>(file, 0);
  if (head.magic == 0 && size == sizeof(Page)) {
    return Content::kNothing;
  }
  if (head.magic != kMagic || !makes_sense(head, size) || (head.version == kVersion && size != sizeof(Page))) {
    refuse(path, foreign, kRemove);
  }
  if (head.version == kVersion) {
    return Content::kCard;
  }
  if (const uint64_t user = user_of(file, head)) {
    refuse(
        path,
        "is used by process " + std::to_string(user) + ", which has version " + std::to_string(head.version) +
            " of the simulated card (this is " + std::to_string(kVersion) + ")",
        "end that process, or choose another card's name with SIMGPU_CARD");
  }
  return Content::kOutdated;
}

void grow(int file, const std::string& path) {
  if (about(file).st_size != 0) {
    return;
  }
  // Not ftruncate: where memory is short this is an error now, and not a crash at the first write.
  const int error = ::posix_fallocate(file, 0, sizeof(Page));
  if (error != 0) {
    errno = error;
    fail("simgpu: no room for " + path);
  }
}

void Unmap::operator()(Page* page) const noexcept {
  ::munmap(page, sizeof(Page));
}

Mapping map(int file) {
  void* address = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (address == MAP_FAILED) {
    fail("simgpu: cannot map a card's file");
  }
  return Mapping(static_cast<Page*>(address));
}

} // namespace simgpu::shared
