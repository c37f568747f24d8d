#include "dataset/synthetic.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "dataset/synthetic_scene.h"
#include "dataset/worker_threads.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "video/writer.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr char kMarker[] = "synthetic.txt";  // tells a set of ours from a foreign folder
constexpr double kFps = 25;

struct Action {
  const char* name;
  Movement movement;
  bool fast;
  Thing held;
  bool hat;
};

constexpr Action kActions[] = {
    {"drink", Movement::kHandToFace, false, Thing::kCup, false},
    {"call", Movement::kHandToFace, false, Thing::kPhone, false},
    {"lift_box", Movement::kLift, false, Thing::kBox, false},
    {"lift_ball", Movement::kLift, false, Thing::kBall, false},
    {"salute", Movement::kSalute, false, Thing::kNone, false},
    {"tip_hat", Movement::kSalute, false, Thing::kNone, true},
    {"wave_slow", Movement::kWave, false, Thing::kNone, false},
    {"wave_fast", Movement::kWave, true, Thing::kNone, false},
    {"march", Movement::kStep, false, Thing::kNone, false},
    {"jog", Movement::kStep, true, Thing::kNone, false},
};
constexpr int kClasses = static_cast<int>(std::size(kActions));

// What the annotation says of a clip. float32 here, float16 in the file.
struct ClipAnnotation {
  std::string name;
  int64_t label = 0;
  int64_t frames = 0;
  int64_t persons = 0;
  std::vector<float> xy;     // [M, T, V, 2]
  std::vector<float> score;  // [M, T, V]
};

struct Task {
  int actor;
  int label;
  int take;
};

std::string TwoDigits(int number) { return (number < 10 ? "0" : "") + std::to_string(number); }

std::string NameOf(const Task& task) {
  return "actor" + TwoDigits(task.actor) + "_" + kActions[task.label].name + "_take" +
         TwoDigits(task.take);
}

bool IsTestActor(int actor, int actors) { return actor >= actors - std::max(1, actors / 3); }

// Someone who walks past behind the actor, for a part of the clip.
Person MakePasserBy(const Clip& clip, RandomStream& random) {
  Person person;
  person.body = MakeBody(random, clip.height);
  person.body.height *= 0.85;
  const double direction = random.Chance(0.5) ? 1 : -1;
  const double ground = clip.height * random.Uniform(0.80, 0.86);
  const double middle = clip.width / 2.0, far = 0.62 * clip.width;
  person.performance = MakePerformance(Movement::kWalk, false, {0, 0}, random);
  person.performance.cycles = random.Uniform(2, 3.5);
  person.performance.facing = direction;
  person.performance.turn = 0.55;
  person.performance.start = {middle - direction * far, ground};
  person.performance.end = {middle + direction * far, ground};
  person.enter = random.Uniform(0.05, 0.3);
  person.leave = random.Uniform(0.6, 0.95);
  return person;
}

Clip MakeClip(const SyntheticOptions& options, const Body& body, const Action& action,
              RandomStream& random) {
  Clip clip;
  clip.width = options.width;
  clip.height = options.height;
  clip.frames = random.Integer(40, 61);
  const cv::Point2d place(clip.width * random.Uniform(0.42, 0.58),
                          clip.height * random.Uniform(0.93, 0.96));
  Person actor;
  actor.body = body;
  actor.performance = MakePerformance(action.movement, action.fast, place, random);
  actor.held = MakeLook(action.held, random);
  const bool undressed = action.held == Thing::kNone && action.movement != Movement::kSalute;
  actor.hat = action.hat || (undressed && random.Chance(0.2));
  actor.hat_look = MakeLook(Thing::kHat, random);
  clip.persons.push_back(actor);
  if (random.Chance(0.15)) clip.persons.push_back(MakePasserBy(clip, random));
  clip.background = MakeBackground(clip.width, clip.height, place.x, body.height, random);

  clip.camera.zoom = random.Uniform(0.94, 1.04);
  clip.camera.zoom_change = random.Uniform(-0.06, 0.06);
  clip.camera.shake = random.Chance(0.5) ? random.Uniform(0, 1.2) : 0;
  clip.camera.drift = random.Uniform(-5, 5);
  clip.camera.phase_x = random.Uniform(0, 6);
  clip.camera.phase_y = random.Uniform(0, 6);
  clip.camera.rate = random.Uniform(0.7, 2.5);
  const double brightness = random.Uniform(0.75, 1.12);
  for (int c = 0; c < 3; ++c) clip.lighting.tint[c] = brightness * random.Uniform(0.92, 1.08);
  clip.lighting.change = random.Uniform(0, 0.1);
  clip.lighting.rate = random.Uniform(0.3, 2);
  clip.lighting.phase = random.Uniform();
  return clip;
}

