// A card's file: opened so that nobody else can have put it there, locked, told apart from one that has been removed.
#pragma once

#include "page.h"

#include <memory>
#include <string>

namespace simgpu::shared {

// An open file.
class File {
 public:
  explicit File(int number) : number_(number) {}
  File(File&& other) noexcept : number_(other.take()) {}
  File& operator=(File&&) = delete;
  ~File();

  int number() const {
    return number_;
  }
  int take() { // gives it away
    const int number = number_;
    number_ = -1;
    return number;
  }

 private:
  int number_;
};

// Opens the file, making an empty one where there is none. The second does not: the number is -1 then.
File make_or_open(const std::string& path);
File open_existing(const std::string& path);
// Opens the same file again: after a fork the old number shares its locks with the parent.
File again(int number);

// The lock for changes; the kernel takes it back when the process dies.
class Locked {
 public:
  explicit Locked(int file);
  Locked(const Locked&) = delete;
  ~Locked();

 private:
  int file_;
};

bool lies_at(int file, const std::string& path); // false where it was removed, or another lies there

// What lies in a locked file. A runtime_error says which file is not a card's, or is in use by another version.
enum class Content {
  kNothing, // new, or its maker died: to be filled
  kCard,
  kOutdated, // another version's, and nobody uses it: to be removed
};
Content inspect(int file, const std::string& path);

void grow(int file, const std::string& path); // to a page's size, if it is empty
struct Unmap {
  void operator()(Page* page) const noexcept;
};
using Mapping = std::unique_ptr<Page, Unmap>;
Mapping map(int file);

[[noreturn]] void fail(const std::string& what); // std::system_error of errno

} // namespace simgpu::shared
