#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kinefit {

constexpr int kNtuJoints = 25;
constexpr int kNtuMaxBodies = 6;  // that Kinect v2 tracks at once

// One joint of a .skeleton file, all twelve fields. A number that the file gives as infinite or
// not a number is NaN.
struct NtuJoint {
  float x = 0, y = 0, z = 0;           // metres, camera space
  float depth_x = 0, depth_y = 0;      // pixels of the 512x424 depth and infrared images
  float color_x = 0, color_y = 0;      // pixels of the 1920x1080 video
  std::array<float, 4> orientation{};  // w, x, y, z
  int tracking_state = 0;              // 0 not tracked, 1 inferred, 2 tracked
};

// One person in one frame.
struct NtuBody {
  int64_t id = 0;  // the same for one person from frame to frame, while tracking lasts
  int clipped_edges = 0;
  int hand_left_confidence = 0;
  int hand_left_state = 0;
  int hand_right_confidence = 0;
  int hand_right_state = 0;
  int is_restricted = 0;
  float lean_x = 0, lean_y = 0;
  int tracking_state = 0;
  std::array<NtuJoint, kNtuJoints> joints;
};

// A recording: the bodies of each frame, in the file's order.
struct NtuRecording {
  std::vector<std::vector<NtuBody>> frames;
};

// Parses the official text format of NTU RGB+D (read_skeleton_file.m of
// https://github.com/shahroudy/NTURGB-D): number of frames; per frame number of bodies; per body a
// line of ten fields, number of joints, and per joint a line of twelve. Throws Error with the
// line's number for anything else: a truncated file, wrong counts, text after the end.
NtuRecording ParseNtuSkeleton(std::string_view text, const std::string& where);
NtuRecording ReadNtuSkeleton(const std::string& path);

}  // namespace kinefit
