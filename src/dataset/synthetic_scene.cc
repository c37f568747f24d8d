#include "dataset/synthetic_scene.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

namespace kinefit {
namespace {

using cv::Point2d;
using cv::Scalar;

// Frames are drawn at twice their size and then averaged down, which smooths every edge.
constexpr int kCanvas = 2;
constexpr double kMargin = 1.3;  // background size / canvas size
constexpr int kSubpixelBits = 4;

cv::Point Fixed(const Point2d& p) {
  const double scale = 1 << kSubpixelBits;
  return {cvRound(p.x * scale), cvRound(p.y * scale)};
}

void Line(cv::Mat& canvas, const Point2d& a, const Point2d& b, const Scalar& colour, double thick) {
  cv::line(canvas, Fixed(a), Fixed(b), colour, std::max(1, cvRound(thick)), cv::LINE_AA,
           kSubpixelBits);
}

void Disc(cv::Mat& canvas, const Point2d& centre, double radius, const Scalar& colour) {
  cv::circle(canvas, Fixed(centre), cvRound(radius * (1 << kSubpixelBits)), colour, cv::FILLED,
             cv::LINE_AA, kSubpixelBits);
}

void Polygon(cv::Mat& canvas, const std::vector<Point2d>& corners, const Scalar& colour) {
  std::vector<cv::Point> fixed;
  for (const Point2d& corner : corners) fixed.push_back(Fixed(corner));
  cv::fillConvexPoly(canvas, fixed, colour, cv::LINE_AA, kSubpixelBits);
}

// Corners of a shape given in its own axes, moved to `centre` and tilted.
struct Frame {
  Point2d centre;
  double scale = 1;
  double tilt = 0;
  Point2d operator()(double x, double y) const {
    const double c = std::cos(tilt), s = std::sin(tilt);
    return centre + scale * Point2d(c * x - s * y, s * x + c * y);
  }
};

void Rectangle(cv::Mat& canvas, const Frame& at, double x, double y, double w, double h,
               const Scalar& colour) {
  Polygon(canvas, {at(x, y), at(x + w, y), at(x + w, y + h), at(x, y + h)}, colour);
}

// Lengths in body heights; `at.scale` is the body's height. The centre is what a hand grips, or the
// middle of the crown's lower edge for a hat.
void DrawThing(cv::Mat& canvas, const Look& look, Frame at) {
  at.scale *= look.size;
  const Scalar& colour = look.colour;
  const Scalar& accent = look.accent;
  switch (look.thing) {
    case Thing::kNone:
      return;
    case Thing::kCup:
      cv::circle(canvas, Fixed(at(0.09, 0)), cvRound(0.05 * at.scale * (1 << kSubpixelBits)),
                 colour, std::max(1, cvRound(0.03 * at.scale)), cv::LINE_AA, kSubpixelBits);
      Polygon(canvas, {at(-0.10, -0.11), at(0.10, -0.11), at(0.075, 0.11), at(-0.075, 0.11)},
              colour);
      Rectangle(canvas, at, -0.10, -0.12, 0.20, 0.04, accent);
      return;
    case Thing::kPhone:
      Rectangle(canvas, at, -0.065, -0.14, 0.13, 0.28, colour);
      Rectangle(canvas, at, -0.045, -0.11, 0.09, 0.19, accent);
      return;
    case Thing::kBox:
      Rectangle(canvas, at, -0.14, -0.12, 0.28, 0.24, colour);
      Rectangle(canvas, at, -0.025, -0.12, 0.05, 0.24, accent);
      Rectangle(canvas, at, -0.14, -0.12, 0.28, 0.03, colour * 0.75);
      return;
    case Thing::kBall:
      Disc(canvas, at.centre, 0.14 * at.scale, colour);
      Line(canvas, at(-0.115, -0.04), at(0.115, -0.04), accent, 0.035 * at.scale);
      Line(canvas, at(-0.10, 0.055), at(0.10, 0.055), accent, 0.03 * at.scale);
      Disc(canvas, at(-0.05, -0.085), 0.025 * at.scale, Scalar::all(250));
      return;
    case Thing::kHat:
      Rectangle(canvas, at, -0.105, -0.19, 0.21, 0.20, colour);
      Rectangle(canvas, at, -0.105, -0.065, 0.21, 0.06, accent);
      Rectangle(canvas, at, -0.165, -0.01, 0.33, 0.04, colour);
      return;
  }
}

// A limb: a thick line, lit from the upper left.
void Limb(cv::Mat& canvas, const Point2d& a, const Point2d& b, const Scalar& colour, double thick) {
  Line(canvas, a, b, colour * 0.8, thick);
  const Point2d toward_light(-0.12 * thick, -0.12 * thick);
  Line(canvas, a + toward_light, b + toward_light, colour, 0.72 * thick);
}

void DrawLegs(cv::Mat& canvas, const Body& body, const Joints& j, double size) {
  for (const int hip : {kRightHip, kLeftHip}) {
    const Point2d knee = j[hip + 2], ankle = j[hip + 4];
    Limb(canvas, j[hip], knee, body.trousers, 0.085 * body.girth * size);
    Limb(canvas, knee, ankle, body.trousers, 0.07 * body.girth * size);
    const Point2d toe = ankle + Point2d((hip == kLeftHip ? 1 : -1) * 0.03, 0.02) * size;
    Limb(canvas, ankle + Point2d(0, 0.015 * size), toe, body.shoes, 0.06 * size);
  }
}

void DrawTrunk(cv::Mat& canvas, const Body& body, const Joints& j, double size) {
  const double g = 0.035 * body.girth * size;
  const std::vector<Point2d> outline = {j[kRightShoulder] + Point2d(-g, -g),
                                        j[kLeftShoulder] + Point2d(g, -g),
                                        j[kLeftHip] + Point2d(g, g), j[kRightHip] + Point2d(-g, g)};
  Polygon(canvas, outline, body.shirt * 0.85);
  const Point2d middle_top = (outline[0] + outline[1]) * 0.5;
  const Point2d middle_low = (outline[2] + outline[3]) * 0.5;
  Polygon(canvas, {outline[0], middle_top, middle_low, outline[3]}, body.shirt);
  if (body.striped) {
    for (const double share : {0.25, 0.5, 0.75}) {
      Line(canvas, outline[0] + (outline[3] - outline[0]) * share,
           outline[1] + (outline[2] - outline[1]) * share, body.stripe, 0.028 * size);
    }
  }
}

void DrawHead(cv::Mat& canvas, const Person& person, const Joints& j, double size) {
  const Body& body = person.body;
  const Point2d centre = (j[kLeftEar] + j[kRightEar]) * 0.5;
  const Point2d neck = (j[kLeftShoulder] + j[kRightShoulder]) * 0.5;
  const double radius = body.head * size;
  if (body.long_hair) Disc(canvas, centre + Point2d(0, 0.45 * radius), 1.15 * radius, body.hair);
  Limb(canvas, centre, neck, body.skin * 0.9, 0.07 * size);
  Disc(canvas, centre, radius, body.skin);
  cv::ellipse(canvas, Fixed(centre), cv::Size(cvRound(radius * 16 * 1.04), cvRound(radius * 16)), 0,
              185, 355, body.hair, cv::FILLED, cv::LINE_AA, kSubpixelBits);
  Polygon(canvas,
          {centre + Point2d(-0.9, -0.25) * radius, centre + Point2d(0.9, -0.25) * radius,
           centre + Point2d(0.8, -0.45) * radius, centre + Point2d(-0.8, -0.45) * radius},
          body.hair);
  for (const int eye : {kLeftEye, kRightEye}) {
    Disc(canvas, j[eye] + Point2d(0, 0.12 * radius), 0.13 * radius, Scalar(25, 25, 30));
  }
  Disc(canvas, j[kNose], 0.12 * radius, body.skin * 0.75);
  if (person.hat) DrawThing(canvas, person.hat_look, {centre - Point2d(0, 0.6 * radius), size, 0});
}

void DrawArm(cv::Mat& canvas, const Body& body, const Joints& j, int shoulder, double size) {
  const Point2d elbow = j[shoulder + 2], wrist = j[shoulder + 4];
  Limb(canvas, j[shoulder], elbow, body.shirt * 0.92, 0.066 * body.girth * size);
  const Scalar sleeve = body.long_sleeves ? body.shirt * 0.92 : body.skin;
  Limb(canvas, elbow, wrist, sleeve, 0.055 * body.girth * size);
}

Point2d Grip(const Joints& j, int shoulder, double size) {
  const Point2d along = j[shoulder + 4] - j[shoulder + 2];
  const double length = std::max(1e-6, std::hypot(along.x, along.y));
  return j[shoulder + 4] + along * (0.03 * size / length);
}

void DrawPerson(cv::Mat& canvas, const Person& person, const Joints& j, double size) {
  DrawLegs(canvas, person.body, j, size);
  DrawTrunk(canvas, person.body, j, size);
  DrawHead(canvas, person, j, size);
  for (const int shoulder : {kRightShoulder, kLeftShoulder}) {
    DrawArm(canvas, person.body, j, shoulder, size);
  }
  const int acting = person.performance.acting_side > 0 ? kLeftShoulder : kRightShoulder;
  const Thing held = person.held.thing;
  if (held == Thing::kBox || held == Thing::kBall) {
    const Point2d between = (Grip(j, kLeftShoulder, size) + Grip(j, kRightShoulder, size)) * 0.5;
    DrawThing(canvas, person.held, {between, size, 0});
  } else {
    DrawThing(canvas, person.held,
              {Grip(j, acting, size), size, 0.15 * person.performance.acting_side});
  }
  for (const int shoulder : {kRightShoulder, kLeftShoulder}) {
    Disc(canvas, Grip(j, shoulder, size), 0.034 * size, person.body.skin);
  }
}

// From world pixels (those of a frame seen by a camera at rest) to frame pixels.
struct View {
  double zoom;
  Point2d centre;
  Point2d shift;
  Point2d operator()(const Point2d& p) const { return (p - centre) * zoom + centre + shift; }
};

double TimeOf(const Clip& clip, int64_t frame) {
  return static_cast<double>(frame) / static_cast<double>(clip.frames);
}

View ViewAt(const Clip& clip, int64_t frame) {
  const Camera& camera = clip.camera;
  const double time = TimeOf(clip, frame);
  const double angle = 2 * CV_PI * camera.rate * time;
  View view;
  view.zoom = camera.zoom * (1 + camera.zoom_change * (time - 0.5));
  view.centre = {clip.width / 2.0, clip.height / 2.0};
  view.shift = {camera.shake * std::sin(angle + camera.phase_x) + camera.drift * (time - 0.5) +
                    0.3 * camera.shake * std::sin(3.3 * angle + camera.phase_y),
                0.7 * camera.shake * std::sin(1.7 * angle + camera.phase_y)};
  return view;
}

Scalar Saturated(double hue, double saturation, double value) {
  cv::Mat pixel(1, 1, CV_8UC3, Scalar(hue, saturation * 255, value * 255));  // hue: 0 to 180
  cv::cvtColor(pixel, pixel, cv::COLOR_HSV2RGB);
  const cv::Vec3b rgb = pixel.at<cv::Vec3b>(0, 0);
  return {double(rgb[0]), double(rgb[1]), double(rgb[2])};
}

// A greyish colour: rooms are paler than what people wear and hold.
Scalar Muted(double darkest, double brightest, RandomStream& random) {
  const double grey = random.Uniform(darkest, brightest);
  Scalar colour;
  for (int c = 0; c < 3; ++c) colour[c] = grey + random.Uniform(-14, 14);
  return colour;
}

// Smooth noise of several octaves in [-1, 1], from coarse grids of random numbers.
cv::Mat Clouds(cv::Size size, RandomStream& random) {
  cv::Mat sum = cv::Mat::zeros(size, CV_32FC3);
  double weight = 0.6;
  for (const int cells : {5, 14, 40}) {
    cv::Mat grid(cells, cells * 4 / 3, CV_32FC3);
    for (int y = 0; y < grid.rows; ++y) {
      for (int x = 0; x < grid.cols; ++x) {
        const float grey = static_cast<float>(random.Uniform(-1, 1));
        for (int c = 0; c < 3; ++c) {
          grid.at<cv::Vec3f>(y, x)[c] = grey + 0.4F * static_cast<float>(random.Uniform(-1, 1));
        }
      }
    }
    cv::Mat octave;
    cv::resize(grid, octave, size, 0, 0, cv::INTER_CUBIC);
    sum += octave * weight;
    weight *= 0.55;
  }
  return sum;
}

// Bricks, boards, tiles or nothing, over the wall or the floor.
void DrawPattern(cv::Mat& image, const cv::Rect& area, RandomStream& random) {
  cv::Mat part = image(area);
  const Scalar colour = Scalar::all(random.Uniform(80, 180));
  const int64_t kind = random.Integer(0, 4);
  const int step = static_cast<int>(random.Integer(18, 44));
  const int offset = static_cast<int>(random.Integer(0, step));
  cv::Mat lines = part.clone();
  if (kind == 0 || kind == 1) {
    for (int y = offset; y < part.rows; y += step) cv::line(lines, {0, y}, {part.cols, y}, colour);
  }
  if (kind == 1 || kind == 2) {
    for (int x = offset; x < part.cols; x += step) cv::line(lines, {x, 0}, {x, part.rows}, colour);
  }
  cv::addWeighted(part, 0.6, lines, 0.4, 0, part);
}

void DrawFurniture(cv::Mat& image, int floor, RandomStream& random) {
  if (random.Chance(0.6)) {  // a picture or a window
    const cv::Rect frame(static_cast<int>(random.Integer(0, image.cols - 80)),
                         static_cast<int>(random.Integer(10, floor / 2)),
                         static_cast<int>(random.Integer(40, 80)),
                         static_cast<int>(random.Integer(30, 60)));
    const Scalar inside = Muted(90, 210, random);
    cv::rectangle(image, frame, inside, cv::FILLED);
    cv::rectangle(image, frame, Scalar::all(random.Uniform(60, 110)), 3);
  }
  if (random.Chance(0.6)) {  // a cupboard
    const int width = static_cast<int>(random.Integer(50, 100));
    const int height = static_cast<int>(random.Integer(40, 110));
    const cv::Rect body(static_cast<int>(random.Integer(0, image.cols - width)), floor - height + 8,
                        width, height);
    cv::rectangle(image, body, Muted(80, 170, random), cv::FILLED);
    cv::rectangle(image, body, Scalar::all(70), 2);
  }
}

}  // namespace

Look MakeLook(Thing thing, RandomStream& random) {
  Look look;
  look.thing = thing;
  look.size = random.Uniform(0.95, 1.15);
  switch (thing) {
    case Thing::kNone:
      break;
    case Thing::kCup:  // warm and bright, light rim
      look.colour = Saturated(random.Uniform(0, 30), random.Uniform(0.75, 1), 0.95);
      look.accent = Scalar::all(random.Uniform(225, 250));
      break;
    case Thing::kPhone:  // nearly black, cold bright screen
      look.colour = Scalar::all(random.Uniform(10, 40));
      look.accent = Saturated(random.Uniform(88, 112), random.Uniform(0.3, 0.7), 1);
      break;
    case Thing::kBox:  // cardboard, dark tape
      look.colour =
          Saturated(random.Uniform(10, 18), random.Uniform(0.4, 0.6), random.Uniform(0.65, 0.85));
      look.accent = Saturated(random.Uniform(8, 16), 0.6, random.Uniform(0.3, 0.45));
      break;
    case Thing::kBall:  // green to violet, light bands
      look.colour =
          Saturated(random.Uniform(50, 160), random.Uniform(0.7, 1), random.Uniform(0.7, 0.95));
      look.accent = Scalar(250, 250, random.Uniform(170, 250));
      break;
    case Thing::kHat:  // dark, bright band
      look.colour =
          Saturated(random.Uniform(0, 180), random.Uniform(0.2, 0.7), random.Uniform(0.12, 0.3));
      look.accent = Saturated(random.Uniform(0, 180), random.Uniform(0.7, 1), 0.95);
      break;
  }
  return look;
}

cv::Mat MakeBackground(int width, int height, double keep_clear, double body_height,
                       RandomStream& random) {
  const cv::Size size(cvRound(width * kCanvas * kMargin), cvRound(height * kCanvas * kMargin));
  cv::Mat image(size, CV_8UC3);
  const int floor = cvRound(size.height * random.Uniform(0.70, 0.78));
  const cv::Rect wall_area(0, 0, size.width, floor);
  const cv::Rect floor_area(0, floor, size.width, size.height - floor);
  image(wall_area).setTo(Muted(135, 205, random));
  image(floor_area).setTo(Muted(85, 135, random));
  DrawPattern(image, wall_area, random);
  DrawPattern(image, floor_area, random);
  DrawFurniture(image, floor, random);

  const double scale = body_height * kCanvas;
  const double margin = (kMargin - 1) / 2;
  const double clear_x = keep_clear * kCanvas + margin * width * kCanvas;
  const int64_t count = random.Integer(1, 4);
  for (int64_t i = 0; i < count; ++i) {
    const Thing thing = static_cast<Thing>(random.Integer(1, 6));
    const Look look = MakeLook(thing, random);
    const double side = random.Chance(0.5) ? 1 : -1;
    const Point2d centre(clear_x + side * scale * random.Uniform(0.45, 0.85),
                         size.height * random.Uniform(0.25, 0.86));
    DrawThing(image, look, {centre, scale * random.Uniform(0.6, 0.85), random.Uniform(-0.6, 0.6)});
  }
  cv::Mat textured;
  image.convertTo(textured, CV_32FC3);
  textured += Clouds(size, random) * random.Uniform(6, 18);
  textured.convertTo(image, CV_8UC3);
  return image;
}

Joints JointsInFrame(const Clip& clip, size_t person, int64_t frame) {
  const Person& who = clip.persons[person];
  Joints joints = PoseAt(who.body, who.performance, TimeOf(clip, frame));
  const View view = ViewAt(clip, frame);
  for (Point2d& joint : joints) joint = view(joint);
  return joints;
}

cv::Mat DrawFrame(const Clip& clip, int64_t frame, bool figures) {
  const View view = ViewAt(clip, frame);
  // Background pixel b shows world point b / kCanvas - margin; canvas pixel = kCanvas *
  // view(world).
  const Point2d margin((kMargin - 1) / 2 * clip.width, (kMargin - 1) / 2 * clip.height);
  const Point2d offset = kCanvas * view(-margin);
  const cv::Matx23d to_canvas(view.zoom, 0, offset.x, 0, view.zoom, offset.y);
  cv::Mat canvas;
  cv::warpAffine(clip.background, canvas, to_canvas,
                 cv::Size(clip.width * kCanvas, clip.height * kCanvas), cv::INTER_LINEAR,
                 cv::BORDER_REFLECT);
  const double time = TimeOf(clip, frame);
  for (size_t i = clip.persons.size(); figures && i-- > 0;) {  // the actor in front
    const Person& person = clip.persons[i];
    if (!person.PresentAt(time)) continue;
    Joints joints = JointsInFrame(clip, i, frame);
    for (Point2d& joint : joints) joint = (joint + Point2d(0.5, 0.5)) * kCanvas - Point2d(0.5, 0.5);
    DrawPerson(canvas, person, joints, person.body.height * view.zoom * kCanvas);
  }
  cv::Mat picture;
  cv::resize(canvas, picture, cv::Size(clip.width, clip.height), 0, 0, cv::INTER_AREA);
  const Lighting& light = clip.lighting;
  const double level = 1 + light.change * std::sin(2 * CV_PI * (light.rate * time + light.phase));
  cv::multiply(picture, light.tint * level, picture);
  return picture;
}

}  // namespace kinefit
