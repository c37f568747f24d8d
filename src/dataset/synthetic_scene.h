#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "dataset/synthetic_figure.h"
#include "random/stream.h"

namespace kinefit {

// Part of the built-in set (synthetic.h): what surrounds the bodies, and how a frame is drawn.

enum class Thing { kNone, kCup, kPhone, kBox, kBall, kHat };

// Colours and size of one thing; its shape follows from its kind. RGB.
struct Look {
  Thing thing = Thing::kNone;
  double size = 1;
  cv::Scalar colour;
  cv::Scalar accent;
};

Look MakeLook(Thing thing, RandomStream& random);

// A person in a clip. Absent persons are neither drawn nor annotated.
struct Person {
  Body body;
  Performance performance;
  Look held;
  bool hat = false;
  Look hat_look;
  double enter = 0;  // present from here ...
  double leave = 1;  // ... to here
  bool PresentAt(double time) const { return time >= enter && time <= leave; }
};

// Movement of the camera: zoom about the centre, then a shift, as sums of slow waves.
struct Camera {
  double zoom = 1, zoom_change = 0, shake = 0, drift = 0, phase_x = 0, phase_y = 0, rate = 1;
};

struct Lighting {
  cv::Scalar tint;  // factor for each channel
  double change = 0, rate = 1, phase = 0;
};

struct Clip {
  int width = 0;
  int height = 0;
  int64_t frames = 0;
  cv::Mat background;           // RGB, larger than the canvas on which frames are drawn
  std::vector<Person> persons;  // the first is the one who acts
  Camera camera;
  Lighting lighting;
};

// A wall, a floor and things that lie around. `keep_clear`: the column (in pixels) where the actor
// stands, which things keep a small distance from.
cv::Mat MakeBackground(int width, int height, double keep_clear, double body_height,
                       RandomStream& random);

// True joints of `clip.persons[person]` in frame `frame`, in pixels of the frame.
Joints JointsInFrame(const Clip& clip, size_t person, int64_t frame);

// The picture, RGB. Without `figures` the scene alone.
cv::Mat DrawFrame(const Clip& clip, int64_t frame, bool figures = true);

}  // namespace kinefit
