#include "host.h"

#include <Python.h>

#include <frameobject.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <utility>

namespace simgpu {
namespace {

std::atomic<HostClock> chosen{HostClock::Model};
thread_local int depth = 0;
std::atomic<int> times_chosen{0};
thread_local Nanoseconds last_seen = 0; // this thread's CPU time when its last scope ended
thread_local int last_seen_at = -1; // `times_chosen` then

Nanoseconds cpu_time() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return Nanoseconds{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

bool measured() {
  return chosen.load(std::memory_order_relaxed) == HostClock::Measured;
}

std::string text_of(PyObject* text) {
  const char* utf8 = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
  if (utf8 == nullptr) {
    PyErr_Clear();
    return "?";
  }
  return utf8;
}

std::vector<std::string>& machinery() {
  static auto* folders = new std::vector<std::string>();
  return *folders;
}

bool belongs_to_the_machinery(const std::string& file) {
  return std::any_of(
      machinery().begin(), machinery().end(), [&](const std::string& folder) { return file.rfind(folder, 0) == 0; });
}

std::string line_of(PyFrameObject* frame, bool* inner) {
  PyCodeObject* code = PyFrame_GetCode(frame);
  const std::string file = text_of(code->co_filename);
  *inner = belongs_to_the_machinery(file);
  std::string line = file + ":" + std::to_string(PyFrame_GetLineNumber(frame)) + " in " + text_of(code->co_name);
  Py_DECREF(code);
  return line;
}

// Walks outwards until it leaves torch; where it never does, the innermost line.
std::string walk() {
  std::string innermost;
  PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get());
  while (frame != nullptr) {
    bool inner = false;
    std::string line = line_of(frame, &inner);
    PyFrameObject* back = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = back;
    if (!inner) {
      Py_XDECREF(frame);
      return line;
    }
    if (innermost.empty()) {
      innermost = std::move(line);
    }
  }
  return innermost.empty() ? "no Python line" : innermost;
}

} // namespace

void set_host_clock(HostClock clock) {
  chosen.store(clock, std::memory_order_relaxed);
  ++times_chosen; // what any thread has seen under another clock counts no more
}

HostClock host_clock() {
  return chosen.load(std::memory_order_relaxed);
}

CardsWork::CardsWork() {
  if (depth++ == 0 && measured()) {
    spent_ = last_seen_at == times_chosen ? cpu_time() - last_seen : 0;
  }
}

CardsWork::~CardsWork() {
  if (--depth == 0 && measured()) {
    last_seen = cpu_time();
    last_seen_at = times_chosen;
  }
}

bool CardsWork::inside() {
  return depth > 0;
}

void set_machinery(std::vector<std::string> folders) {
  machinery() = std::move(folders);
}

std::string python_line() {
  if (!Py_IsInitialized()) {
    return "no Python line";
  }
  const PyGILState_STATE gil = PyGILState_Ensure();
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr; // an error that is being raised stays
  PyErr_Fetch(&type, &value, &trace);
  std::string line = walk();
  PyErr_Restore(type, value, trace);
  PyGILState_Release(gil);
  return line;
}

} // namespace simgpu
