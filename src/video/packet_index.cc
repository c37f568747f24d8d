#include "video/packet_index.h"

#include <algorithm>
#include <numeric>

namespace kinefit {

bool ReadPictureKind(std::string_view packet, int length_size, PictureHeader* header) {
  constexpr int kSlice = 1, kIdrSlice = 5, kSei = 6, kDelimiter = 9, kFiller = 12;
  if (length_size < 1 || length_size > 4) return false;
  const size_t prefix = static_cast<size_t>(length_size);
  int slices = 0;
  for (size_t at = 0; at < packet.size();) {
    if (packet.size() - at < prefix) return false;
    size_t length = 0;
    for (size_t i = 0; i < prefix; ++i) {
      length = length << 8 | static_cast<unsigned char>(packet[at + i]);
    }
    at += prefix;
    if (length < 1 || length > packet.size() - at) return false;
    const int first = static_cast<unsigned char>(packet[at]);
    at += length;
    const int type = first & 31;
    if (type == kSei || type == kDelimiter || type == kFiller) continue;
    if (type != kSlice && type != kIdrSlice) return false;
    const bool idr = type == kIdrSlice;
    const bool reference = (first >> 5 & 3) != 0;
    if (slices++ > 0 && (idr != header->idr || reference != header->reference)) return false;
    header->idr = idr;
    header->reference = reference;
  }
  return slices > 0;
}

std::vector<int64_t> NumberFrames(const std::vector<PictureHeader>& packets) {
  if (packets.empty() || !packets.front().idr) return {};
  std::vector<int64_t> numbers(packets.size());
  int64_t latest = 0;  // time stamp of the frames before
  for (size_t begin = 0; begin < packets.size();) {
    size_t end = begin + 1;
    while (end < packets.size() && !packets[end].idr) ++end;
    std::vector<size_t> shown(end - begin);
    std::iota(shown.begin(), shown.end(), begin);
    std::sort(shown.begin(), shown.end(),
              [&](size_t a, size_t b) { return packets[a].order < packets[b].order; });
    for (size_t i = 0; i < shown.size(); ++i) {
      const PictureHeader& picture = packets[shown[i]];
      if (i > 0 && picture.order == packets[shown[i - 1]].order) return {};
      if (begin + i > 0 && picture.time <= latest) return {};
      latest = picture.time;
      numbers[shown[i]] = static_cast<int64_t>(begin + i);
    }
    begin = end;
  }
  return numbers;
}

DecodePlan PlanDecoding(const std::vector<PictureHeader>& packets,
                        const std::vector<int64_t>& numbers, const std::vector<int64_t>& wanted) {
  DecodePlan plan;
  plan.decode.resize(packets.size(), false);
  plan.first_of_run.resize(packets.size(), false);
  std::vector<bool> is_wanted(packets.size());
  for (size_t i = 0; i < packets.size(); ++i) {
    is_wanted[i] = std::binary_search(wanted.begin(), wanted.end(), numbers[i]);
  }
  bool contiguous = true;  // all reference pictures so far have been decoded
  for (size_t begin = 0; begin < packets.size();) {
    size_t end = begin + 1;
    size_t last = is_wanted[begin] ? end : begin;  // behind the last packet that is needed
    for (; end < packets.size() && !packets[end].idr; ++end) {
      if (is_wanted[end]) last = end + 1;
    }
    for (size_t i = begin; i < last; ++i) {
      plan.decode[i] = packets[i].reference || is_wanted[i];
    }
    if (last > begin) plan.first_of_run[begin] = !contiguous;
    contiguous = last == end;
    begin = end;
  }
  return plan;
}

}  // namespace kinefit
