#include "words.h"

#include <cmath>
#include <regex>

namespace simgpu::shared {
namespace {

constexpr double kMostBytes = 4611686018427387904.0; // 1 << 62

// 1024 to the power that the letter means; 1000 without the i.
double unit_of(char letter, bool binary) {
  static const std::string letters = "KMGT";
  const size_t power = letters.find(static_cast<char>(std::toupper(letter))) + 1;
  return std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power));
}

uint32_t number(const std::string& digits, uint32_t otherwise) {
  return digits.empty() ? otherwise : static_cast<uint32_t>(std::stoul(digits));
}

} // namespace

uint64_t parse_size(const std::string& text, const std::string& what) {
  static const std::regex shape(R"(\s*(\d{1,20}(\.\d{1,20})?)\s*(?:([kmgt])(i?)b|b)?\s*)", std::regex::icase);
  std::smatch part;
  if (!std::regex_match(text, part, shape)) {
    throw BadInput(what + "=\"" + text + "\" is not a size: give bytes, or a number with KiB, MiB, GiB, KB, MB or GB");
  }
  const double unit = part[3].matched ? unit_of(*part[3].first, part[4].length() == 1) : 1;
  const double bytes = std::stod(part[1]) * unit;
  if (bytes >= kMostBytes) {
    throw BadInput(what + "=\"" + text + "\" is more bytes than can be counted");
  }
  // Whole numbers stay exact; a double is not, above 2^53.
  return part[2].matched ? static_cast<uint64_t>(bytes) : std::stoull(part[1]) * static_cast<uint64_t>(unit);
}

Link parse_link(const std::string& text, Link now) {
  static const std::regex shape(R"((?:(?:pcie|gen)\s*(\d{1,3}))?\s*(?:x(\d{1,3}))?)", std::regex::icase);
  if (text == "reset") {
    return Link{};
  }
  std::smatch part;
  if (text.empty() || !std::regex_match(text, part, shape)) {
    throw BadInput("\"" + text + "\" is not a link: give lanes (x4), a generation (gen3), both (pcie3x8), or reset");
  }
  const Link asked{number(part[1], now.generation), number(part[2], now.width)};
  if (asked.generation == 0 || asked.width == 0) {
    throw BadInput("\"" + text + "\" is not a link: PCIe generations and lanes are counted from 1");
  }
  return asked;
}

} // namespace simgpu::shared