// Marks runs of frames that begin with the given chance and last `shortest` to `longest` frames.
std::vector<bool> Runs(int64_t frames, double chance, int64_t shortest, int64_t longest,
                       RandomStream& random) {
  std::vector<bool> marked(frames, false);
  int64_t left = 0;
  for (int64_t t = 0; t < frames; ++t) {
    if (left == 0 && random.Chance(chance)) left = random.Integer(shortest, longest + 1);
    if (left == 0) continue;
    marked[t] = true;
    --left;
  }
  return marked;
}

// What a pose estimator would have said of the true joints.
void Annotate(const Clip& clip, RandomStream& random, ClipAnnotation* annotation) {
  annotation->frames = clip.frames;
  annotation->persons = static_cast<int64_t>(clip.persons.size());
  for (size_t m = 0; m < clip.persons.size(); ++m) {
    const bool drops = random.Chance(0.1);  // the detector loses this person now and then
    const std::vector<bool> dropped = Runs(clip.frames, drops ? 0.03 : 0, 1, 3, random);
    const std::vector<bool> doubtful = Runs(clip.frames, 0.015, 2, 5, random);
    std::vector<std::vector<bool>> missed;
    missed.reserve(kJoints);
    for (int v = 0; v < kJoints; ++v) missed.push_back(Runs(clip.frames, 0.006, 1, 6, random));
    for (int64_t t = 0; t < clip.frames; ++t) {
      const double time = static_cast<double>(t) / static_cast<double>(clip.frames);
      const bool present = clip.persons[m].PresentAt(time) && !dropped[t];
      const Joints joints = JointsInFrame(clip, m, t);
      for (int v = 0; v < kJoints; ++v) {
        const double spread = doubtful[t] ? 1.2 : 0.6;
        const double x = joints[v].x + spread * random.Normal();
        const double y = joints[v].y + spread * random.Normal();
        const double score =
            doubtful[t] ? random.Uniform(0.15, kLowScore - 0.02) : random.Uniform(0.7, 0.99);
        const bool seen = present && !missed[v][t];
        annotation->xy.push_back(seen ? static_cast<float>(x) : 0);
        annotation->xy.push_back(seen ? static_cast<float>(y) : 0);
        annotation->score.push_back(seen ? static_cast<float>(score) : 0);
      }
    }
  }
}

ClipAnnotation MakeOne(const SyntheticOptions& options, const Task& task,
                       const std::string& videos) {
  RandomStream of_actor(options.seed, "synthetic_actor", task.actor);
  const Body body = MakeBody(of_actor, options.height);
  const uint64_t number = static_cast<uint64_t>(task.label) * 1000000 + task.take;
  RandomStream random(options.seed, "synthetic_clip", task.actor, number);
  const Clip clip = MakeClip(options, body, kActions[task.label], random);

  ClipAnnotation annotation;
  annotation.name = NameOf(task);
  annotation.label = task.label;
  RandomStream noise(options.seed, "synthetic_noise", task.actor, number);
  Annotate(clip, noise, &annotation);

  VideoWriter writer(videos + "/" + annotation.name + ".mp4", clip.width, clip.height, kFps);
  for (int64_t t = 0; t < clip.frames; ++t) writer.Write(DrawFrame(clip, t));
  writer.Finish();
  return annotation;
}

// Makes every clip, on several threads. The order of the results is that of the tasks.
std::vector<ClipAnnotation> MakeAll(const SyntheticOptions& options, const std::vector<Task>& tasks,
                                    const std::string& videos,
                                    const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<ClipAnnotation> annotations(tasks.size());
  std::atomic<size_t> next{0};
  std::mutex mutex;
  int64_t done = 0;
  std::exception_ptr failure;
  const auto work = [&] {
    for (size_t i = next++; i < tasks.size(); i = next++) {
      try {
        annotations[i] = MakeOne(options, tasks[i], videos);
        const std::lock_guard<std::mutex> lock(mutex);
        ++done;
        if (progress) progress(done, static_cast<int64_t>(tasks.size()));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
        next = tasks.size();
      }
    }
  };
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<std::thread> threads;
  StartThreads((options.threads > 0 ? options.threads : cores) - 1, work, &threads);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  return annotations;
}

void WriteHalf(PickleWriter& writer, const std::vector<float>& values,
               const std::vector<int64_t>& shape) {
  writer.Array(NdArray::FromFloatsAsHalf(shape, values).view());
}

void WriteSize(PickleWriter& writer, const SyntheticOptions& options) {
  writer.BeginTuple();
  writer.Int(options.height);
  writer.Int(options.width);
  writer.EndTuple();
}

