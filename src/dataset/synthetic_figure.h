#pragma once

#include <array>
#include <opencv2/core.hpp>

#include "random/stream.h"

namespace kinefit {

// Part of the built-in set (synthetic.h): bodies and how they move.

// COCO's 17 joints. "Left" is the person's left, which is on the image's right as they face us.
enum Joint {
  kNose,
  kLeftEye,
  kRightEye,
  kLeftEar,
  kRightEar,
  kLeftShoulder,
  kRightShoulder,
  kLeftElbow,
  kRightElbow,
  kLeftWrist,
  kRightWrist,
  kLeftHip,
  kRightHip,
  kLeftKnee,
  kRightKnee,
  kLeftAnkle,
  kRightAnkle,
  kJoints
};
using Joints = std::array<cv::Point2d, kJoints>;

// Shape and colours of an actor. Lengths are fractions of the body's height.
struct Body {
  double height = 86;  // pixels
  double upper_arm = 0.165, forearm = 0.155, thigh = 0.235, shin = 0.225, torso = 0.30;
  double shoulder = 0.115, hip = 0.065;                   // half widths
  double head = 0.08;                                     // radius
  double girth = 1;                                       // thickness of limbs
  cv::Scalar skin, hair, shirt, stripe, trousers, shoes;  // RGB
  bool long_hair = false, striped = false, long_sleeves = false;
};

Body MakeBody(RandomStream& random, double image_height);

enum class Movement { kHandToFace, kLift, kSalute, kWave, kStep, kWalk };

// One performance of a movement. Two classes that share a movement draw it in the same way.
struct Performance {
  Movement movement = Movement::kWave;
  double acting_side = 1;  // +1: the arm on the image's right
  double facing = 0;       // -1..1: which way the head is turned
  double turn = 1;         // apparent width of shoulders and hips
  double cycles = 5;       // of the rhythmic movements, a clip
  double repeats = 1;      // of the others
  double phase = 0;        // 0..1
  double reach = 1;        // amplitude
  double sway = 0;         // cycles of the idle sway a clip
  cv::Point2d aim;         // small personal offset of the hand's goal, in body heights
  cv::Point2d start;       // ground point below the hips in the first and last frame, pixels
  cv::Point2d end;
};

// `fast` matters to kWave and kStep alone.
Performance MakePerformance(Movement movement, bool fast, cv::Point2d place, RandomStream& random);

// True joints at `time` (0..1 of the clip), in pixels.
Joints PoseAt(const Body& body, const Performance& performance, double time);

}  // namespace kinefit
