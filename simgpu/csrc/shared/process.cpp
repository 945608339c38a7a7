#include "process.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace simgpu::shared {
namespace {

std::atomic<uint64_t> forks_seen{0};

const int watching = pthread_atfork(
    [] { turn().lock(); },
    [] { turn().unlock(); },
    [] {
      forks_seen.fetch_add(1);
      turn().unlock();
    });

// The first bytes of /proc/PID/stat: false with errno where they cannot be read.
template <size_t size>
bool read_stat(uint64_t pid, char (&text)[size]) {
  char path[48];
  std::snprintf(path, sizeof path, "/proc/%llu/stat", static_cast<unsigned long long>(pid));
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  const ssize_t length = ::read(file, text, size - 1);
  const int error = length == 0 ? EIO : errno;
  ::close(file);
  errno = error;
  text[length > 0 ? length : 0] = 0;
  return length > 0;
}

// Field 22, the start, and 0 for a zombie. The second field is a name in parentheses that may hold anything.
uint64_t start_in(const char* stat) {
  const char* at = std::strrchr(stat, ')');
  if (at == nullptr || std::strlen(at) < 3 || at[2] == 'Z' || at[2] == 'X') {
    return 0;
  }
  for (int field = 2; at != nullptr && field < 22; ++field) {
    at = std::strchr(at + 1, ' ');
  }
  return at == nullptr ? 0 : std::strtoull(at, nullptr, 10);
}

uint64_t image() {
  uint64_t word = 0;
  if (const auto* random = reinterpret_cast<const void*>(getauxval(AT_RANDOM))) {
    std::memcpy(&word, random, sizeof word);
  }
  return word;
}

} // namespace

std::mutex& turn() {
  static std::mutex* all = new std::mutex(); // never destroyed: cards may outlive every static
  return *all;
}

uint64_t forks() {
  return forks_seen;
}

Identity myself() {
  const auto pid = static_cast<uint64_t>(::getpid());
  char stat[1024];
  if (!read_stat(pid, stat)) {
    throw std::system_error(errno, std::generic_category(), "simgpu: cannot read /proc/self/stat; is /proc mounted?");
  }
  return Identity{pid, start_in(stat), image()};
}

bool dead(uint64_t pid, uint64_t born) {
  if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) {
    return true;
  }
  char stat[1024];
  if (!read_stat(pid, stat)) {
    return errno == ENOENT || errno == ESRCH; // out of files, say, proves nothing
  }
  return start_in(stat) != born;
}

} // namespace simgpu::shared
