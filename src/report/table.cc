#include "report/table.h"

#include <algorithm>
#include <iterator>

namespace kinefit {
namespace {

struct Range {
  uint32_t first;
  uint32_t last;
};

// East Asian wide and fullwidth blocks and emoji (Unicode UAX #11), as terminals draw them.
constexpr Range kWide[] = {
    {0x1100, 0x115F},   {0x231A, 0x231B},   {0x23E9, 0x23EC},   {0x2E80, 0x303E},
    {0x3041, 0x33FF},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},
    {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},
    {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},   {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF},
    {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD},
};

constexpr Range kZero[] = {
    {0x0000, 0x001F}, {0x007F, 0x009F}, {0x0300, 0x036F}, {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF},
    {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF},
};

template <size_t N>
bool Contains(const Range (&ranges)[N], uint32_t point) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [point](const Range& r) { return point >= r.first && point <= r.last; });
}

struct Character {
  size_t bytes = 1;
  int64_t width = 1;
};

// The first character of `text`. REQUIRES: not empty.
Character FirstCharacter(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {1, Contains(kZero, lead) ? 0 : 1};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {};
  uint32_t point = lead & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) return {};
    point = point << 6 | (next & 0x3Fu);
  }
  return {bytes, Contains(kZero, point) ? 0 : Contains(kWide, point) ? 2 : 1};
}

bool LooksNumeric(const std::string& cell) {
  if (cell.empty() || cell == "-") return true;
  return cell.find_first_not_of("0123456789+-.,%eE ") == std::string::npos &&
         cell.find_first_of("0123456789") != std::string::npos;
}

std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return text;
}

struct Column {
  int64_t width = 0;
  bool numeric = true;
};

std::vector<Column> MeasureColumns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<Column> columns;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (columns.size() < rows[r].size()) columns.resize(rows[r].size());
    for (size_t c = 0; c < rows[r].size(); ++c) {
      columns[c].width = std::max(columns[c].width, DisplayWidth(OneLine(rows[r][c])));
      if (r > 0 && !LooksNumeric(rows[r][c])) columns[c].numeric = false;
    }
  }
  return columns;
}

void AppendLine(std::string line, std::string* text) {
  line.erase(line.find_last_not_of(' ') + 1);
  *text += line + '\n';
}

}  // namespace

int64_t DisplayWidth(std::string_view text) {
  int64_t width = 0;
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    width += character.width;
    text.remove_prefix(character.bytes);
  }
  return width;
}

std::string_view PrefixOfWidth(std::string_view text, int64_t columns) {
  size_t end = 0;
  while (end < text.size()) {
    const Character character = FirstCharacter(text.substr(end));
    if (character.width > columns) break;
    columns -= character.width;
    end += character.bytes;
  }
  return text.substr(0, end);
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  const std::vector<Column> columns = MeasureColumns(rows);
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    std::string rule;
    for (size_t c = 0; c < columns.size(); ++c) {
      const std::string cell = c < rows[r].size() ? OneLine(rows[r][c]) : "";
      const std::string padding(columns[c].width - DisplayWidth(cell), ' ');
      if (c > 0) line += "  ";
      line += columns[c].numeric ? padding + cell : cell + padding;
      if (c > 0) rule += "  ";
      rule += std::string(columns[c].width, '-');
    }
    AppendLine(line, &text);
    if (r == 0) AppendLine(rule, &text);
  }
  return text;
}

}  // namespace kinefit
