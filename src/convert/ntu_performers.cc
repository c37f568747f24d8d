#include "convert/ntu_performers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "files/error.h"

namespace kinefit {
namespace {

// Thresholds of get_raw_denoised_data.py.
constexpr size_t kNoiseLength = 11;
constexpr float kNoiseSpread = 0.8F;
constexpr double kNoiseShare = 0.69754;
constexpr float kFarthestJoint = 60000;  // pixels; beyond, float16 ends

// One body id through the recording.
struct Track {
  std::vector<int64_t> frames;
  std::vector<const NtuBody*> bodies;
  double motion = 0;

  int64_t first() const { return frames.front(); }
  int64_t last() const { return frames.back(); }
};

// In the order in which they appear.
std::vector<Track> CollectTracks(const NtuRecording& recording) {
  std::vector<Track> tracks;
  std::unordered_map<int64_t, size_t> by_id;
  for (size_t frame = 0; frame < recording.frames.size(); ++frame) {
    const auto number = static_cast<int64_t>(frame);
    for (const NtuBody& body : recording.frames[frame]) {
      const auto [entry, added] = by_id.emplace(body.id, tracks.size());
      if (added) tracks.emplace_back();
      Track& track = tracks[entry->second];
      if (!track.frames.empty() && track.last() == number) continue;  // the same id twice
      track.frames.push_back(number);
      track.bodies.push_back(&body);
    }
  }
  return tracks;
}

// Sum of the variances of x, y and z over joints and frames, of the bodies that `wanted` accepts.
template <typename Wanted>
double Motion(const Track& track, Wanted wanted) {
  std::array<double, 3> sum{};
  std::array<double, 3> square{};
  double count = 0;
  for (const NtuBody* body : track.bodies) {
    if (!wanted(*body)) continue;
    for (const NtuJoint& joint : body->joints) {
      const std::array<double, 3> at = {joint.x, joint.y, joint.z};
      if (!std::isfinite(at[0] + at[1] + at[2])) continue;
      for (size_t i = 0; i < 3; ++i) {
        sum[i] += at[i];
        square[i] += at[i] * at[i];
      }
      ++count;
    }
  }
  double motion = 0;
  for (size_t i = 0; i < 3 && count > 0; ++i) {
    motion += square[i] / count - (sum[i] / count) * (sum[i] / count);
  }
  return motion;
}

// Upright people are higher than wide; much of what is mistaken for people is not.
bool IsUpright(const NtuBody& body) {
  const auto [left, right] =
      std::minmax_element(body.joints.begin(), body.joints.end(),
                          [](const NtuJoint& a, const NtuJoint& b) { return a.x < b.x; });
  const auto [low, high] =
      std::minmax_element(body.joints.begin(), body.joints.end(),
                          [](const NtuJoint& a, const NtuJoint& b) { return a.y < b.y; });
  return right->x - left->x <= kNoiseSpread * (high->y - low->y);
}

void DropShortTracks(std::vector<Track>* tracks) {
  const auto is_short = [](const Track& track) { return track.frames.size() <= kNoiseLength; };
  // A recording of nothing but short appearances keeps them: something is better than nothing.
  if (std::all_of(tracks->begin(), tracks->end(), is_short)) return;
  tracks->erase(std::remove_if(tracks->begin(), tracks->end(), is_short), tracks->end());
}

void DropWideTracks(std::vector<Track>* tracks) {
  for (size_t i = 0; i < tracks->size() && tracks->size() > 1;) {
    Track& track = (*tracks)[i];
    const auto upright =
        static_cast<double>(std::count_if(track.bodies.begin(), track.bodies.end(),
                                          [](const NtuBody* body) { return IsUpright(*body); }));
    const auto frames = static_cast<double>(track.bodies.size());
    if ((frames - upright) / frames >= kNoiseShare) {
      tracks->erase(tracks->begin() + static_cast<int64_t>(i));
      continue;
    }
    if (upright < frames) track.motion = std::min(track.motion, Motion(track, IsUpright));
    ++i;
  }
}

// Which tracks make up each of the two performers.
std::array<std::vector<const Track*>, 2> AssignPlaces(const std::vector<Track>& by_motion) {
  std::array<std::vector<const Track*>, 2> places;
  std::array<int64_t, 2> first = {by_motion[0].first(), 0};
  std::array<int64_t, 2> last = {by_motion[0].last(), 0};
  places[0].push_back(&by_motion[0]);
  for (size_t i = 1; i < by_motion.size(); ++i) {
    const Track& track = by_motion[i];
    for (size_t place = 0; place < 2; ++place) {
      const bool overlaps =
          std::min(last[place], track.last()) - std::max(first[place], track.first()) > 0;
      if (overlaps) continue;
      first[place] = places[place].empty() ? track.first() : std::min(first[place], track.first());
      last[place] = std::max(last[place], track.last());
      places[place].push_back(&track);
      break;
    }
  }
  return places;
}

void WriteBody(const NtuBody& body, int64_t at, NtuPerformers* result) {
  Pose& pose = result->pose;
  for (const NtuJoint& joint : body.joints) {
    const auto index = static_cast<size_t>(at++);
    const bool usable = std::abs(joint.color_x) <= kFarthestJoint &&
                        std::abs(joint.color_y) <= kFarthestJoint;  // false for NaN
    if (!usable) ++result->lost_joints;
    pose.xy[2 * index] = usable ? joint.color_x : 0;
    pose.xy[2 * index + 1] = usable ? joint.color_y : 0;
    pose.score[index] = usable ? 0.5F * static_cast<float>(joint.tracking_state) : 0;
  }
}

}  // namespace

NtuPerformers ChoosePerformers(const NtuRecording& recording) {
  std::vector<Track> tracks = CollectTracks(recording);
  if (tracks.empty()) throw Error("there is no body in any frame");
  NtuPerformers result;
  result.bodies = static_cast<int64_t>(tracks.size());
  if (tracks.size() > 1) {
    for (Track& track : tracks) {
      track.motion = Motion(track, [](const NtuBody&) { return true; });
    }
    DropShortTracks(&tracks);
    DropWideTracks(&tracks);
    std::stable_sort(tracks.begin(), tracks.end(),
                     [](const Track& a, const Track& b) { return a.motion > b.motion; });
  }
  const std::array<std::vector<const Track*>, 2> places = AssignPlaces(tracks);

  Pose& pose = result.pose;
  pose.persons = places[1].empty() ? 1 : 2;
  pose.frames = static_cast<int64_t>(recording.frames.size());
  pose.joints = kNtuJoints;
  const auto joints = static_cast<size_t>(pose.persons * pose.frames * pose.joints);
  pose.xy.assign(2 * joints, 0.0F);
  pose.score.assign(joints, 0.0F);
  for (int64_t place = 0; place < pose.persons; ++place) {
    for (const Track* track : places[static_cast<size_t>(place)]) {
      for (size_t i = 0; i < track->frames.size(); ++i) {
        WriteBody(*track->bodies[i], (place * pose.frames + track->frames[i]) * pose.joints,
                  &result);
      }
    }
  }
  const bool seen =
      std::any_of(pose.score.begin(), pose.score.end(), [](float score) { return score > 0; });
  if (!seen && result.lost_joints > 0) {
    throw Error("not one joint of any body has coordinates that are numbers");
  }
  return result;
}

}  // namespace kinefit
