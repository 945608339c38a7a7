#include "json.h"

#include "builtin.h"

#include <cstdio>

namespace simgpu::nvml {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char letter : text) {
    if (static_cast<unsigned char>(letter) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(letter));
      out += code;
      continue;
    }
    if (letter == '"' || letter == '\\') {
      out += '\\';
    }
    out += letter;
  }
  return out + '"';
}

std::string field(const char* name, const std::string& value) {
  return quoted(name) + ": " + value;
}

std::string field(const char* name, uint64_t value) {
  return field(name, std::to_string(value));
}

std::string object(std::initializer_list<std::string> fields) {
  std::string out;
  for (const std::string& one : fields) {
    out += (out.empty() ? "" : ", ") + one;
  }
  return "{" + out + "}";
}

template <typename Items, typename Spell>
std::string array(const Items& items, Spell spell) {
  std::string out;
  for (const auto& item : items) {
    out += (out.empty() ? "" : ", ") + spell(item);
  }
  return "[" + out + "]";
}

std::string of_process(const shared::Process& process) {
  return object({
      field("pid", static_cast<uint64_t>(process.pid)),
      field("bytes", process.reserved),
      field("busy_ns", process.busy_ns),
      field("copy_ns", process.copy_ns),
      field("now_ns", process.now_ns),
  });
}

std::string of_link(shared::Link link) {
  return object({field("generation", uint64_t{link.generation}), field("width", uint64_t{link.width})});
}

std::string of_profile(const Profile& profile) {
  return object({
      field("profile", quoted(profile.key)),
      field("name", quoted(profile.name)),
      field("memory_bytes", profile.memory),
      field("link", of_link({profile.link_generation, profile.link_width})),
  });
}

} // namespace

std::string json_of(const std::string& card, const shared::Snapshot& now) {
  return object({
      field("card", quoted(card)),
      field("profile", quoted(now.model.profile)),
      field("name", quoted(now.model.name)),
      field("uuid", quoted("GPU-" + now.model.uuid)),
      field("state", quoted(shared::Card::path(card))),
      field("idle", now.idle ? "true" : "false"),
      field("total_bytes", now.model.capacity),
      field("free_bytes", now.free()),
      field("used_bytes", now.used),
      field("squeezed_bytes", now.squeezed),
      field("link", of_link(now.link)),
      field("max_link", of_link({now.model.link_generation, now.model.link_width})),
      field("processes", array(now.processes, of_process)),
  });
}

std::string json_of_profiles() {
  return array(profiles(), of_profile);
}

} // namespace simgpu::nvml
