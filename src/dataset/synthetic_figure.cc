#include "dataset/synthetic_figure.h"

#include <algorithm>
#include <cmath>

namespace kinefit {
namespace {

using cv::Point2d;

constexpr double kTurn = 2 * CV_PI;

double Smooth(double x) {
  x = std::clamp(x, 0.0, 1.0);
  return x * x * (3 - 2 * x);
}

// 0 at rest, 1 with the hand at its goal: up, a pause, down, a rest; once in each repeat.
double Raised(double time) {
  const double part = time - std::floor(time);
  return Smooth(part / 0.28) * (1 - Smooth((part - 0.62) / 0.25));
}

Point2d Mix(const Point2d& a, const Point2d& b, double share) { return a + (b - a) * share; }

cv::Scalar Varied(const cv::Scalar& colour, double spread, RandomStream& random) {
  cv::Scalar varied;
  for (int c = 0; c < 3; ++c) {
    varied[c] = std::clamp(colour[c] + random.Uniform(-spread, spread), 10.0, 245.0);
  }
  return varied;
}

cv::Scalar Clothing(RandomStream& random) {
  cv::Scalar colour;
  const double grey = random.Uniform(60, 170);
  for (int c = 0; c < 3; ++c) colour[c] = grey + random.Uniform(-45, 45);
  return colour;
}

// The elbow of an arm (or the knee of a leg) between two ends: the triangle with sides `upper` and
// `lower` that bends towards `outward`. Ends out of reach are brought within it.
Point2d Bend(const Point2d& root, Point2d* tip, double upper, double lower,
             const Point2d& outward) {
  Point2d along = *tip - root;
  double distance = std::max(1e-6, std::hypot(along.x, along.y));
  along *= 1 / distance;
  const double bounded =
      std::clamp(distance, std::abs(upper - lower) + 0.02 * upper, 0.995 * (upper + lower));
  *tip = root + along * bounded;
  const double side = (upper * upper - lower * lower + bounded * bounded) / (2 * bounded);
  const double height = std::sqrt(std::max(0.0, upper * upper - side * side));
  Point2d across(-along.y, along.x);
  if (across.dot(outward) < 0) across = -across;
  return root + along * side + across * height;
}

// The skeleton in construction: body heights, origin on the ground below the hips, y downwards.
struct Rig {
  const Body& body;
  const Performance& performance;
  Joints joints;

