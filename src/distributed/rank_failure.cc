#include "distributed/rank_failure.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace kinefit {
namespace {

constexpr uint64_t kMostTail = 64 << 10;
constexpr size_t kMostWords = 600;

// What was written from `start` on, at most the last kMostTail bytes.
std::string EndOf(const std::string& path, uint64_t start) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const auto size = static_cast<uint64_t>(file.tellg());
  start = std::max(start, size > kMostTail ? size - kMostTail : 0);
  if (start >= size) return "";
  std::string text(size - start, 0);
  file.seekg(static_cast<std::streamoff>(start));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// Lines with something in them; a live line that was drawn over and over counts as its last state.
std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    while (!line.empty() && line.back() == '\r') line.pop_back();
    line = line.substr(line.rfind('\r') == std::string::npos ? 0 : line.rfind('\r') + 1);
    if (line.find_first_not_of(" \t") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

bool StartsWith(const std::string& text, const char* prefix) {
  return text.compare(0, std::strlen(prefix), prefix) == 0;
}

std::string FromErrorFile(const std::string& path) {
  if (path.empty()) return "";
  const auto json = nlohmann::json::parse(EndOf(path, 0), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("message")) return "";
  const auto& message = json["message"];
  if (message.is_string()) return message.get<std::string>();
  if (!message.is_object() || !message.contains("message")) return "";
  return message["message"].is_string() ? message["message"].get<std::string>() : "";
}

std::string FromLog(const std::string& log, uint64_t start) {
  const std::vector<std::string> lines = LinesOf(EndOf(log, start));
  for (size_t i = lines.size(); i-- > 0;) {
    if (!StartsWith(lines[i], "kinefit: ")) continue;
    std::string words = lines[i].substr(std::strlen("kinefit: "));
    for (size_t more = i + 1; more < lines.size() && StartsWith(lines[more], "  "); ++more) {
      words += "; " + lines[more].substr(2);
    }
    return words;
  }
  return lines.empty() ? "" : lines.back();
}

}  // namespace

std::string PlainLine(const std::string& text, size_t limit) {
  std::string plain;
  for (const char letter : text) {
    if (letter == '\n') {
      plain += "; ";
    } else if (static_cast<unsigned char>(letter) >= 0x20 && letter != 0x7f) {
      plain += letter;
    } else if (letter == '\t') {
      plain += ' ';
    }
    if (plain.size() >= limit) break;
  }
  while (!plain.empty() && (plain.back() == ' ' || plain.back() == ';')) plain.pop_back();
  if (plain.size() <= limit) return plain;
  plain.resize(limit);
  return plain;
}

std::string LastWords(const std::string& error_file, const std::string& log, uint64_t log_start) {
  const std::string written = FromErrorFile(error_file);
  return PlainLine(written.empty() ? FromLog(log, log_start) : written, kMostWords);
}

std::string LogTail(const std::string& log, uint64_t log_start, int lines) {
  const std::vector<std::string> all = LinesOf(EndOf(log, log_start));
  std::string tail;
  const size_t first = all.size() - std::min(all.size(), static_cast<size_t>(lines));
  for (size_t i = first; i < all.size(); ++i) tail += PlainLine(all[i], 400) + "\n";
  return tail;
}

bool SaysPeerLost(const std::string& words) {
  static constexpr std::array<const char*, 15> kSigns = {"connection closed by peer",
                                                         "connection reset by peer",
                                                         "broken pipe",
                                                         "connection refused",
                                                         "timed out waiting",
                                                         "socket timeout",
                                                         "wait timeout",
                                                         "watchdog caught",
                                                         "remote process exited",
                                                         "nccl communicator was aborted",
                                                         "lost contact with",
                                                         "did not come to",
                                                         "cannot reach rank 0",
                                                         "store timed out",
                                                         "timeout waiting for"};
  std::string lower = words;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return std::any_of(kSigns.begin(), kSigns.end(),
                     [&](const char* sign) { return lower.find(sign) != std::string::npos; });
}

std::string Describe(const RankFailure& failure) {
  std::string text;
  if (failure.rank >= 0) text += "rank " + std::to_string(failure.rank) + " on ";
  text += failure.host + " " + failure.why;
  if (failure.step >= 0) {
    text += failure.step == 0 ? " before its first step was done"
                              : " after step " + std::to_string(failure.step);
  }
  if (!failure.phase.empty()) text += ", while " + failure.phase;
  if (!failure.last.empty()) text += "\n  it said: " + failure.last;
  if (!failure.log.empty()) text += "\n  its log: " + failure.log;
  return text;
}

}  // namespace kinefit
