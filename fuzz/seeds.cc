#include <cstdio>
#include <filesystem>
#include <string>

#include "convert/ntu_files_test.h"
#include "dataset/packed_writer.h"
#include "distributed/control_message.h"
#include "files/jpeg.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/zip.h"
#include "memory/testing/oom_texts.h"
#include "video/numbered_video.h"

using kinefit::NdArray;
using kinefit::PickleWriter;

namespace {

void Ints(PickleWriter* w, std::initializer_list<int64_t> values) {
  w->BeginTuple();
  for (const int64_t value : values) w->Int(value);
  w->EndTuple();
}

std::string Annotation(int protocol) {
  PickleWriter w(protocol);
  w.BeginDict();
  w.String("split");
  w.BeginDict();
  w.String("train");
  w.BeginList();
  w.String("clip");
  w.EndList();
  w.EndDict();
  w.String("annotations");
  w.BeginList();
  w.BeginDict();
  w.String("label");
  w.Int(1);
  w.String("score");
  w.Float(0.5);
  w.String("keypoint");
  w.Array(NdArray::FromFloatsAsHalf({1, 1, 2, 2}, {1, 2, 3, 4}).view());
  w.EndDict();
  w.EndList();
  w.EndDict();
  return w.Finish();
}

void Text(PickleWriter* w, const char* key, const char* value) {
  w->String(key);
  w->String(value);
}

void Number(PickleWriter* w, const char* key, int64_t value) {
  w->String(key);
  w->Int(value);
}

void BeginClip(PickleWriter* w, const char* id, int64_t frames) {
  w->BeginDict();
  Text(w, "frame_dir", id);
  Number(w, "label", 1);
  Number(w, "total_frames", frames);
  w->String("img_shape");
  Ints(w, {48, 64});
}

void Array(PickleWriter* w, const char* key, const NdArray& array) {
  w->String(key);
  w->Array(array.view());
}

// Three joints; one clip of two persons, one of flat poses, in two splits.
std::string AnnotationSet() {
  PickleWriter w(3);
  w.BeginDict();
  w.String("split");
  w.BeginDict();
  for (const char* split : {"t", "v"}) {
    w.String(split);
    w.BeginList();
    w.String(split);
    w.EndList();
  }
  w.EndDict();
  w.String("annotations");
  w.BeginList();
  BeginClip(&w, "t", 2);
  Array(&w, "keypoint", NdArray::FromFloatsAsHalf({2, 2, 3, 2}, std::vector<float>(24, 9)));
  Array(&w, "keypoint_score", NdArray::FromFloats({2, 2, 3}, std::vector<float>(12, 0.5F)));
  w.EndDict();
  BeginClip(&w, "v", 4);
  Array(&w, "keypoint", NdArray::FromDoubles({3, 3, 3}, std::vector<double>(27, 0.75)));
  Array(&w, "frame_inds", NdArray::FromInts({3}, {0, 0, 2}));
  w.EndDict();
  w.EndList();
  w.EndDict();
  return w.Finish();
}

// What `kinefit predict` takes, with the byte that says which of the three it is.
void WritePoseFiles(const std::string& folder) {
  PickleWriter w(3);
  BeginClip(&w, "clip", 1);
  Array(&w, "keypoint", NdArray::FromFloats({1, 1, 2, 3}, {1, 2, 0.5F, 3, 4, 1}));
  w.EndDict();
  kinefit::PublishFile(folder + "/pickle", std::string(1, '\0') + w.Finish());
  const NdArray keypoint = NdArray::FromFloats({1, 2, 2}, {1, 2, 3, 4});
  kinefit::WriteNpz(folder + "/whole", {{"keypoint", keypoint}});
  kinefit::PublishFile(folder + "/whole", "\1" + kinefit::ReadFile(folder + "/whole"));
  kinefit::PublishFile(folder + "/keypoint", "\2" + kinefit::EncodeNpy(keypoint.view()));
}

// The shipped configurations, without their includes, and overrides as --set takes them.
void CopyConfigs(const std::string& from, const std::string& to) {
  const std::string overrides =
      "train.optimizer.lr=0.1\ntrain.schedule.0.type=linear\ndata.limbs=[[0, 1]]\n"
      "train.work_dir=a b";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(from)) {
    if (entry.path().extension() != ".toml") continue;
    std::string text = kinefit::ReadFile(entry.path().string());
    const size_t include = text.find("\ninclude");
    if (include != std::string::npos) text.erase(include, text.find('\n', include + 1) - include);
    kinefit::PublishFile(to + "/" + entry.path().stem().string(), text + '\0' + overrides);
  }
}

