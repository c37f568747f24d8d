#include "convert/ntu_skeleton.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "files/error.h"
#include "files/publish.h"
#include "files/text.h"

namespace kinefit {
namespace {

constexpr int64_t kMostFrames = 100000;
constexpr uint64_t kLargestFile = uint64_t{1} << 30;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

class SkeletonReader {
 public:
  SkeletonReader(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

  NtuRecording Read() {
    NtuRecording recording;
    const int64_t frames = Count("number of frames", kMostFrames);
    if (frames == 0) Fail("the recording has no frames");
    for (frame_ = 0; frame_ < frames; ++frame_) {
      recording.frames.emplace_back();
      const int64_t bodies = Count("number of bodies", kNtuMaxBodies);
      for (int64_t i = 0; i < bodies; ++i) recording.frames.back().push_back(ReadBody());
    }
    while (!rest_.empty()) {
      NextLine("end of the file");
      if (!fields_.empty()) Fail("there is more text after the last frame");
    }
    return recording;
  }

 private:
  [[noreturn]] void Fail(const std::string& problem) const {
    throw Error(problem, where_ + ":" + std::to_string(line_),
                "unpack or download this .skeleton file again");
  }

  // Takes a line and splits it; an empty one is an Error unless the file's end is looked for.
  void NextLine(const char* wanted) {
    if (rest_.empty()) {
      Fail(std::string("the file ends where the ") + wanted + " of frame " +
           std::to_string(frame_ + 1) + " should follow");
    }
    const size_t end = rest_.find('\n');
    std::string_view line = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
    ++line_;
    fields_.clear();
    while (!line.empty()) {
      size_t begin = 0;
      while (begin < line.size() && IsSpace(line[begin])) ++begin;
      size_t stop = begin;
      while (stop < line.size() && !IsSpace(line[stop])) ++stop;
      if (stop > begin) fields_.push_back(line.substr(begin, stop - begin));
      if (fields_.size() > kMostFields) Fail("the line has too many fields");
      line.remove_prefix(stop);
    }
  }

  void Fields(const char* wanted, size_t count) {
    NextLine(wanted);
    if (fields_.size() == count) return;
    Fail("the line of the " + std::string(wanted) + " has " + std::to_string(fields_.size()) +
         " fields, not " + std::to_string(count));
  }

  int64_t Count(const char* wanted, int64_t largest) {
    Fields(wanted, 1);
    const int64_t count = Integer(0);
    if (count < 0 || count > largest) {
      Fail("the " + std::string(wanted) + " is " + std::to_string(count) + ", not 0 to " +
           std::to_string(largest));
    }
    return count;
  }

  int64_t Integer(size_t field) const {
    const std::string_view text = fields_[field];
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      Fail("\"" + std::string(text.substr(0, 40)) + "\" is not a whole number");
    }
    return value;
  }

  int Small(size_t field) const {
    const int64_t value = Integer(field);
    if (value < -1000 || value > 1000) Fail("the state " + std::to_string(value) + " is none");
    return static_cast<int>(value);
  }

  float Real(size_t field) const {
    const std::string_view text = fields_[field];
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range) return 0;  // as good as zero, or beyond use
    if (error != std::errc() || end != text.data() + text.size()) {
      // What Windows prints for numbers that are none: "-1.#IND", "1.#INF", "1.#QNAN".
      if (text.find('#') != std::string_view::npos) return kNone;
      Fail("\"" + std::string(text.substr(0, 40)) + "\" is not a number");
    }
    const auto real = static_cast<float>(value);
    return std::isfinite(real) ? real : kNone;
  }

  NtuBody ReadBody() {
    Fields("body", 10);
    NtuBody body;
    body.id = Integer(0);
    body.clipped_edges = Small(1);
    body.hand_left_confidence = Small(2);
    body.hand_left_state = Small(3);
    body.hand_right_confidence = Small(4);
    body.hand_right_state = Small(5);
    body.is_restricted = Small(6);
    body.lean_x = Real(7);
    body.lean_y = Real(8);
    body.tracking_state = Small(9);
    if (Count("number of joints", kNtuJoints) != kNtuJoints) {
      Fail("the body has another number of joints than 25");
    }
    for (NtuJoint& joint : body.joints) ReadJoint(&joint);
    return body;
  }

  void ReadJoint(NtuJoint* joint) {
    Fields("joint", 12);
    float* const reals[] = {&joint->x,
                            &joint->y,
                            &joint->z,
                            &joint->depth_x,
                            &joint->depth_y,
                            &joint->color_x,
                            &joint->color_y,
                            &joint->orientation[0],
                            &joint->orientation[1],
                            &joint->orientation[2],
                            &joint->orientation[3]};
    for (size_t i = 0; i < 11; ++i) *reals[i] = Real(i);
    joint->tracking_state = Small(11);
    if (joint->tracking_state < 0 || joint->tracking_state > 2) {
      Fail("a joint's tracking state is " + std::to_string(joint->tracking_state) +
           ", not 0, 1 or 2");
    }
  }

  static constexpr size_t kMostFields = 64;
  static constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

  std::string_view rest_;
  const std::string& where_;
  std::vector<std::string_view> fields_;
  int64_t line_ = 0;
  int64_t frame_ = 0;
};

}  // namespace

NtuRecording ParseNtuSkeleton(std::string_view text, const std::string& where) {
  text = WithoutByteOrderMark(text, where);
  return SkeletonReader(text, where).Read();
}

NtuRecording ReadNtuSkeleton(const std::string& path) {
  return ParseNtuSkeleton(ReadFile(path, kLargestFile), path);
}

}  // namespace kinefit
