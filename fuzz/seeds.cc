#include <cstdio>
#include <string>

#include "dataset/packed_writer.h"
#include "files/jpeg.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/zip.h"
#include "memory/testing/oom_texts.h"

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  for (const char* name : {"pickle", "npy", "zip", "checkpoint", "explain_oom", "packed"}) {
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
  const std::vector<std::string>& texts = kinefit::OomTexts();
  for (size_t i = 0; i < texts.size(); ++i) {
    kinefit::PublishFile(folder + "/explain_oom/" + std::to_string(i), texts[i]);
  }
  WritePackedStores(folder + "/packed");
  return 0;
}