// Six frames; whole, with its index cut off, and with the other frames' bytes damaged.
void WriteVideos(const std::string& folder) {
  kinefit::WriteNumberedVideo(folder + "/whole", 6);
  const std::string whole = kinefit::ReadFile(folder + "/whole");
  kinefit::PublishFile(folder + "/cut", whole.substr(0, whole.size() / 2));
  std::string damaged = whole;
  for (size_t i = whole.size() / 3; i < whole.size() / 2; i += 7) damaged[i] ^= '\x55';
  kinefit::PublishFile(folder + "/damaged", damaged);
}

std::string CheckpointPickle() {
  PickleWriter w;
  w.BeginDict();
  w.String("state_dict");
  w.BeginDict();
  w.String("module.w");
  w.Global("torch._utils", "_rebuild_tensor_v2");
  w.BeginTuple();
  w.BeginTuple();
  w.String("storage");
  w.Global("torch", "FloatStorage");
  w.String("0");
  w.String("cpu");
  w.Int(6);
  w.EndTuple();
  w.PersistentId();
  w.Int(0);
  Ints(&w, {2, 3});
  Ints(&w, {3, 1});
  w.Bool(false);
  w.Global("collections", "OrderedDict");
  Ints(&w, {});
  w.Reduce();
  w.EndTuple();
  w.Reduce();
  w.EndDict();
  w.EndDict();
  return w.Finish();
}

// The same as PyTorch before 1.6 wrote it.
std::string LegacyCheckpoint() {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  PickleWriter version;
  version.Int(1001);
  PickleWriter machine;
  machine.BeginDict();
  machine.EndDict();
  PickleWriter keys;
  keys.BeginList();
  keys.String("0");
  keys.EndList();
  return magic + version.Finish() + machine.Finish() + CheckpointPickle() + keys.Finish() +
         std::string("\6\0\0\0\0\0\0\0", 8) + std::string(24, '\0');
}

// One file per form that the readers of src/convert and of joint layouts take.
void WriteConvertSeeds(const std::string& folder) {
  for (const char* name : {"ntu_skeleton", "keypoint_json", "manifest", "joint_layout"}) {
    kinefit::MakeFolder(folder + "/" + name);
  }
  const auto write = [&](const std::string& name, const std::string& text) {
    kinefit::PublishFile(folder + "/" + name, text);
  };
  write("ntu_skeleton/two", kinefit::WriteSkeleton(kinefit::MakeRecording(2, [](int i) {
          std::vector<kinefit::NtuBody> bodies = {kinefit::StandingBody(1, 0, 0)};
          if (i == 1) bodies.push_back(kinefit::StandingBody(72057594037931101, 1, 0));
          return bodies;
        })));
  write("ntu_skeleton/none", "3\n0\n0\n0\n");
  write("keypoint_json/alphapose",
        R"([{"image_id": "1.jpg", "category_id": 1, "keypoints": [1, 2, 0.5, 3, 4, 1],)"
        R"( "score": 2.5, "idx": [7.0]}, {"image_id": 2, "keypoints": [1, 2, 0.5, 3, 4, 1]}])");
  write("keypoint_json/coco",
        R"({"images": [{"id": 7, "file_name": "a_04.jpg"}], "annotations": [{"image_id": 7,)"
        R"( "track_id": 2, "keypoints": [1, 2, 2, 0, 0, 0]}]})");
  write("keypoint_json/mmpose",
        R"({"instance_info": [{"frame_id": 1, "instances": [{"keypoints": [[1, 2], [3, 4]],)"
        R"( "keypoint_scores": [0.2, 0.7], "bbox_score": 0.9, "track_id": 1}]}]})");
  write("keypoint_json/openpose",
        R"({"people": [{"person_id": [-1], "pose_keypoints_2d": [1, 2, 0.5, 0, 0, 0]}]})");
  write("manifest/csv",
        "path,label,start,end,split,pose\n\"a, "
        "b.mp4\",walk,1.5,3,train,\nc.mp4,\"s\"\"t\",,,test,p\n");
  write("manifest/json",
        R"({"clips": [{"path": "a.mp4", "label": 3, "start_frame": 10, "end_frame": 20}]})");
  write("manifest/name", "S001C002P003R001A004");
  write("joint_layout/three",
        "joints = ['head', 'l', 'r']\npairs = [['l', 'r']]\nlimbs = [['head', 'l']]\n");
}

