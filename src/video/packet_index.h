#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kinefit {

// What a packet of an H.264 stream holds, as far as its headers tell.
struct PictureHeader {
  bool idr = false;        // decoding can begin here: nothing later refers to what was before
  bool reference = false;  // other pictures may be made from it
  int64_t order = 0;       // place in the order of display among the pictures since the last IDR
                           // (picture order count)
  int64_t time = 0;        // the container's time stamp
};

// Looks at the NAL units of an .mp4 packet (each behind its length of `length_size` bytes) and sets
// `idr` and `reference`. False for anything but one plain picture: parameter sets between pictures,
// data partitions, layers, lengths that do not add up.
bool ReadPictureKind(std::string_view packet, int length_size, PictureHeader* header);

// The frame number (place in the order of display) of every packet, or nothing where the headers
// leave a doubt: the first packet is no IDR picture, two pictures have the same order, or the order
// is not that of the time stamps.
std::vector<int64_t> NumberFrames(const std::vector<PictureHeader>& packets);

// Which packets have to be decoded, in their order, to see the wanted frames; `first_of_run[i]`
// says that the decoder has to be emptied before packet i because packets before it are left out.
struct DecodePlan {
  std::vector<bool> decode;
  std::vector<bool> first_of_run;
};
// `wanted`: frame numbers, ascending. REQUIRES: numbers = NumberFrames(packets), not empty.
DecodePlan PlanDecoding(const std::vector<PictureHeader>& packets,
                        const std::vector<int64_t>& numbers, const std::vector<int64_t>& wanted);

}  // namespace kinefit
