#pragma once

// For tests: .skeleton files in the exact official layout, written as Kinect's tool wrote them.

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "convert/ntu_skeleton.h"

namespace kinefit {

// A body that stands upright around (x, y) metres, 1.6 m high and 0.4 m wide, projected to colour
// pixels 500 px per metre about the image's centre.
inline NtuBody StandingBody(int64_t id, float x, float y) {
  NtuBody body;
  body.id = id;
  body.tracking_state = 2;
  body.hand_left_state = 1;
  body.lean_x = 0.0111918F;
  for (int j = 0; j < kNtuJoints; ++j) {
    NtuJoint& joint = body.joints[static_cast<size_t>(j)];
    joint.x = x + 0.1F * static_cast<float>(j % 5) - 0.2F;
    joint.y = y + 0.4F * static_cast<float>(j / 5) - 0.8F;
    joint.z = 3;
    joint.depth_x = 256 + 170 * joint.x;
    joint.depth_y = 212 - 170 * joint.y;
    joint.color_x = 960 + 500 * joint.x;
    joint.color_y = 540 - 500 * joint.y;
    joint.orientation = {0.9F, 0.1F, 0.2F, 0.3F};
    joint.tracking_state = 2;
  }
  return body;
}

inline std::string WriteSkeleton(const NtuRecording& recording) {
  std::string text;
  char line[512];
  const auto add = [&](int length) { text.append(line, static_cast<size_t>(length)); };
  add(std::snprintf(line, sizeof(line), "%zu\n", recording.frames.size()));
  for (const std::vector<NtuBody>& bodies : recording.frames) {
    add(std::snprintf(line, sizeof(line), "%zu\n", bodies.size()));
    for (const NtuBody& b : bodies) {
      add(std::snprintf(line, sizeof(line), "%lld %d %d %d %d %d %d %.7g %.7g %d\n25\n",
                        static_cast<long long>(b.id), b.clipped_edges, b.hand_left_confidence,
                        b.hand_left_state, b.hand_right_confidence, b.hand_right_state,
                        b.is_restricted, b.lean_x, b.lean_y, b.tracking_state));
      for (const NtuJoint& j : b.joints) {
        add(std::snprintf(line, sizeof(line),
                          "%.7g %.7g %.7g %.7g %.7g %.7g %.7g %.7g %.7g %.7g %.7g %d\n", j.x, j.y,
                          j.z, j.depth_x, j.depth_y, j.color_x, j.color_y, j.orientation[0],
                          j.orientation[1], j.orientation[2], j.orientation[3], j.tracking_state));
      }
    }
  }
  return text;
}

// `frames` frames, the bodies of each made by `bodies(frame)`.
inline NtuRecording MakeRecording(int frames,
                                  const std::function<std::vector<NtuBody>(int)>& bodies) {
  NtuRecording recording;
  for (int i = 0; i < frames; ++i) recording.frames.push_back(bodies(i));
  return recording;
}

}  // namespace kinefit