// Two clips of two small pictures, one rejected annotation, one split.
void WritePackedStores(const std::string& folder) {
  kinefit::Dataset set;
  set.class_names = {"a", "b"};
  set.rejected.push_back({"r", "no"});
  for (const char* id : {"x", "y"}) {
    kinefit::Sample sample;
    sample.id = id;
    sample.width = sample.height = 32;
    sample.total_frames = 2;
    sample.pose = {1, 2, 1, {1, 2, 3, 0.1F}, {1, 0.5F}};
    set.samples.push_back(sample);
  }
  for (const bool images : {true, false}) {
    kinefit::PackRequest request;
    request.path = folder + (images ? "/pictures" : "/poses");
    request.settings.images = images;
    request.set = &set;
    request.splits = {{"s", {"x", "r"}}};
    request.force = true;
    kinefit::WritePackedStore(request, [](const kinefit::Sample&) {
      kinefit::PackedClip clip;
      clip.table.shown_width = clip.table.shown_height = 32;
      clip.table.window_width = clip.table.window_height = 20;
      clip.table.width = clip.table.height = 16;
      const std::string rgb(16 * 16 * 3, 'm');
      kinefit::JpegEncoder encoder;
      clip.images.assign(
          2, encoder.Encode(reinterpret_cast<const uint8_t*>(rgb.data()), 16, 16, 48, {}));
      return clip;
    });
  }
}