std::string EncodeAnnotations(const SyntheticOptions& options, const std::vector<Task>& tasks,
                              const std::vector<ClipAnnotation>& annotations) {
  PickleWriter writer(3);
  writer.BeginDict();
  writer.String("split");
  writer.BeginDict();
  for (const bool test : {false, true}) {
    writer.String(test ? "test" : "train");
    writer.BeginList();
    for (size_t i = 0; i < tasks.size(); ++i) {
      if (IsTestActor(tasks[i].actor, options.actors) == test) writer.String(annotations[i].name);
    }
    writer.EndList();
  }
  writer.EndDict();
  writer.String("annotations");
  writer.BeginList();
  for (const ClipAnnotation& a : annotations) {
    writer.BeginDict();
    writer.String("frame_dir");
    writer.String(a.name);
    writer.String("label");
    writer.Int(a.label);
    writer.String("img_shape");
    WriteSize(writer, options);
    writer.String("original_shape");
    WriteSize(writer, options);
    writer.String("total_frames");
    writer.Int(a.frames);
    writer.String("keypoint");
    WriteHalf(writer, a.xy, {a.persons, a.frames, kJoints, 2});
    writer.String("keypoint_score");
    WriteHalf(writer, a.score, {a.persons, a.frames, kJoints});
    writer.EndDict();
  }
  writer.EndList();
  writer.EndDict();
  return writer.Finish();
}

void CheckOptions(const SyntheticOptions& options) {
  const auto within = [](const char* name, int value, int low, int high) {
    if (value >= low && value <= high) return;
    throw Error(std::string(name) + " must be " + std::to_string(low) + " to " +
                    std::to_string(high) + ", not " + std::to_string(value),
                "built-in data set",
                "choose another value; `kinefit data make --help` lists the options");
  };
  within("actors", options.actors, 2, 10000);
  within("takes", options.takes, 1, 10000);
  within("width", options.width, 96, 1920);
  within("height", options.height, 96, 1080);
  within("threads", options.threads, 0, 256);
  if (options.width % 2 != 0 || options.height % 2 != 0) {
    throw Error("width and height must be even", "built-in data set",
                "choose another value; `kinefit data make --help` lists the options");
  }
}

// Removes what an earlier run left, its annotations first, so that no half-made set looks whole.
void PrepareFolder(const std::string& folder, bool force) {
  MakeFolder(folder);
  const bool ours = fs::exists(fs::path(folder) / kMarker);
  if (!ours && !force && !fs::is_empty(folder)) {
    throw Error("the folder is not empty and holds no earlier built-in set", folder,
                "name a new or empty folder, or allow writing into this one with --force");
  }
  fs::remove(fs::path(folder) / "annotations.pkl");
  MakeFolder(folder + "/videos");
  if (!ours) return;
  for (const auto& entry : fs::directory_iterator(folder + "/videos")) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("actor", 0) == 0 && entry.path().extension() == ".mp4") {
      fs::remove(entry.path());
    }
  }
}

}  // namespace

const std::vector<std::string>& SyntheticClassNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Action& action : kActions) list.emplace_back(action.name);
    return list;
  }();
  return names;
}

SyntheticSet MakeSyntheticSet(const std::string& folder, const SyntheticOptions& options,
                              const std::function<void(int64_t, int64_t)>& progress) {
  CheckOptions(options);
  try {
    PrepareFolder(folder, options.force);
  } catch (const fs::filesystem_error& error) {
    throw Error("the folder cannot be prepared: " + error.code().message(), folder,
                "choose another folder, or change its permissions");
  }
  PublishFile(folder + "/" + kMarker,
              "Made by: kinefit data make\nseed " + std::to_string(options.seed) + "\nactors " +
                  std::to_string(options.actors) + "\ntakes " + std::to_string(options.takes) +
                  "\nsize " + std::to_string(options.width) + "x" + std::to_string(options.height) +
                  "\n");

  std::vector<Task> tasks;
  for (int actor = 0; actor < options.actors; ++actor) {
    for (int label = 0; label < kClasses; ++label) {
      for (int take = 0; take < options.takes; ++take) tasks.push_back({actor, label, take});
    }
  }
  SyntheticSet set;
  set.videos = folder + "/videos";
  set.classes = folder + "/classes.txt";
  set.annotations = folder + "/annotations.pkl";
  const std::vector<ClipAnnotation> annotations = MakeAll(options, tasks, set.videos, progress);
  for (const Task& task : tasks) {
    ++(IsTestActor(task.actor, options.actors) ? set.test_clips : set.train_clips);
  }
  std::string names;
  for (const std::string& name : SyntheticClassNames()) names += name + "\n";
  PublishFile(set.classes, names);
  PublishFile(set.annotations, EncodeAnnotations(options, tasks, annotations));
  return set;
}

}  // namespace kinefit