  double Side(int joint) const { return joint % 2 == 1 ? 1 : -1; }  // left joints are odd
  void PlaceTrunk(double time, double bounce, double lean);
  void PlaceLegs(double left_lift, double right_lift, double left_step, double right_step);
  void PlaceHand(int shoulder, Point2d wrist, const Point2d& outward);
  Point2d HeadCentre() const { return (joints[kLeftEar] + joints[kRightEar]) * 0.5; }
  Point2d Rest(int shoulder, double time) const;
};

void Rig::PlaceTrunk(double time, double bounce, double lean) {
  const double hip_y = -(body.thigh + body.shin + 0.035) + bounce;
  const double shift = 0.012 * std::sin(kTurn * (performance.sway * time + performance.phase));
  const double width = performance.turn;
  for (const int joint : {kLeftHip, kRightHip}) {
    joints[joint] = {Side(joint) * body.hip * width + shift, hip_y};
  }
  const double shoulder_y = hip_y - body.torso;
  const double shoulder_x = 1.6 * shift + lean;
  for (const int joint : {kLeftShoulder, kRightShoulder}) {
    joints[joint] = {Side(joint) * body.shoulder * width + shoulder_x, shoulder_y};
  }
  const double look = performance.facing;
  const Point2d head(shoulder_x + 0.3 * lean + 0.02 * look, shoulder_y - 0.05 - body.head);
  const double r = body.head;
  joints[kNose] = head + Point2d(0.55 * r * look, 0.15 * r);
  joints[kLeftEye] = head + Point2d(0.38 * r + 0.4 * r * look, -0.15 * r);
  joints[kRightEye] = head + Point2d(-0.38 * r + 0.4 * r * look, -0.15 * r);
  joints[kLeftEar] = head + Point2d(0.95 * r, 0);
  joints[kRightEar] = head + Point2d(-0.95 * r, 0);
}

// `lift`: how high the foot is raised; `step`: how far it is set sideways (walking).
void Rig::PlaceLegs(double left_lift, double right_lift, double left_step, double right_step) {
  for (const int hip : {kLeftHip, kRightHip}) {
    const bool left = hip == kLeftHip;
    const double lift = left ? left_lift : right_lift;
    const double step = left ? left_step : right_step;
    Point2d ankle(joints[hip].x + 0.02 * Side(hip) + step, -0.035 - lift);
    // A raised thigh points at the viewer and looks shorter.
    const double thigh = body.thigh - 0.55 * lift;
    const double toward =
        step != 0 || performance.movement == Movement::kWalk ? performance.facing : Side(hip);
    joints[hip + 2] = Bend(joints[hip], &ankle, thigh, body.shin, {toward, 0});
    joints[hip + 4] = ankle;
  }
}

void Rig::PlaceHand(int shoulder, Point2d wrist, const Point2d& outward) {
  joints[shoulder + 2] = Bend(joints[shoulder], &wrist, body.upper_arm, body.forearm, outward);
  joints[shoulder + 4] = wrist;
}

Point2d Rig::Rest(int shoulder, double time) const {
  const double swing = 0.012 * std::sin(kTurn * (performance.sway * time + 2 * performance.phase));
  return joints[shoulder] + Point2d(Side(shoulder) * 0.055 + swing, 0.29);
}

void PlaceRaisedHand(Rig& rig, int shoulder, double time) {
  const Performance& p = rig.performance;
  const double side = rig.Side(shoulder);
  const double raised = Raised(p.repeats * time + p.phase);
  const Point2d personal(side * p.aim.x, p.aim.y);
  Point2d goal;
  if (p.movement == Movement::kHandToFace) {
    goal = rig.HeadCentre() + Point2d(side * 0.075, 0.07) + personal;
  } else {
    // To the brow, then a sweep outwards while the hand is still up.
    const double part = p.repeats * time + p.phase;
    const double sweep = Smooth((part - std::floor(part) - 0.36) / 0.2);
    goal = rig.HeadCentre() + personal + Mix({side * 0.10, -0.05}, {side * 0.24, -0.09}, sweep);
  }
  rig.PlaceHand(shoulder, Mix(rig.Rest(shoulder, time), goal, raised), {side, 0.35});
}

void PlaceLift(Rig& rig, double time) {
  const Performance& p = rig.performance;
  const double raised = Raised(p.repeats * time + p.phase);
  for (const int shoulder : {kLeftShoulder, kRightShoulder}) {
    const double side = rig.Side(shoulder);
    const double middle = (rig.joints[kLeftShoulder].x + rig.joints[kRightShoulder].x) / 2;
    const double y = rig.joints[shoulder].y;
    const Point2d low(middle + side * 0.10, y + 0.22 + p.aim.y);
    const Point2d high(middle + side * 0.10, y - 0.27 * p.reach + p.aim.y);
    rig.PlaceHand(shoulder, Mix(low, high, raised), {side, 0.2});
  }
}

void PlaceWave(Rig& rig, int shoulder, double time) {
  const Performance& p = rig.performance;
  const double side = rig.Side(shoulder);
  const double swing = 1.05 * p.reach * std::sin(kTurn * (p.cycles * time + p.phase));
  const double upper = 0.95 + p.aim.x * 4 + 0.45 * swing;  // from hanging down, outwards
  const double fore = CV_PI - 0.30 + p.aim.y * 4 + swing;
  Joints& joints = rig.joints;
  joints[shoulder + 2] =
      joints[shoulder] + rig.body.upper_arm * Point2d(side * std::sin(upper), std::cos(upper));
  joints[shoulder + 4] =
      joints[shoulder + 2] + rig.body.forearm * Point2d(side * std::sin(fore), std::cos(fore));
}

// Stepping on the spot, and walking past: the arms swing against the legs.
void PlaceStepArms(Rig& rig, double beat, double amplitude) {
  for (const int shoulder : {kLeftShoulder, kRightShoulder}) {
    const double side = rig.Side(shoulder);
    const double up = -side * amplitude * std::sin(beat);
    rig.PlaceHand(shoulder, rig.joints[shoulder] + Point2d(side * 0.045, 0.19 - up), {side, 0.3});
  }
}

}  // namespace

Body MakeBody(RandomStream& random, double image_height) {
  Body body;
  body.height = image_height * random.Uniform(0.68, 0.76);
  const auto vary = [&](double& length, double share) {
    length *= random.Uniform(1 - share, 1 + share);
  };
  vary(body.upper_arm, 0.06);
  vary(body.forearm, 0.06);
  vary(body.thigh, 0.05);
  vary(body.shin, 0.05);
  vary(body.torso, 0.06);
  vary(body.shoulder, 0.12);
  vary(body.hip, 0.12);
  vary(body.head, 0.08);
  vary(body.girth, 0.15);
  const cv::Scalar skins[] = {{236, 198, 168}, {214, 164, 126}, {176, 122, 86}, {118, 78, 54}};
  const cv::Scalar hairs[] = {{40, 30, 26}, {92, 60, 34}, {196, 158, 88}, {150, 150, 150}};
  body.skin = Varied(skins[random.Integer(0, 4)], 10, random);
  body.hair = Varied(hairs[random.Integer(0, 4)], 12, random);
  body.shirt = Clothing(random);
  body.stripe = Clothing(random);
  body.trousers = Clothing(random) * 0.7;
  body.shoes = Clothing(random) * 0.5;
  body.long_hair = random.Chance(0.4);
  body.striped = random.Chance(0.4);
  body.long_sleeves = random.Chance(0.5);
  return body;
}

Performance MakePerformance(Movement movement, bool fast, Point2d place, RandomStream& random) {
  Performance p;
  p.movement = movement;
  p.acting_side = random.Chance(0.5) ? 1 : -1;
  p.facing = random.Uniform(-1, 1);
  p.turn = random.Uniform(0.8, 1);
  p.cycles = fast ? random.Uniform(5.6, 6.4) : random.Uniform(2.1, 2.6);
  p.repeats = random.Chance(0.5) ? random.Uniform(1.0, 1.3) : random.Uniform(1.8, 2.3);
  p.phase = random.Uniform();
  p.reach = random.Uniform(0.85, 1.15);
  p.sway = random.Uniform(0.5, 1.5);
  p.aim = {random.Uniform(-0.02, 0.02), random.Uniform(-0.02, 0.02)};
  p.start = place;
  p.end = place + Point2d(random.Uniform(-4, 4), random.Uniform(-1, 1));
  return p;
}

Joints PoseAt(const Body& body, const Performance& p, double time) {
  Rig rig{body, p, {}};
  const double beat = kTurn * (p.cycles * time + p.phase);
  const int acting = p.acting_side > 0 ? kLeftShoulder : kRightShoulder;
  const int other = acting == kLeftShoulder ? kRightShoulder : kLeftShoulder;
  const bool steps = p.movement == Movement::kStep || p.movement == Movement::kWalk;
  rig.PlaceTrunk(time, steps ? 0.012 * std::cos(2 * beat) : 0, 0.015 * p.facing);
  if (p.movement == Movement::kStep) {
    const double lift = 0.19 * p.reach;
    rig.PlaceLegs(lift * std::max(0.0, std::sin(beat)), lift * std::max(0.0, -std::sin(beat)), 0,
                  0);
    PlaceStepArms(rig, beat, 0.10 * p.reach);
  } else if (p.movement == Movement::kWalk) {
    const double stride = 0.11;
    rig.PlaceLegs(0.03 * std::max(0.0, std::cos(beat)), 0.03 * std::max(0.0, -std::cos(beat)),
                  stride * std::sin(beat), -stride * std::sin(beat));
    PlaceStepArms(rig, beat, 0.03);
  } else {
    rig.PlaceLegs(0, 0, 0, 0);
    const Point2d outward(rig.Side(other), 0.1);
    if (p.movement != Movement::kLift) rig.PlaceHand(other, rig.Rest(other, time), outward);
    if (p.movement == Movement::kLift) {
      PlaceLift(rig, time);
    } else if (p.movement == Movement::kWave) {
      PlaceWave(rig, acting, time);
    } else {
      PlaceRaisedHand(rig, acting, time);
    }
  }
  const Point2d ground = Mix(p.start, p.end, time);
  for (Point2d& joint : rig.joints) joint = ground + joint * body.height;
  return rig.joints;
}

}  // namespace kinefit