// One message of each kind, without the end of its line.
void WriteControlMessages(const std::string& folder) {
  using kinefit::ControlKind;
  kinefit::ControlMessage message;
  message.nodes = 2;
  message.node = 1;
  message.ranks = 8;
  message.start = 3;
  message.world = message.wanted_world = 16;
  message.first_rank = 8;
  message.port = 29500;
  message.exit_code = 15;
  message.host = "b";
  message.text = "say \"what\"";
  message.failure.rank = 5;
  message.failure.step = 1234567890123;
  message.failure.host = "node7";
  message.failure.phase = "computing";
  message.failure.why = "was killed by signal 9 (Killed)";
  message.failure.log = "/logs/rank_5.log";
  int number = 0;
  for (const ControlKind kind :
       {ControlKind::kJoin, ControlKind::kRound, ControlKind::kFailed, ControlKind::kEnded,
        ControlKind::kOver, ControlKind::kSignal, ControlKind::kAlive, ControlKind::kRefused}) {
    message.kind = kind;
    std::string line = kinefit::FormatControlMessage(message);
    line.pop_back();
    kinefit::PublishFile(folder + "/" + std::to_string(number++), line);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER CONFIGS\n");
    return 2;
  }
  const std::string folder = argv[1];
  WriteConvertSeeds(folder);
  for (const char* name : {"pickle", "npy", "zip", "checkpoint", "explain_oom", "packed", "config",
                           "annotations", "pose_file", "video", "control_message"}) {
    kinefit::MakeFolder(folder + "/" + name);
  }
  kinefit::PublishFile(folder + "/pickle/protocol2", Annotation(2));
  kinefit::PublishFile(folder + "/pickle/protocol3", Annotation(3));
  // What the writer never uses: protocols 0 and 4, numpy scalars and in-band buffers.
  kinefit::PublishFile(folder + "/pickle/protocol0",
                       "(dp0\nVa\np1\n(lp2\nI01\naF0.5\naL7L\nas."
                       "cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR");
  kinefit::PublishFile(folder + "/pickle/scalar",
                       "cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'i4'\nI0\nI1\ntR"
                       "(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS'abcd'\ntR.");
  kinefit::PublishFile(folder + "/pickle/buffer",
                       "cnumpy.core.numeric\n_frombuffer\n(S'abcdefgh'\ncnumpy\ndtype\n(S'i2'\nI0"
                       "\nI1\ntR(I3\nS'>'\nNNNI-1\nI-1\nI0\ntb(I2\nI2\ntS'F'\ntR.");
  kinefit::PublishFile(folder + "/pickle/shared",
                       "]q\x01(h\x01h\x01"
                       "eccollections\nOrderedDict\n)R.");
  kinefit::PublishFile(folder + "/npy/array",
                       kinefit::EncodeNpy(NdArray::FromFloats({2, 2}, {1, 2, 3, 4}).view()));
  kinefit::PublishFile(folder + "/npy/fortran",
                       std::string("\x93NUMPY\x01\x00\x3c\x00", 10) +
                           "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2), }  \n" +
                           "abcdefgh");
  kinefit::WriteNpz(folder + "/zip/arrays.npz", {{"a", NdArray::FromInts({1}, {3})}});
  kinefit::ZipWriter zip(folder + "/zip/two.zip");
  zip.Add("archive/data.pkl", CheckpointPickle());
  zip.Add("archive/data/0", std::string(24, '\0'));
  zip.Commit();
  // "0" * 64, deflated.
  const std::string packed("\x33\x30\xa0\x3d\x00\x00", 6);
  std::string local("PK\3\4\x14\0\0\0\x08\0\0\0\0\0\x1e\x15\x42\x5d\x06\0\0\0\x40\0\0\0\1\0\0\0a",
                    31);
  std::string entry(
      "PK\1\2\x14\0\x14\0\0\0\x08\0\0\0\0\0\x1e\x15\x42\x5d\x06\0\0\0\x40\0\0\0\1\0\0\0"
      "\0\0\0\0\0\0\0\0\0\0\0\0\0\0a",
      47);
  std::string end("PK\5\6\0\0\0\0\1\0\1\0\x2f\0\0\0\x25\0\0\0\0\0", 22);
  kinefit::PublishFile(folder + "/zip/deflated.zip", local + packed + entry + end);
  kinefit::PublishFile(folder + "/checkpoint/weights", CheckpointPickle());
  kinefit::PublishFile(folder + "/checkpoint/legacy", LegacyCheckpoint());
  const std::string header = R"({"a.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  kinefit::PublishFile(folder + "/checkpoint/safetensors",
                       std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') +
                           header + std::string(8, '\1'));
  CopyConfigs(argv[2], folder + "/config");
  kinefit::PublishFile(folder + "/annotations/set", AnnotationSet());
  WritePoseFiles(folder + "/pose_file");
  WriteVideos(folder + "/video");
  const std::vector<std::string>& texts = kinefit::OomTexts();
  for (size_t i = 0; i < texts.size(); ++i) {
    kinefit::PublishFile(folder + "/explain_oom/" + std::to_string(i), texts[i]);
  }
  WritePackedStores(folder + "/packed");
  WriteControlMessages(folder + "/control_message");
  return 0;
}
